#!/usr/bin/env python3
"""Page views: the scorer, the server, and the same scores by PyTorch and ONNX Runtime behind a plain Python server.

usage: bench/serve.py WORK OUT [--parts matrix,http,peers,overload] [--rounds N] [--seconds N] [--ams PROGRAM] [--before PROGRAM]

WORK  folder for a synthetic shop with histories of up to 100, four models trained on it (joint images, no images, pre-rank,
      and joint with rows as halfs), and a Python environment if this Python has not got what is needed
OUT   folder for results.jsonl and table.md

matrix    the scorer on one core, every number of candidates with every length of history
http      a server with all cores: page views a second when more is asked than it can do, latency at half of that, and of a
          path that does nothing
peers     bench/peers/serve.py with two workers beside the server, in turn, at saturation; the sum of the rates of some page
          views by each, which has to be one number
overload  twice as many requests as it can answer, for a minute: sheds, latencies, memory
before    a server of another program (--before) and of this one, in turn, which of them first in turn too, asked by this one:
          page views a second at saturation, and latency at half of what the other one can

The load is `ams bench serve --url`, on the same machine: it takes its share of the cores from whoever serves. Have nothing
else run meanwhile.
"""
import argparse
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

from peers.packages import with_packages
from peers.program import AMS, ams, around

ROOT = pathlib.Path(__file__).resolve().parent.parent
NEEDS = {"torch": "torch", "onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime", "numpy": "numpy", "safetensors": "safetensors",
         "uvicorn": "uvicorn", "uvloop": "uvloop", "httptools": "httptools", "orjson": "orjson", "xxhash": "xxhash"}
CANDIDATES, BEHAVIORS = "1,50,200,400,1000", "0,32,100"
PEERS = ["torch", "onnx"]


