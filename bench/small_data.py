#!/usr/bin/env python3
"""The two MovieLens datasets for comparisons with little data: implicit, and with a quarter of the films held out.

usage: bench/small_data.py DATA WORK [--ams PROGRAM]

DATA  folder with ratings.dat, movies.dat, users.dat, images/, features/ (see bench/README.md)
WORK  folder for the datasets `implicit` and `held-out`; finished ones in it are not made again

Both are `implicit` of bench/ml1m.py, with the same test; in `held-out` training sees no film of a quarter of them.
Only the standard library and target/release/ams are needed.
"""
import argparse
import json
import pathlib
import subprocess

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
IMPORT = ["--max-behaviors", "32", "--implicit", "--negatives", "1", "--negatives-from", "popularity"]
DATASETS = {"implicit": [], "held-out": ["--hold-out-items", "0.25"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    features = options.data / "features"
    for name, flags in DATASETS.items():
        out = options.work / name
        if not (out / "images" / "images.json").exists():
            for command in (
                ["import", "movielens", options.data, "--out", out, "--replace", *IMPORT, *flags],
                ["encode", out, "--features", features / "effnet_lite0_1280.f16.npy",
                 "--keys", features / "image_ids.txt"],
            ):
                subprocess.run([options.ams, *command], check=True)
        print(out, json.dumps(json.loads((out / "dataset.json").read_text())["counts"]))


main()
