"""A Python that has the packages a script needs."""
import importlib.util
import os
import pathlib
import subprocess
import sys


def with_packages(venv, needs):
    """Goes on in a Python that has `needs` (package by module), made in the folder `venv` if this one lacks some."""
    if all(importlib.util.find_spec(name) for name in needs):
        return
    python = venv / "bin/python"
    if pathlib.Path(sys.prefix) == venv.resolve():
        sys.exit(f"{venv} lacks one of {', '.join(needs)}; remove it and try again")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *needs.values()], check=True)
    os.execv(python, [str(python), *sys.argv])
