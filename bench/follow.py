#!/usr/bin/env python3
"""Delay, loss of events and memory of `ams train --follow` beside a log that is written in real time.

usage: bench/follow.py WORK OUT [--minutes 30] [--rate 2000] [--every 1] [--lateness 10] [--part 5] [--threads 2]
                       [--users 50000] [--items 10000] [--rows-before 500000] [--whole] [--ams PROGRAM]

WORK  folder for the log, the model and what is read; removed first
OUT   folder for results.json and table.md

The log has `rate` events a second, in a Parquet part every `part` seconds, and says the time at which they were made.
Users and items are drawn by their rank to the power of -0.5 and -1, and the items move on: each minute a hundredth of
them is new. A click follows from a vector of the user and one of the item. Memory is that of the program, from /proc.
Needs pyarrow and numpy.
"""
import argparse
import json
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Shop:
    """Draws events."""

    def __init__(self, users, items, seed=1):
        self.draw = np.random.default_rng(seed)
        self.users, self.items = users, items
        self.tastes = self.draw.normal(size=(users, 8))
        self.begin = time.time()
        self.shares = [self.shares_of(users, 0.5), self.shares_of(items, 1.0)]

    @staticmethod
    def shares_of(most, power):
        """Up to each rank, the share of the draws."""
        shares = np.cumsum(np.arange(1, most + 1) ** -power)
        return shares / shares[-1]

    def events(self, times):
        count = len(times)
        rank = lambda shares: np.searchsorted(shares, self.draw.random(count), side="right")
        user = rank(self.shares[0]) * 7919 % self.users
        first = np.maximum((times - self.begin) / 60, 0).astype(int) * self.items // 100
        item = first + rank(self.shares[1]) * 7919 % self.items
        look = np.stack([np.sin(item * (at + 1.7)) for at in range(8)], axis=1)
        odds = (self.tastes[user] * look).sum(axis=1) - 1.5
        label = self.draw.random(count) < 1 / (1 + np.exp(-odds))
        texts = lambda letter, of: pa.array([f"{letter}{number}" for number in of])
        return pa.table({
            "user": texts("u", user),
            "item": texts("i", item),
            "time": times.astype(np.int64),
            "category": texts("c", item % 40),
            "hour": texts("h", times.astype(np.int64) // 3600 % 24),
            "label": label.astype(np.int8),
        })


def write(table, path):
    """A part that appears whole."""
    beside = path.with_name("." + path.name)
    pq.write_table(table, beside)
    beside.rename(path)


def memory(process):
    """Resident bytes of a process now."""
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) * 1024


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    for name, default in [("minutes", 30.0), ("rate", 2000), ("every", 1), ("lateness", 10), ("part", 5), ("threads", 2),
                          ("users", 50_000), ("items", 10_000), ("rows-before", 500_000), ("batch", 512)]:
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--whole", action="store_true", help="publish whole versions, not deltas")
    parser.add_argument("--ams", default=str(ROOT / "target/release/ams"))
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    parts = work / "parts"
    parts.mkdir(parents=True)
    shop = Shop(arguments.users, arguments.items)
    before = np.sort(time.time() - 60 - shop.draw.random(arguments.rows_before) * 3600)
    write(shop.events(before), work / "before.parquet")
    (work / "train.toml").write_text(
        f'[model]\nimages = "none"\n[train]\nepochs = 1\nbatch = {arguments.batch}\nrows_learning_rate = 0.016\n'
        "decay_every = 1000000\nmin_occurrences = 2\nsketch_bytes = 1048576\n")
    (work / "follow.toml").write_text(
        f'name = "shop"\nmodels = "models"\nwork = "follow"\ntrain = "train.toml"\nevery_minutes = {arguments.every}\n'
        f'lateness_seconds = {arguments.lateness}\npublish_as = "{"whole" if arguments.whole else "delta"}"\n'
        '[prepare]\nevents = ["before.parquet"]\ncontext_fields = "category,hour"\n')
    command = [arguments.ams, "train", "follow.toml", "--follow", "parts", "--threads", str(arguments.threads)]
    process = subprocess.Popen(command, cwd=work, stdout=(work / "said.txt").open("w"), stderr=subprocess.STDOUT)
    while not (work / "models/shop/1/MANIFEST.json").exists():
        assert process.poll() is None, (work / "said.txt").read_text()
        time.sleep(0.2)
    written, number, told, seen = 0, 0, [], {}
    begin = last = time.time()
    shop.begin = begin
    state = work / "follow/state.json"
    while last < begin + 60 * arguments.minutes:
        time.sleep(max(0.0, last + arguments.part - time.time()))
        until = time.time()
        count = round((until - begin) * arguments.rate) - written
        write(shop.events(np.sort(last + shop.draw.random(count) * (until - last))), parts / f"{number:06}.parquet")
        written, number, last = written + count, number + 1, until
        assert process.poll() is None, (work / "said.txt").read_text()
        told.append([round(until - begin, 1), memory(process)])
        # What was read goes, but for the last minute.
        for old in sorted(parts.glob("*.parquet"))[:-60]:
            old.unlink()
        for window in json.loads(state.read_text())["windows"]:
            seen[window["version"]] = window
    time.sleep(60 * arguments.every)
    process.send_signal(signal.SIGINT)
    process.wait()
    subprocess.run([*command, "--once"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    done = json.loads(state.read_text())
    for window in done["windows"]:
        seen[window["version"]] = window
    windows = [window for _, window in sorted(seen.items()) if "window" in window]
    rows, waiting = done["rows"], sum(of["rows"] for of in done["waiting"])
    result = {
        "arguments": {key: str(value) for key, value in vars(arguments).items()},
        "written": written,
        "rows": rows,
        "waiting": waiting,
        "lost": written - rows["published"] - rows["late"] - rows["left_out"] - waiting,
        "windows": windows,
        "memory": told,
        "version_bytes": folder_bytes(work / "models/shop" / str(windows[-1]["version"])),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    quantiles = lambda key, of: [window[key][of] for window in windows]
    lines = ["| | event to score, s | landed to score, s |", "|---|---|---|"]
    for name, of, pick in [("p50, median of the versions", "p50", np.median), ("p95, median of the versions", "p95", np.median),
                           ("p95, worst version", "p95", np.max)]:
        cells = [f"{pick(quantiles(key, of)):.1f}" for key in ["event_to_score", "landed_to_score"]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    third = len(told) // 3
    mean = lambda of: sum(bytes for _, bytes in of) / max(1, len(of)) / 1e6
    lines += ["", f"{written:,} events written in {(last - begin) / 60:.1f} minutes, {len(windows)} versions; published "
              f"{rows['published']:,}, waiting {waiting:,}, late {rows['late']:,}, left out {rows['left_out']:,}, "
              f"lost {result['lost']:,}.",
              f"Memory, mean of each third: {mean(told[:third]):.0f}, {mean(told[third:2 * third]):.0f}, "
              f"{mean(told[2 * third:]):.0f} MB; most {max(bytes for _, bytes in told) / 1e6:.0f} MB."]
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
