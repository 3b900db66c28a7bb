#!/usr/bin/env python3
"""The reference training step by ams beside the same step in PyTorch, in turn.

usage: bench/step.py OUT [--images 2000,8000] [--rounds N] [--peers eager,compile,...] [--threads N] [--work DIR]
                     [--ams PROGRAM]

OUT   folder for results.jsonl and table.md

1,024 impressions of 128 users with 64 behaviors each (65,536 pairs), so many distinct images of 4,096 numbers, one
tower 4096-256-64-16, attention with two queries, layers 200-80, 60 ids of width 16, Adam. ams draws the step, does it,
and exports batch and first weights; the peers load these. A peer whose losses of the first steps are not those of
ams ends the run: both sides do the same work.

In every round ams and each peer run once, one after the other, each in a process of its own that says how many ms
each of its steps took; its number is their median. Ratios are of one round, a peer's ms over those of ams.

Peers are variants of bench/peers/step.py, which says at its top what they are:

- eager: what ams computes, as fast as we could make it in PyTorch
- eager-mkl: the same with torch.nn.Linear's matrix product in the tower, which is MKL's
- compile: eager through torch.compile
- compile-mkl: eager-mkl through torch.compile: what PyTorch as installed makes of it
- gathered: features gathered for every behavior of every impression, nothing shared

The work folder keeps the exported steps and a Python environment if this Python has not got torch, safetensors and
numpy. One round takes about a minute for each number of images; have nothing else run meanwhile.
"""
import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys

from peers.packages import with_packages

ROOT = pathlib.Path(__file__).resolve().parent.parent
TWIN = ROOT / "bench/peers/step.py"
NEEDS = {"torch": "torch", "safetensors": "safetensors", "numpy": "numpy"}
PEERS = {
    "eager": ["--variant", "eager"],
    "eager-mkl": ["--variant", "eager", "--matmul", "mkl"],
    "compile": ["--variant", "compile"],
    "compile-mkl": ["--variant", "compile", "--matmul", "mkl"],
    "gathered": ["--variant", "gathered", "--steps", "5"],
}
# Losses that are compared. Adam's first steps are signs of gradients, so that rounding grows by the step.
CHECKED = 4
TITLES = {"ams": "ams", "eager": "PyTorch, eager", "eager-mkl": "PyTorch, eager, towers by `nn.Linear`",
          "compile": "PyTorch, `torch.compile`", "compile-mkl": "PyTorch, `torch.compile`, towers by `nn.Linear`",
          "gathered": "PyTorch, features gathered, nothing shared"}


def run(command):
    """Runs a program and returns the object it prints."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spread(values, digits):
    """median [least, largest]"""
    least, median, most = (f"{f(values):,.{digits}f}" for f in (min, statistics.median, max))
    return f"{median} [{least}, {most}]"


def table(options, results, torch):
    """The table in Markdown."""
    lines = [f"ms a step, and how many times that of ams; median [least, largest] of {options.rounds} rounds. "
             f"{processor()}, {options.threads} threads, torch {torch}.", "",
             "| distinct images | | ms | times ams |", "|---|---|---|---|"]
    for images in options.images:
        rows = [row for row in results if row["images"] == images]
        of = {name: [row["ms"] for row in rows if row["system"] == name] for name in ["ams", *options.peers]}
        for name, ms in of.items():
            ratios = [peer / ams for peer, ams in zip(ms, of["ams"])]
            lines.append(f"| {images:,} | {TITLES[name]} | {spread(ms, 1)} | "
                         f"{'' if name == 'ams' else spread(ratios, 2)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--images", type=lambda text: list(map(int, text.split(","))), default=[2000, 8000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PEERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/bench-step")
    parser.add_argument("--ams", type=pathlib.Path, default=ROOT / "target/release/ams", metavar="PROGRAM")
    options = parser.parse_args()
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"--peers {unknown[0]}: expected some of {', '.join(PEERS)}")
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    from importlib.metadata import version

    def ams(images, *more):
        return run([options.ams, "bench", "step", "--images", images, "--threads", options.threads, *more, "--json"])

    def peer(name, images):
        return run([sys.executable, TWIN, steps[images], *PEERS[name], "--threads", options.threads,
                    "--losses", ",".join(map(str, losses[images][:CHECKED])), "--json"])

    steps = {images: options.work / f"step-{images}" for images in options.images}
    losses = {images: ams(images, "--export", folder)["losses"] for images, folder in steps.items()}
    results = []
    for at in range(options.rounds):
        for images in options.images:
            for name in ["ams", *options.peers]:
                found = ams(images) if name == "ams" else peer(name, images)
                found = {"round": at + 1, "images": images, "system": name, **found}
                results.append(found)
                print(f"round {at + 1}, {images} images: {TITLES[name]} {found['ms']:.1f} ms", flush=True)
    (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    (options.out / "table.md").write_text(table(options, results, version("torch")))
    print((options.out / "table.md").read_text(), end="")


if __name__ == "__main__":
    main()
