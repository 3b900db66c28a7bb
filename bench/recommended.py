#!/usr/bin/env python3
"""Trains the presets `small` and `recommended` on one dataset and prints a line for each.

usage: bench/recommended.py WORK DATASET.. [--seeds N] [--only small|recommended|ids|twin] [--ams PROGRAM]

WORK     folder for runs; DATASET is a folder in it, as bench/datasets.py makes them
ids      `recommended` with `ids` as its one candidate
twin     `recommended` with the features of another picture for every picture

Each line has what was chosen on the newest tenth of the training samples, and AUC, GAUC, log loss and the AUC of cold
items on the test. Only the standard library and target/release/ams are needed.
"""
import argparse
import json
import pathlib
import subprocess
import time

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
CONFIG = 'name = "{name}"\nruns = "{work}/runs"\nseed = {seed}\n\n[data]\nsamples = "{data}"\n{twin}\n[model]\npreset = "{preset}"\n'
VARIANTS = {"small": ("small", ""), "recommended": ("recommended", ""), "ids": ("recommended", ""), "twin": ("recommended", "shuffle_images = 1\n")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("datasets", nargs="+", metavar="DATASET")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=VARIANTS, action="append")
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()

    def ams(*arguments):
        done = subprocess.run([options.ams, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    for seed in range(1, options.seeds + 1):
        for dataset in options.datasets:
            data = options.work / dataset
            for variant in options.only or VARIANTS:
                preset, twin = VARIANTS[variant]
                has_pictures = (data / "images").exists()
                if variant == "twin" and not has_pictures:
                    continue
                name = f"{dataset}-{variant}-{seed}"
                config = options.work / f"{name}.toml"
                text = CONFIG.format(name=name, work=options.work, seed=seed, data=data, twin=twin, preset=preset)
                if preset == "small" and not has_pictures:
                    text += 'images = "none"\nsimilarity = "none"\ninteractions = "none"\n'
                if variant == "ids":
                    text += '\n[train]\ncandidates = ["ids"]\n'
                config.write_text(text)
                begin = time.monotonic()
                trained = ams("train", config, "--replace")
                seconds = time.monotonic() - begin
                tested = ams("eval", options.work / "runs" / name)
                print(name, line(trained, tested), f"{seconds:.0f} s", flush=True)


def line(trained, tested):
    choice = trained.get("choice")
    words = []
    for at, of in enumerate(choice["searched"] if choice else []):
        mark = "*" if at == choice["chosen"] else ""
        words.append(f"{of['candidate']}{mark} {of['validation']['logloss']:.4f} after {of['epochs']:.2f}")
    if trained.get("alignment"):
        words.append(f"map of step {trained['alignment']['chosen']}")
    cold = next((of["auc"] for of in tested["slices"] if of["name"] == "cold items"), None)
    values = [("AUC", tested["auc"]), ("GAUC", tested["gauc"]), ("log loss", tested["logloss"]), ("cold", cold)]
    words += [f"{name} {value:.4f}" for name, value in values if value is not None]
    return "; ".join(words)


main()
