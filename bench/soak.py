#!/usr/bin/env python3
"""Everything that happens to a server, at once, for half an hour.

usage: bench/soak.py WORK OUT [--minutes N] [--ams PROGRAM]

WORK  folder for a synthetic shop and a model of it, as bench/serve.py makes them
OUT   folder for results.json and table.md

Meanwhile: page views at half of what the server can answer (`ams bench serve --url`, in turns of 20 seconds), new versions, deltas by
the admin port, versions that are cut, changed or empty, rollbacks, other files of tokens, SIGHUP, idle connections, bodies that
come by the byte, requests that are none, and Prometheus. What is good must be answered; memory and series must not grow.
"""
import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import threading
import time
import urllib.error
import urllib.request

from peers.program import AMS
from serve import Bench, Server

MODEL = "joint"
PORT, ADMIN = 8620, 8621
URL, ADMIN_URL = f"http://127.0.0.1:{PORT}", f"http://127.0.0.1:{ADMIN}"
# Versions of the model that stay on disk.
KEPT = 3
# Versions that are not good have higher numbers: every look tries them first.
BAD = 1_000_000


def http(url, method="GET", body=None, headers=None):
    """Status and text of an answer."""
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Soak:
    def __init__(self, bench, out, minutes):
        self.bench, self.out, self.minutes = bench, out, minutes
        self.models, self.tokens = out / "models", out / "tokens"
        self.random = random.Random(1)
        self.done, self.lock = threading.Event(), threading.Lock()
        self.counts, self.faults, self.series, self.loads = {}, [], [], []
        # A version that is being made or removed is no place for another change.
        self.folder = threading.Lock()

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + number

    def fault(self, what):
        with self.lock:
            self.faults.append(f"{time.time() - self.began:.1f} s: {what}")
        print("FAULT", what, flush=True)

    # What happens, once.

    def highest(self):
        numbers = (int(version.name) for version in (self.models / MODEL).iterdir() if version.name.isdigit())
        return max(number for number in numbers if number < BAD)

    def appear(self, version, change=lambda folder: None):
        """A copy of the first version, changed before it is there: whole at once, or file by file."""
        place, coming = self.models / MODEL / str(version), self.out / "coming"
        shutil.copytree(self.out / "good", coming)
        change(coming)
        if self.random.random() < 0.5:
            os.rename(coming, place)
            return
        place.mkdir()
        for file in sorted(coming.iterdir(), key=lambda _: self.random.random()):
            shutil.copyfile(file, place / file.name)
            time.sleep(0.02)
        shutil.rmtree(coming)

    def new_version(self):
        with self.folder:
            highest = self.highest()
            self.appear(highest + 1)
            for old in range(1, highest + 2 - KEPT):
                shutil.rmtree(self.models / MODEL / str(old), ignore_errors=True)
            left = [version.name for version in (self.models / MODEL).iterdir() if version.name.isdigit() and not (version / "MANIFEST.json").exists()]
            if left:
                self.fault(f"versions {left} were removed and are there again")
        self.count("new versions")

    def bad_version(self):
        def cut(folder):
            file = max(folder.iterdir(), key=lambda file: file.stat().st_size)
            os.chmod(file, 0o644)
            os.truncate(file, file.stat().st_size // 2)

        def change(folder):
            file = max(folder.iterdir(), key=lambda file: file.stat().st_size)
            os.chmod(file, 0o644)
            with open(file, "r+b") as opened:
                opened.seek(2048)
                byte = opened.read(1)
                opened.seek(2048)
                opened.write(bytes([byte[0] ^ 255]))

        def empty(folder):
            os.chmod(folder / "MANIFEST.json", 0o644)
            (folder / "MANIFEST.json").write_bytes(b"")

        with self.folder:
            number = self.highest() + BAD
            self.appear(number, self.random.choice([cut, change, empty]))
        time.sleep(3)
        with self.folder:
            shutil.rmtree(self.models / MODEL / str(number))
        self.count("bad versions")

    def delta(self):
        item = self.random.choice(self.items)
        body = json.dumps({"items": [{"item": item, "picture": self.random.choice(self.pictures), "features": {}}]}).encode()
        status, text = http(f"{ADMIN_URL}/admin/models/{MODEL}/changes", "POST", body, {"Content-Type": "application/json"})
        # A version may be removed from disk under the change: then it is refused, and nothing happened.
        self.count(f"deltas: {status}")
        if status not in (200, 409):
            self.fault(f"delta: {status} {text}")

    def order(self):
        path = self.random.choice(["rollback", f"versions/{self.highest()}/activate"])
        status, text = http(f"{ADMIN_URL}/admin/models/{MODEL}/{path}", "POST", b"", {"X-Ams-Admin": "1"})
        self.count(f"orders: {status}")
        if status >= 500:
            self.fault(f"{path}: {status} {text}")

    def secrets(self):
        self.write_tokens(f"other-token-{self.random.random()}")
        os.kill(self.server.process.pid, signal.SIGHUP)
        self.count("reloads")

    def write_tokens(self, *others):
        whole = self.tokens.with_suffix(".new")
        whole.write_text("\n".join(["good-token-0123456789", *others]) + "\n")
        os.rename(whole, self.tokens)

    def idle(self):
        for _ in range(50):
            connection = socket.create_connection(("127.0.0.1", PORT), timeout=30)
            if self.random.random() < 0.5:
                connection.sendall(b"POST /v1/models/joint/score HTTP/1.1\r\nHost: x\r\n")
            self.held.append(connection)
            self.count("idle connections")
        while len(self.held) > 500:
            self.held.pop(0).close()

    def slow(self):
        """A body that comes by the byte, each in a chunk of its own, and is left unfinished or ended as no JSON."""
        with socket.create_connection(("127.0.0.1", PORT), timeout=30) as connection:
            try:
                connection.sendall(b"POST /v1/models/joint/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good-token-0123456789\r\n"
                                   b"Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b"1\r\n{\r\n" * 200)
                    time.sleep(0.01)
                if self.random.random() < 0.5:
                    connection.sendall(b"0\r\n\r\n")
                    connection.recv(1000)
            except OSError:
                pass
        self.count("slow bodies")

    def nonsense(self):
        bytes_ = self.random.randbytes(self.random.randrange(1, 2000))
        head = self.random.choice([b"", b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                   b"POST /v1/models/joint/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"])
        try:
            with socket.create_connection(("127.0.0.1", PORT), timeout=2) as connection:
                connection.sendall(head + bytes_)
                connection.recv(1000)
        except OSError:
            pass
        self.count("nonsense")

    def look(self):
        status, text = http(f"{ADMIN_URL}/metrics")
        lines = sum(not line.startswith("#") for line in text.splitlines())
        files = len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
        self.series.append({"seconds": time.time() - self.began, "megabytes": self.server.megabytes(), "series": lines, "files": files})
        for url in (URL + "/health/ready", ADMIN_URL + "/health/ready"):
            status, text = http(url)
            if status != 200:
                self.fault(f"{url}: {status} {text}")

    def load(self):
        run = self.bench.load(self.server, self.rate, seconds=20)
        self.loads.append(run)
        for what in ("shed", "late", "failed"):
            if run[what]:
                self.fault(f"{run[what]} of {run['sent']} page views {what}")

    # All of it, all the time.

    def again(self, what, pause):
        while not self.done.is_set():
            try:
                what()
            except Exception as error:  # Noted: what went wrong is a result.
                self.fault(f"{what.__name__}: {error!r}")
            self.done.wait(pause)

    def run(self):
        good = self.out / "good"
        if not good.exists():
            shutil.copytree(self.bench.models / MODEL / "1", good)
        shutil.rmtree(self.models, ignore_errors=True)
        (self.models / MODEL).mkdir(parents=True)
        shutil.copytree(good, self.models / MODEL / "1")
        self.write_tokens()
        self.held = []
        pages = json.loads((good / "samples.json").read_text())
        self.items = sorted({str(item) for page in pages for item in page["candidates"]["item"]})
        shop = (self.bench.options.work / "shop/items.csv").read_text().splitlines()
        at = shop[0].split(",").index("image")
        self.pictures = [line.split(",")[at] for line in shop[1:]]
        command = [self.bench.options.ams, "serve", self.models, "--bind", f"127.0.0.1:{PORT}", "--admin-bind", f"127.0.0.1:{ADMIN}",
                   "--poll", "0.5", "--idle-timeout", "20", "--token-file", self.tokens]
        self.began = time.time()
        with open(self.out / "server.log", "w") as log, Server(command, URL, "/health/ready", log=log) as self.server:
            self.bench.token = self.tokens
            full = self.bench.saturation(self.server)["answered_per_second"]
            self.rate = full / 2
            threads = [threading.Thread(target=self.again, args=arguments) for arguments in [
                (self.load, 0), (self.new_version, 10), (self.bad_version, 12), (self.delta, 7), (self.order, 20), (self.secrets, 5),
                (self.idle, 5), (self.slow, 1), (self.nonsense, 0.2), (self.look, 10)]]
            for thread in threads:
                thread.start()
            time.sleep(60 * self.minutes)
            self.done.set()
            for thread in threads:
                thread.join()
            for connection in self.held:
                connection.close()
            time.sleep(30)
            self.look()
            log = {"full": full, "rate": self.rate, "counts": self.counts, "faults": self.faults, "looks": self.series, "loads": self.loads}
        (self.out / "results.json").write_text(json.dumps(log, indent=1) + "\n")
        (self.out / "table.md").write_text(self.table(log))
        return log

    def table(self, log):
        sent, answered = (sum(run[what] for run in log["loads"]) for what in ("sent", "answered"))
        lines = [f"{self.minutes:g} minutes at {log['rate']:.0f} page views a second, half of {log['full']:.0f}: {sent} sent, {answered} answered, "
                 f"{len(log['faults'])} faults; by turns of 20 s, p50 {statistics.median(run['ms']['p50'] for run in log['loads']):.2f} ms "
                 f"and p99 {statistics.median(run['ms']['p99'] for run in log['loads']):.1f} ms in the median turn.", "",
                 "Meanwhile: " + ", ".join(f"{number} {what}" for what, number in sorted(log["counts"].items())) + ".", "",
                 "| minute | resident memory, MB | series | open files |", "|---|---|---|---|"]
        every = max(1, len(log["looks"]) // 12)
        for look in itertools.chain(log["looks"][:-1][::every], log["looks"][-1:]):
            lines.append(f"| {look['seconds'] / 60:.1f} | {look['megabytes']:.0f} | {look['series']} | {look['files']} |")
        return "\n".join(lines + ["", *log["faults"]]) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--ams", type=pathlib.Path, default=AMS)
    options = parser.parse_args()
    options.work, options.out, options.ams = options.work.resolve(), options.out.resolve(), options.ams.resolve()
    options.seconds, options.before = 8, None
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    bench.make()
    log = Soak(bench, options.out, options.minutes).run()
    print((options.out / "table.md").read_text())
    raise SystemExit(1 if log["faults"] else 0)


if __name__ == "__main__":
    main()
