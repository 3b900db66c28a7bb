#!/usr/bin/env python3
"""The dense gradients summed exactly and in bf16: what half the bytes cost in GAUC, on the demo's shop.

A third row tells how much of a difference means nothing: the exact sum with another placement, which differs
from the first row in nothing but the order in which some gradients are added.

usage: bench/all_reduce.py WORK OUT [--seeds N]

WORK  folder for shops and runs; finished trainings in it are not repeated
OUT   folder for results.jsonl and table.md

Only the standard library and target/release/ams are needed.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
# (name, all_reduce, placement)
ROWS = [("f32", "f32", "ams"), ("bf16", "bf16", "ams"), ("f32, other order", "f32", "store-in-worker")]
METRICS = ["gauc", "auc", "logloss"]


def ams(*arguments):
    """Runs ams and returns the object it prints."""
    command = [AMS, *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def prepare(work, seed):
    """The shop of the demo with this seed, as a dataset."""
    shop = work / f"shop-{seed}"
    data = shop / "data"
    if not (data / "images" / "images.json").exists():
        test_from = ams("synth", "--out", shop, "--seed", seed)["test_from"]
        ams("prepare", "--events", shop / "events.parquet", "--items", shop / "items.csv",
            "--user-fields", "gender,age", "--item-fields", "category,brand",
            "--context-fields", "hour,position", "--test-from", test_from, "--out", data)
        ams("encode", data, "--images", shop, "--dim", 1024)
    return data


def train(work, data, title, precision, placement, seed):
    """Trains the demo's joint model and evaluates it, unless that was done before."""
    name = f"{precision}-{placement}-{seed}"
    result = work / "runs" / name / "result.json"
    if not result.exists():
        config = work / "config.toml"
        config.write_text(
            f'name = "{name}"\nseed = {seed}\nruns = "{work / "runs"}"\n[data]\nsamples = "{data}"\n'
            f'[train]\nepochs = 3\nbatch = 512\ndecay_every = 200\n'
            f'all_reduce = "{precision}"\nplacement = "{placement}"\n')
        trained = ams("train", config, "--replace")
        row = {"row": title, "seed": seed, "loss": trained["loss"],
               "bytes_per_step": trained["per_step"]["traffic"]["all_reduce"],
               **ams("eval", work / "runs" / name)}
        result.write_text(json.dumps(row))
    return json.loads(result.read_text())


def table(rows):
    lines = ["| all_reduce | bytes per step, 8 lanes | GAUC | AUC | log loss |", "|---|---|---|---|---|"]
    gaucs = {}
    for title, _, _ in ROWS:
        own = [row for row in rows if row["row"] == title]
        gaucs[title] = [row["gauc"] for row in own]
        cells = [f"{statistics.mean(r[m] for r in own):.4f} ({', '.join(format(r[m], '.4f') for r in own)})"
                 for m in METRICS]
        lines.append(f"| {title} | {own[0]['bytes_per_step'] / 1e6:.1f} MB | " + " | ".join(cells) + " |")
    lines.append("")
    for title in ("bf16", "f32, other order"):
        differences = [other - exact for exact, other in zip(gaucs["f32"], gaucs[title])]
        lines.append(f"GAUC, {title} minus f32: {statistics.mean(differences):+.4f} "
                     f"({', '.join(format(d, '+.4f') for d in differences)} by seed).")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(1, arguments.seeds + 1):
        data = prepare(arguments.work, seed)
        for title, precision, placement in ROWS:
            rows.append(train(arguments.work, data, title, precision, placement, seed))
            print(title, seed, f"GAUC {rows[-1]['gauc']:.4f}", flush=True)
    (arguments.out / "table.md").write_text(table(rows))
    (arguments.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


main()
