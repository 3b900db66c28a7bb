"""Runs ams beside another program."""
import json
import pathlib
import statistics
import subprocess

AMS = pathlib.Path(__file__).resolve().parent.parent.parent / "target/release/ams"


def ams(program, *arguments):
    """Runs ams and returns the object it prints."""
    command = [program, *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def around(values, digits):
    """median [least, most]"""
    cells = [f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return "{} [{}, {}]".format(*cells)
