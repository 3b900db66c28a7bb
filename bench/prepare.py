#!/usr/bin/env python3
"""`ams prepare` on millions of events: seconds, events per second, and the most memory it had at once.

usage: bench/prepare.py WORK OUT [--events 2,5,20] [--ams PROGRAM]

WORK  folder for the tables, the datasets (removed once measured), and a Python environment if this Python has not got
      pyarrow and numpy; tables in it are not written again
OUT   folder for results.jsonl and table.md

The events are of 200,000 items with a picture's name, category and brand, shown by a power law, and of one user per
100 events, in order of time, so that every user's are spread over the whole file: user, item, label, time, age,
gender, position, hour. They are written as Parquet a million at a time. Memory is the resident set as the kernel
reports it of the process that ended; files it has only written or read count elsewhere.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
NEEDS = {"numpy": "numpy", "pyarrow": "pyarrow"}
ITEMS, EVENTS_PER_USER, DAYS, CHUNK = 200_000, 100, 8, 1_000_000
DAY, BEGIN = 86_400, 1_709_510_400


def with_packages(work):
    """Goes on in a Python that has the packages, made in the work folder if this one lacks them."""
    if all(importlib.util.find_spec(name) for name in NEEDS):
        return
    python = work / "venv/bin/python"
    if pathlib.Path(sys.prefix) == (work / "venv").resolve():
        sys.exit(f"{work / 'venv'} lacks one of {', '.join(NEEDS)}; remove it and try again")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *NEEDS.values()], check=True)
    os.execv(python, [str(python), *sys.argv])


def write_items(path):
    """The items table."""
    with path.open("w") as out:
        out.write("item,image,category,brand\n")
        for item in range(ITEMS):
            out.write(f"i{item:07},{item % 256:02x}/i{item:07}.jpg,category {item % 40},brand {item % 1009}\n")


def write_events(path, events):
    """The log, in order of time; the same every time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet
    random = np.random.default_rng(1)
    users = events // EVENTS_PER_USER
    ranks = np.cumsum(np.arange(1, ITEMS + 1) ** -0.7)
    names = {
        "user": pa.array([f"u{user:08}" for user in range(users)]),
        "item": pa.array([f"i{item:07}" for item in range(ITEMS)]),
        "age": pa.array(["18-24", "25-34", "35-44", "45-54", "55+"]),
        "gender": pa.array(["f", "m"]),
        "position": pa.array([str(position) for position in range(8)]),
        "hour": pa.array([str(hour) for hour in range(24)]),
    }
    part, writer = path.with_suffix(".part"), None
    for first in range(0, events, CHUNK):
        count = min(CHUNK, events - first)
        times = BEGIN + np.arange(first, first + count) * (DAYS * DAY) // events
        user = random.integers(0, users, count)
        keys = {
            "user": user,
            "item": np.searchsorted(ranks, random.random(count) * ranks[-1]),
            "age": user % 5,
            "gender": user % 2,
            "position": random.integers(0, 8, count),
            "hour": times // 3600 % 24,
        }
        texts = {name: pa.DictionaryArray.from_arrays(pa.array(at.astype("int32")), names[name])
                 for name, at in keys.items()}
        table = pa.table({"user": texts.pop("user"), "item": texts.pop("item"),
                          "label": pa.array((random.random(count) < 0.05).astype("int32")),
                          "time": pa.array(times), **texts})
        # Text in the file, as other programs write it.
        table = table.cast(pa.schema([(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
                                      for field in table.schema]))
        writer = writer or pyarrow.parquet.ParquetWriter(part, table.schema)
        writer.write_table(table, row_group_size=1 << 18)
    writer.close()
    part.rename(path)


def measure(program, work, events):
    """One row: writes the log unless it is there, prepares it, removes the dataset."""
    log, items, out = work / f"events-{events}.parquet", work / "items.csv", work / f"data-{events}"
    if not items.exists():
        write_items(items)
    if not log.exists():
        write_events(log, events)
    shutil.rmtree(out, ignore_errors=True)
    command = [program, "prepare", "--events", log, "--items", items, "--out", out, "--user-fields", "age,gender",
               "--item-fields", "category,brand", "--context-fields", "position,hour", "--test-fraction", "0.125",
               "--json"]
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    report = json.load(child.stdout)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - began
    assert status == 0, (command, status)
    assert report["rows"] == events, report
    written = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    shutil.rmtree(out)
    return {"events": events, "users": report["users"], "groups": report["groups"],
            "impressions": report["impressions"], "log_bytes": log.stat().st_size, "dataset_bytes": written,
            "seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "events_per_second": events / seconds, "peak_resident_bytes": usage.ru_maxrss * 1024}


def table(rows):
    lines = ["| events | users | log | dataset | seconds | events/s | most memory |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['events']:,} | {row['users']:,} | {row['log_bytes'] / 1e6:.0f} MB | "
              f"{row['dataset_bytes'] / 1e6:.0f} MB | {row['seconds']:.1f} | {row['events_per_second']:,.0f} | "
              f"{row['peak_resident_bytes'] / 1e6:.0f} MB |" for row in rows]
    few, many = rows[0], rows[-1]
    if many["events"] > few["events"]:
        each = (many["peak_resident_bytes"] - few["peak_resident_bytes"]) / (many["events"] - few["events"])
        lines += ["", f"Memory from {few['events']:,} to {many['events']:,} events: {each:+.1f} bytes per event."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--events", default="2,5,20", help="millions")
    parser.add_argument("--ams", type=pathlib.Path, default=AMS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    with_packages(arguments.work)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for millions in arguments.events.split(","):
        rows.append(measure(arguments.ams, arguments.work, int(float(millions) * 1e6)))
        print({name: round(value) for name, value in rows[-1].items()}, flush=True)
    (arguments.out / "table.md").write_text(table(rows))
    (arguments.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


main()
