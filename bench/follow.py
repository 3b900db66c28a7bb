#!/usr/bin/env python3
"""Delay, loss of events and memory of `ams train --follow`, and its versions after kills.

usage: bench/follow.py WORK OUT [--minutes 30] [--rate 2000] [--every 1] [--lateness 10] [--part 5] [--threads 2]
                       [--users 50000] [--items 10000] [--rows-before 500000] [--whole] [--serve] [--ams PROGRAM]
       bench/follow.py WORK OUT --kills 30 [--minutes 10] [--rate 500] [--rows-before 50000] ..

The first form follows a log that is written in real time, beside a server with --serve. The second one follows a log
that is there, once undisturbed, and once killed at random moments while it lands; and compares the versions.

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
import random
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Shop:
    """Draws events."""

    def __init__(self, users, items, begin, seed=1):
        self.draw = np.random.default_rng(seed)
        self.users, self.items = users, items
        self.tastes = self.draw.normal(size=(users, 8))
        self.begin = begin
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


def said(arguments):
    """The arguments without places."""
    return {key: value for key, value in vars(arguments).items() if key not in ("work", "out", "ams")}


def settings(arguments, shop, work):
    """Writes the log before and the configurations into WORK; the command that follows."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "parts").mkdir(parents=True)
    before = np.sort(shop.begin - 60 - shop.draw.random(arguments.rows_before) * 3600)
    write(shop.events(before), work / "before.parquet")
    (work / "train.toml").write_text(
        f'[model]\nimages = "none"\n[train]\nepochs = 1\nbatch = {arguments.batch}\nrows_learning_rate = 0.016\n'
        "decay_every = 1000000\nmin_occurrences = 2\nsketch_bytes = 1048576\n")
    (work / "follow.toml").write_text(
        f'name = "shop"\nmodels = "models"\nwork = "follow"\ntrain = "train.toml"\nevery_minutes = {arguments.every}\n'
        f'lateness_seconds = {arguments.lateness}\npublish_as = "{"whole" if arguments.whole else "delta"}"\n'
        '[prepare]\nevents = ["before.parquet"]\ncontext_fields = "category,hour"\n')
    return [arguments.ams, "train", "follow.toml", "--follow", "parts", "--threads", str(arguments.threads)]


