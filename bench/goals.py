#!/usr/bin/env python3
"""The speeds that ams is held against, each beside its goal, by the vectors of the processor and by AVX2 alone, in turn.

usage: bench/goals.py WORK OUT [--rounds N] [--vectors default,avx2] [--parts step,serve,http,threads] [--ams PROGRAM]

WORK  folder for a synthetic shop and models of it
OUT   folder for results.jsonl and table.md

step     the reference step of `ams bench step` with 2,000 images: its ms, those of the rank network, what share of the peak
         the towers' products reach, and the speed of the machine's memory beside it
serve    page views of 400 candidates and 32 behaviors, scored one after the other on one core: ids alone, the paper's joint
         network, that of `recommended` with towers; and 10,000 behaviors of which 50 are kept
threads  page views of 4,000 candidates by one thread and by two (`--page-threads`)
http     the joint network behind a server, 100 page views a second

A round has every part with each kind of vectors. `avx2` is AMS_VECTORS=avx2, which is not a processor without AVX-512: its
caches and its clock stay. The goals are those of a quiet machine of two cores. Beside PyTorch a step is by bench/step.py,
pictures beside onnxruntime are by bench/encoders.py, epochs beside FuxiCTR by bench/epochs.py.
"""
import argparse
import json
import os
import pathlib

from peers.program import AMS, ams, around
from serve import Server

MODELS = {
    "ids": ['model.images="none"'],
    "joint": [],
    "recommended": ['model.preset="recommended"', "train.early_stop=0", "align.steps=20"],
    "search": ["model.search={ keep = 50 }"],
}
# Row: part, name, unit, goal, and the number in what its part returned.
ROWS = {
    "step": [
        ("reference step, 2,000 images", "ms", "", lambda step: step["ms"]),
        ("rank network forward", "ms", "8", lambda step: step["stages_ms"]["network_forward"]),
        ("rank network backward", "ms", "12", lambda step: step["stages_ms"]["network_backward"]),
        ("towers' products in the step, share of the peak", "", ".75", lambda step: step["tower_share_of_peak"]),
        ("memory copied meanwhile", "GB/s", "", lambda step: step["memory_gbs"]),
    ],
    "serve": [
        ("page view, ids alone, p99", "ms", "", lambda serve: serve["ids"]["ms"]["p99"]),
        ("page view, joint, p50", "ms", "", lambda serve: serve["joint"]["ms"]["p50"]),
        ("page view, joint, p99", "ms", "2", lambda serve: serve["joint"]["ms"]["p99"]),
        ("what pictures add to a page view, p99", "ms", "1",
         lambda serve: serve["joint"]["ms"]["p99"] - serve["ids"]["ms"]["p99"]),
        ("page view, `recommended` with towers, p50", "ms", "", lambda serve: serve["recommended"]["ms"]["p50"]),
        ("page view, `recommended` with towers, p99", "ms", "1.72", lambda serve: serve["recommended"]["ms"]["p99"]),
        ("page view, 50 of 10,000 behaviors, p50", "ms", "", lambda serve: serve["search"]["ms"]["p50"]),
        ("page view, 50 of 10,000 behaviors, p99", "ms", "3", lambda serve: serve["search"]["ms"]["p99"]),
    ],
    "threads": [
        ("page view of 4,000, joint, one thread, p50", "ms", "", lambda threads: threads["1"]["ms"]["p50"]),
        ("the same by two threads, p50", "ms", "", lambda threads: threads["2"]["ms"]["p50"]),
    ],
    "http": [("joint behind a server, 100 page views a second, p99", "ms", "8", lambda http: http["ms"]["p99"])],
}


class Goals:
    def __init__(self, options):
        self.options, self.models = options, options.work / "models"

    def make(self):
        """The models."""
        work = self.options.work
        shop, data, program = work / "shop", work / "data", self.options.ams
        if (self.models / "search").exists():
            return
        if not (data / "dataset.json").exists():
            ams(program, "synth", "--out", shop, "--users", 500, "--items", 600)
            ams(program, "prepare", "--events", shop / "events.parquet", "--items", shop / "items.csv",
                "--user-fields", "gender,age", "--item-fields", "category,brand", "--context-fields", "hour,position",
                "--max-behaviors", 10000, "--out", data)
            ams(program, "encode", data, "--images", shop)
        config = work / "shop.toml"
        config.write_text(f'runs = "{work}/runs"\n[data]\nsamples = "{data}"\n[train]\nepochs = 1\nbatch = 128\n')
        for name, settings in MODELS.items():
            sets = [flag for setting in [f'name="{name}"', *settings] for flag in ("--set", setting)]
            ams(program, "train", config, "--replace", *sets)
            ams(program, "publish", work / "runs" / name, "--to", self.models)

    def page_views(self, model, *flags):
        return ams(self.options.ams, "bench", "serve", "--model", self.models / model, *flags)["runs"][0]

    def step(self):
        return ams(self.options.ams, "bench", "step")

    def serve(self):
        many = ("--behaviors", 10000, "--pages", 100)
        return {model: self.page_views(model, *(many if model == "search" else ("--pages", 400))) for model in MODELS}

    def threads(self):
        flags = ("--candidates", 4000, "--pages", 100, "--page-threads")
        return {threads: self.page_views("joint", *flags, threads) for threads in ("1", "2")}

    def http(self):
        flags = ("--bind", "127.0.0.1:8620", "--admin-bind", "127.0.0.1:8621")
        with Server([self.options.ams, "serve", self.models, *flags], "http://127.0.0.1:8620", "/health/ready") as server:
            load = ("--url", server.url, "--rate", 100, "--seconds")
            self.page_views("joint", *load, 2)
            return self.page_views("joint", *load, 10)


def table(options, results):
    """The table in Markdown."""
    lines = [f"Median [least, most] of {options.rounds} rounds, in turn.", "",
             f"| | goal | {' | '.join(options.vectors)} |", "|---|---|" + "---|" * len(options.vectors)]
    for part in options.parts:
        for name, unit, goal, number in ROWS[part]:
            of = {vectors: [number(row["found"]) for row in results if (row["part"], row["vectors"]) == (part, vectors)]
                  for vectors in options.vectors}
            cells = [f"{around(numbers, 2)} {unit}".strip() for numbers in of.values()]
            lines.append(f"| {name} | {goal} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vectors", type=lambda text: text.split(","), default=["default", "avx2"])
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(ROWS))
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    goals, results = Goals(options), []
    goals.make()
    with open(options.out / "results.jsonl", "w") as file:
        for turn in range(options.rounds):
            for part in options.parts:
                for vectors in options.vectors:
                    os.environ.pop("AMS_VECTORS", None)
                    if vectors != "default":
                        os.environ["AMS_VECTORS"] = vectors
                    row = {"round": turn, "part": part, "vectors": vectors, "found": getattr(goals, part)()}
                    file.write(json.dumps(row) + "\n")
                    results.append(row)
            print(f"round {turn + 1} of {options.rounds}", flush=True)
    (options.out / "table.md").write_text(table(options, results))


if __name__ == "__main__":
    main()
