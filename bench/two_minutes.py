#!/usr/bin/env python3
"""From a CSV log, vectors of pictures and a folder of pictures to a report, in Python: seconds of each part.

usage: bench/two_minutes.py WORK OUT WHEEL

WORK   folder for the tables, the pictures and everything made of them; tables that are there are not written again
OUT    folder for results.jsonl
WHEEL  the wheel of docs/python.md; it is installed, with nothing else, into a new environment, which is part of the time

150,000 events of 5,000 users on 20,000 items, each with a picture of 64 x 64 pixels and a vector of 512 numbers. The user's
taste is one of eight directions of the vectors. The program is the block "In fifteen lines" of docs/python.md, as it is.
"""
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet

ITEMS, USERS, EVENTS, DIM, TASTES = 20_000, 5_000, 150_000, 512, 8
DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs/python.md"
#: Says how long each call took, around the program of the page.
TIMED = """
import json, time, ams
parts, begin = [], time.perf_counter()
def timed(name, function):
    def call(*arguments, **options):
        start = time.perf_counter()
        result = function(*arguments, **options)
        parts.append([name, round(time.perf_counter() - start, 2)])
        return result
    return call
for name in ("doctor", "prepare", "encode", "train"):
    setattr(ams, name, timed(name, getattr(ams, name)))
for name in ("evaluate", "page", "publish"):
    setattr(ams.Run, name, timed(name, getattr(ams.Run, name)))
"""


def png(color):
    """A picture of one color."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(color) * 64) * 64
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def write(work):
    """The tables and the pictures."""
    if (work / "vectors.parquet").exists():
        return
    random = np.random.default_rng(1)
    kind = random.integers(TASTES, size=ITEMS)
    center = random.normal(size=(TASTES, DIM))
    vectors = (center[kind] + random.normal(size=(ITEMS, DIM))).astype("float32")
    names = [f"{item % 100:02}/{item:05}.png" for item in range(ITEMS)]
    for folder in range(100):
        (work / f"pictures/{folder:02}").mkdir(parents=True, exist_ok=True)
    for item, name in enumerate(names):
        (work / "pictures" / name).write_bytes(png([30 + 25 * int(kind[item]), 220 - 25 * int(kind[item]), item % 256]))
    with (work / "items.csv").open("w") as out:
        out.write("item,image,shelf\n")
        out.writelines(f"i{item:05},{name},s{item % 40}\n" for item, name in enumerate(names))
    taste = random.integers(TASTES, size=USERS)
    users = random.integers(USERS, size=EVENTS)
    items = (ITEMS * random.random(EVENTS) ** 2).astype(int)
    clicks = random.random(EVENTS) < np.where(taste[users] == kind[items], 0.45, 0.12)
    times = np.sort(random.integers(1_700_000_000, 1_700_000_000 + 14 * 86_400, size=EVENTS))
    with (work / "events.csv").open("w") as out:
        out.write("user,item,time,label,device\n")
        rows = zip(users, items, times, clicks, random.integers(3, size=EVENTS))
        out.writelines(f"u{user},i{item:05},{at},{int(click)},d{device}\n" for user, item, at, click, device in rows)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM).cast(pa.list_(pa.float32()))
    pa.parquet.write_table(pa.table({"name": names, "vector": lists}), work / "vectors.parquet")


def main():
    work, out, wheel = (pathlib.Path(it).resolve() for it in sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    write(work)
    program = re.search(r"## In fifteen lines.*?```python\n(.*?)```", DOCS.read_text(), re.S)[1]
    lines = [line for line in program.splitlines() if line.strip()]
    assert len(lines) <= 15, f"{len(lines)} lines"
    for name in ("venv", "data", "runs", "models"):
        shutil.rmtree(work / name, ignore_errors=True)
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    subprocess.run([work / "venv/bin/pip", "install", "-q", "--no-index", wheel], check=True)
    installed = time.perf_counter() - begin
    ending = "\nprint(json.dumps(parts))\n"
    done = subprocess.run([work / "venv/bin/python", "-c", TIMED + program + ending], cwd=work, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    report = work / "report.html"
    line = {
        "seconds": round(seconds, 1), "install": round(installed, 1), "lines": len(lines),
        "parts": json.loads(done.stdout.splitlines()[-1]), "report_bytes": report.stat().st_size,
        "gauc": [round(float(it), 4) for it in re.findall(r"GAUC ([0-9.]+)", done.stdout)],
    }
    with (out / "results.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