class Server:
    """A server of the models, on ports of its own."""

    def __init__(self, program, work):
        self.loaded, self.port = {}, 18601
        command = [program, "serve", "models", "--bind", "127.0.0.1:18600", "--admin-bind", f"127.0.0.1:{self.port}",
                   "--poll", "1", "--threads", "1"]
        self.process = subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def look(self):
        """Notes when versions were loaded."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        for version, at in re.findall(r'ams_version_loaded_timestamp_seconds{[^}]*version="(\d+)"[^}]*} (\S+)', text):
            self.loaded[int(version)] = float(at)


def in_real_time(arguments):
    """Follows a log that is written meanwhile."""
    work = arguments.work.resolve()
    shop = Shop(arguments.users, arguments.items, time.time())
    command = settings(arguments, shop, work)
    parts = work / "parts"
    process = subprocess.Popen(command, cwd=work, stdout=(work / "said.txt").open("w"), stderr=subprocess.STDOUT)
    while not (work / "models/shop/1/MANIFEST.json").exists():
        assert process.poll() is None, (work / "said.txt").read_text()
        time.sleep(0.2)
    server = Server(arguments.ams, work) if arguments.serve else None
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
        if server and number > 1:
            server.look()
        told.append([round(until - begin, 1), memory(process)])
        # What was read goes, but for the newest parts.
        for old in sorted(parts.glob("*.parquet"))[:-60]:
            old.unlink()
        for window in json.loads(state.read_text())["windows"]:
            seen[window["version"]] = window
    time.sleep(60 * arguments.every)
    process.send_signal(signal.SIGINT)
    process.wait()
    if server:
        server.look()
        server.process.kill()
    subprocess.run([*command, "--once"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    done = json.loads(state.read_text())
    for window in done["windows"]:
        seen[window["version"]] = window
    windows = [window for _, window in sorted(seen.items()) if "window" in window]
    loaded = server.loaded if server else {}
    for window in windows:
        if window["version"] in loaded:
            window["loaded"] = loaded[window["version"]]
    rows, waiting = done["rows"], sum(of["rows"] for of in done["waiting"])
    result = {
        "arguments": said(arguments),
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
    served = [window["event_to_score"]["p95"] + window["loaded"] - window["published"] for window in windows
              if "loaded" in window]
    if served:
        lines += ["", f"Until the server has loaded it, of {len(served)} versions: p95 {np.median(served):.1f} s in the median, "
                  f"{max(served):.1f} s at most."]
    third = len(told) // 3
    mean = lambda of: sum(bytes for _, bytes in of) / max(1, len(of)) / 1e6
    lines += ["", f"{written:,} events written in {(last - begin) / 60:.1f} minutes, {len(windows)} versions; published "
              f"{rows['published']:,}, waiting {waiting:,}, late {rows['late']:,}, left out {rows['left_out']:,}, "
              f"lost {result['lost']:,}.",
              f"Memory, mean of each third: {mean(told[:third]):.0f}, {mean(told[third:2 * third]):.0f}, "
              f"{mean(told[2 * third:]):.0f} MB; most {max(bytes for _, bytes in told) / 1e6:.0f} MB."]
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def bundles(work):
    """The bytes of all versions, by the names of their files."""
    models = work / "models/shop"
    return {str(path.relative_to(models)): path.read_bytes() for path in models.rglob("*")
            if path.is_file() and path.name != "follow.json"}


def hashes(work):
    """Rows by what became of them, and what every version is."""
    state = json.loads((work / "follow/state.json").read_text())
    return state["rows"], [(window["version"], window["hash"]) for window in state["windows"]]


def killed(arguments):
    """Follows the same log undisturbed and killed."""
    work = arguments.work.resolve()
    begin = 1_700_000_000.0
    calm, other = work / "calm", work / "killed"
    for place in [calm, other]:
        shop = Shop(arguments.users, arguments.items, begin)
        command = settings(arguments, shop, place)
        land = calm / "parts" if place == calm else other / "to-land"
        land.mkdir(exist_ok=True)
        count = round(arguments.part * arguments.rate)
        for number in range(round(60 * arguments.minutes / arguments.part)):
            times = np.sort(begin + (number + shop.draw.random(count)) * arguments.part)
            write(shop.events(times), land / f"{number:06}.parquet")
    taken = time.time()
    subprocess.run([*command, "--once"], cwd=calm, check=True, stdout=subprocess.DEVNULL)
    taken = time.time() - taken
    draw = random.Random(1)
    waiting = sorted((other / "to-land").iterdir())
    each = -(-len(waiting) // arguments.kills)
    moments = []
    for kill in range(arguments.kills):
        process = subprocess.Popen(command, cwd=other, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for part in waiting[each * kill:each * (kill + 1)]:
            part.rename(other / "parts" / part.name)
        time.sleep(draw.uniform(0, 4 * taken / arguments.kills))
        process.kill()
        process.wait()
        state = other / "follow/state.json"
        told = json.loads(state.read_text()) if state.exists() else {}
        moments.append(f"{told.get('parts_read', 0)} parts read, {len(told.get('windows', []))} versions"
                       + (", one being made" if told.get("making") else ""))
    subprocess.run([*command, "--once"], cwd=other, check=True, stdout=subprocess.DEVNULL)
    assert hashes(calm) == hashes(other), (hashes(calm), hashes(other))
    assert bundles(calm) == bundles(other)
    rows, versions = hashes(other)
    result = {"arguments": said(arguments), "rows": rows, "versions": versions,
              "kills": moments}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{arguments.kills} kills: {len(versions)} versions, the bytes of those of the undisturbed run; rows {rows}")
    print("\n".join(moments))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    for name, default in [("minutes", 30.0), ("rate", 2000), ("every", 1), ("lateness", 10), ("part", 5), ("threads", 2),
                          ("users", 50_000), ("items", 10_000), ("rows-before", 500_000), ("batch", 512), ("kills", 0)]:
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--whole", action="store_true", help="publish whole versions, not deltas")
    parser.add_argument("--serve", action="store_true", help="a server takes the versions up meanwhile")
    parser.add_argument("--ams", default=str(ROOT / "target/release/ams"))
    arguments = parser.parse_args()
    if arguments.kills:
        killed(arguments)
    else:
        in_real_time(arguments)


if __name__ == "__main__":
    main()
