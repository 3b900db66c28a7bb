#!/usr/bin/env python3
"""The datasets of the ablations: three synthetic shops and three of MovieLens 1M with posters.

usage: bench/datasets.py WORK [--movielens DATA] [--ams PROGRAM]

WORK  folder for the datasets, the one that bench/ablations/*.toml name; finished ones are not made again
DATA  folder with ratings.dat, movies.dat, users.dat, images/, features/ (see bench/notes/ablations.md)

shop                the demo's: users have a taste in pictures
shop-without-taste  the same, but clicks do not depend on pictures
shop-20000-items    the demo's with 20,000 items instead of 1,500, so that an item is seen about 26 times
explicit            a rating of 4 or 5 is a click, lower ones are impressions without one
implicit            every rating is a click and has one negative, drawn by popularity
held-out            implicit, and training sees no film of a quarter of them

Only the standard library and target/release/ams are needed.
"""
import argparse
import json
import pathlib
import subprocess

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
SHOPS = {
    "shop": [],
    "shop-without-taste": ["--taste", "none"],
    "shop-20000-items": ["--items", "20000"],
}
IMPLICIT = ["--implicit", "--negatives", "1", "--negatives-from", "popularity"]
MOVIELENS = {
    "explicit": [],
    "implicit": IMPLICIT,
    "held-out": [*IMPLICIT, "--hold-out-items", "0.25"],
}
FIELDS = ["--user-fields", "gender,age", "--item-fields", "category,brand", "--context-fields", "hour,position"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--movielens", type=pathlib.Path, metavar="DATA")
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    def ams(*arguments):
        done = subprocess.run([options.ams, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    def shop(out, flags):
        raw = out.with_name(out.name + "-raw")
        drawn = json.loads((raw / "drawn.json").read_text()) if (raw / "drawn.json").exists() else None
        if drawn is None:
            drawn = ams("synth", "--out", raw, *flags)
            (raw / "drawn.json").write_text(json.dumps(drawn))
        ams("prepare", "--events", raw / "events.parquet", "--items", raw / "items.csv", "--out", out, "--replace",
            *FIELDS, "--test-from", drawn["test_from"])
        ams("encode", out, "--images", raw, "--dim", "1024")

    def movielens(out, flags):
        ams("import", "movielens", options.movielens, "--out", out, "--replace", "--max-behaviors", "32", *flags)
        features = options.movielens / "features"
        ams("encode", out, "--features", features / "effnet_lite0_1280.f16.npy", "--keys", features / "image_ids.txt")

    wanted = [(shop, name, flags) for name, flags in SHOPS.items()]
    if options.movielens:
        wanted += [(movielens, name, flags) for name, flags in MOVIELENS.items()]
    for make, name, flags in wanted:
        out = options.work / name
        if not (out / "images" / "images.json").exists():
            make(out, flags)
        print(out, json.dumps(json.loads((out / "dataset.json").read_text())["counts"]))


main()