class Server:
    """A process that answers at `url`; killed in the end."""

    def __init__(self, command, url, ready, environment=None, log=subprocess.DEVNULL):
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=log,
                                        env={**os.environ, **(environment or {})}, start_new_session=True)
        self.url = url
        for _ in range(600):
            try:
                urllib.request.urlopen(url + ready, timeout=1).read()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{command}: no answer at {url}")

    def megabytes(self):
        """Its resident memory."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Bench:
    def __init__(self, options):
        self.options, self.results = options, []
        self.models, self.token = options.work / "models", None

    def ams(self, *arguments, program=None):
        return ams(program or self.options.ams, *arguments)

    def keep(self, **result):
        self.results.append(result)
        with open(self.options.out / "results.jsonl", "a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)

    def make(self):
        """The models."""
        work, make = self.options.work, functools.partial(self.ams, program=self.options.before)
        if (self.models / "halfs").exists():
            return
        shop, data = work / "shop", work / "data"
        make("synth", "--out", shop, "--users", "3000", "--items", "2000")
        make("prepare", "--events", shop / "events.parquet", "--items", shop / "items.csv", "--user-fields", "gender,age",
                 "--item-fields", "category,brand", "--context-fields", "hour,position", "--max-behaviors", "100", "--out", data)
        make("encode", data, "--images", shop, "--dim", "256")
        config = work / "shop.toml"
        config.write_text(f'runs = "{work}/runs"\n[data]\nsamples = "{data}"\n[model]\ntower = [64, 12]\n[train]\nepochs = 1\nbatch = 512\n')
        for name, settings in [("joint", []), ("none", ["model.images=none"]),
                               ("pre-rank", ["model.base=pre-rank", "model.aggregator=sum"])]:
            sets = [flag for setting in [f"name={name}", *settings] for flag in ("--set", setting)]
            make("train", config, *sets)
            make("publish", work / "runs" / name, "--to", self.models)
        make("publish", work / "runs/joint", "--to", self.models, "--name", "halfs", "--rows", "f16")

    def matrix(self):
        for model, candidates in [("joint", CANDIDATES), ("none", CANDIDATES), ("halfs", "400"), ("pre-rank", "4000")]:
            report = self.ams("bench", "serve", "--model", self.models / model, "--candidates", candidates, "--behaviors", BEHAVIORS)
            for row in report["runs"]:
                self.keep(part="matrix", model=model, **row)

    def serve(self, program=None, *flags):
        """`ams serve`, by the flags a user would start it with, and further `flags`."""
        command = [program or self.options.ams, "serve", self.models, "--bind", "127.0.0.1:8610", "--admin-bind", "127.0.0.1:8611", *flags]
        return Server(command, "http://127.0.0.1:8610", "/health/ready")

    def load(self, server, rate, model="joint", seconds=None, nothing=False):
        flags = ["--nothing"] * nothing + (["--token-file", self.token] if self.token else [])
        report = self.ams("bench", "serve", "--model", self.models / model, "--candidates", "400", "--behaviors", "32", "--url",
                          server.url, "--rate", f"{rate:.1f}", "--seconds", str(seconds or self.options.seconds), *flags)
        return report["runs"][0]

    def saturation(self, server, model="joint"):
        """Page views a second when twice as many are asked for as are answered."""
        self.load(server, 20, model, 2)
        rate, answered = 50, 0
        while True:
            answered = self.load(server, rate, model, 3)["answered_per_second"]
            if answered < 0.7 * rate:
                break
            rate *= 2
        return self.load(server, 2 * answered, model)

    def http(self):
        for at in range(self.options.rounds):
            for model in ("joint", "none"):
                with self.serve() as server:
                    full = self.saturation(server, model)
                    half = self.load(server, full["answered_per_second"] / 2, model)
                    self.keep(part="http", round=at, model=model, saturation=full, half=half)
            with self.serve(None, "--bench-endpoint") as server:
                self.load(server, 20, seconds=2)
                nothing = self.load(server, full["answered_per_second"] / 2, nothing=True)
                self.keep(part="http", round=at, model="nothing", half=nothing)

    def peer(self, engine, *flags):
        version = self.models / "joint/1"
        return [sys.executable, ROOT / "bench/peers/serve.py", version, self.options.work / "shop/items.csv", "--engine", engine, *flags]

    def peers(self):
        environment = {"AMS_PEER_ONNX": str(self.options.work / "peer.onnx")}
        pages = self.options.work / "pages.jsonl"
        samples = json.loads((self.models / "joint/1/samples.json").read_text())
        pages.write_text("".join(json.dumps(page) + "\n" for page in samples))
        ours = self.ams("bench", "serve", "--model", self.models / "joint", "--requests", pages, "--pages", str(len(samples)))
        sums = {"ams": ours["runs"][0]["ctr_sum"]}
        for engine in PEERS:
            done = subprocess.run(list(map(str, self.peer(engine, "--check", pages))), capture_output=True, text=True,
                                  env={**os.environ, **environment})
            if done.returncode != 0:
                sys.exit(done.stderr)
            # The exporter says this and that before.
            sums[engine] = float(done.stdout.split()[-1])
        self.keep(part="peers", sums=sums, pages=len(samples))
        if max(sums.values()) - min(sums.values()) > 1e-4:
            sys.exit(f"the peers compute other rates: {sums}")
        for at in range(self.options.rounds):
            with self.serve() as server:
                self.keep(part="peers", round=at, system="ams", **self.saturation(server))
            for engine in PEERS:
                with Server(self.peer(engine, "--port", "8612"), "http://127.0.0.1:8612", "/ready", environment) as server:
                    self.keep(part="peers", round=at, system=engine, **self.saturation(server))

    def overload(self):
        with self.serve() as server:
            full = self.saturation(server)["answered_per_second"]
            before = server.megabytes()
            outcome = self.load(server, 2 * full, seconds=60)
            self.keep(part="overload", saturation=full, megabytes=[before, server.megabytes()], **outcome)
            urllib.request.urlopen(server.url + "/health/ready").read()

    def before(self):
        programs, half = [("before", self.options.before), ("after", self.options.ams)], None
        for at in range(self.options.rounds):
            for name, program in programs[::1 if at % 2 == 0 else -1]:
                with self.serve(program) as server:
                    full = self.saturation(server)
                    half = half or full["answered_per_second"] / 2
                    self.keep(part="before", round=at, program=name, saturation=full, half=self.load(server, half))

    def table(self):
        of = lambda part: [result for result in self.results if result["part"] == part]
        lines = []
        if rows := of("matrix"):
            lines += ["Milliseconds of a page view in the scorer, one core, median / 99th percentile:", ""]
            lengths = BEHAVIORS.split(",")
            lines += ["| model | candidates | " + " | ".join(f"{n} behaviors" for n in lengths) + " |", "|---|---|" + "---|" * len(lengths)]
            for model, candidates in dict.fromkeys((row["model"], row["candidates"]) for row in rows):
                cells = [f"{row['ms']['p50']:.3f} / {row['ms']['p99']:.3f}" for row in rows
                         if (row["model"], row["candidates"]) == (model, candidates)]
                lines.append(f"| {model} | {candidates} | " + " | ".join(cells) + " |")
        if rows := of("http"):
            lines += ["", "A server, 400 candidates, 32 behaviors, by round:", "",
                      "| model | page views/s at saturation | at half of that: ms, p50 / p99 / p99.9 |", "|---|---|---|"]
            for row in rows:
                half = row["half"]["ms"]
                full = f"{row['saturation']['answered_per_second']:.0f}" if "saturation" in row else ""
                lines.append(f"| {row['model']} | {full} | {half['p50']:.2f} / {half['p99']:.2f} / {half['p999']:.2f} |")
        if rows := of("before"):
            lines += ["", "A server of the program of before, and of this one, in turn; after over before by round, median [least, most]:", "",
                      "| | before | after | after / before |", "|---|---|---|---|"]
            for label, digits, value in [("page views/s at saturation", 0, lambda row: row["saturation"]["answered_per_second"]),
                                         ("ms at half of that, p50", 3, lambda row: row["half"]["ms"]["p50"]),
                                         ("p99", 3, lambda row: row["half"]["ms"]["p99"])]:
                each = {name: [value(row) for row in rows if row["program"] == name] for name in ("before", "after")}
                ratios = [after / before for before, after in zip(each["before"], each["after"])]
                lines.append(f"| {label} | {around(each['before'], digits)} | {around(each['after'], digits)} | {around(ratios, 3)} |")
        if rows := [row for row in of("peers") if "system" in row]:
            rate = lambda system: [row["answered_per_second"] for row in rows if row["system"] == system]
            lines += ["", "Page views/s at saturation, 400 candidates, 32 behaviors:", "", "| | page views/s | ams is so many times as fast |", "|---|---|---|",
                      f"| ams | {around(rate('ams'), 0)} | |"]
            for engine in PEERS:
                ratios = [ours / theirs for ours, theirs in zip(rate("ams"), rate(engine))]
                lines.append(f"| {engine} | {around(rate(engine), 1)} | {around(ratios, 1)} |")
        if rows := of("overload"):
            row = rows[-1]
            lines += ["", f"Twice the saturation ({row['saturation']:.0f} a second) for a minute: {row['sent']} sent, {row['answered']} answered (p99 {row['ms']['p99']:.1f} ms, "
                      f"longest {row['ms']['max']:.1f}), {row['shed']} shed (p99 {row['shed_ms']['p99']:.1f} ms), {row['late']} late, {row['failed']} failed; "
                      f"resident memory {row['megabytes'][0]:.0f} MB before, {row['megabytes'][1]:.0f} MB after."]
        return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--parts", default="matrix,http,peers,overload")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--ams", type=pathlib.Path, default=AMS)
    parser.add_argument("--before", type=pathlib.Path, help="another program, for the part `before`, which then makes the models too")
    options = parser.parse_args()
    options.work, options.ams = options.work.resolve(), options.ams.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    if "peers" in options.parts:
        with_packages(options.work / "venv", NEEDS)
    bench = Bench(options)
    results = options.out / "results.jsonl"
    if results.exists():
        bench.results = [json.loads(line) for line in results.read_text().splitlines()]
    bench.make()
    for part in options.parts.split(","):
        getattr(bench, part)()
    (options.out / "table.md").write_text(bench.table())


if __name__ == "__main__":
    main()
