#!/usr/bin/env python3
"""The datasets of the ablations: three synthetic shops and three of MovieLens 1M with posters.

usage: bench/datasets.py WORK [--movielens DATA] [--movielens-100k DATA] [--wines DATA] [--ams PROGRAM]

WORK  folder for the datasets, the one that bench/ablations/*.toml name; finished ones are not made again
DATA  folder with ratings.dat, movies.dat, users.dat, images/, features/ (see bench/notes/ablations.md)

shop                the demo's: users have a taste in pictures
shop-without-taste  the same, but clicks do not depend on pictures
shop-20000-items    the demo's with 20,000 items instead of 1,500, so that an item is seen about 26 times
explicit            a rating of 4 or 5 is a click, lower ones are impressions without one
implicit            every rating is a click and has one negative, drawn by popularity
held-out            implicit, and training sees no film of a quarter of them
ml100k-held-out     the same of MovieLens 100K; its posters are encoded by the network --encoder, which needs a program with
                    the feature onnx
xwines              X-Wines, 150,000 ratings, a rating from 4.5 on is a click; no pictures

Only the standard library and target/release/ams are needed.
"""
import argparse
import ast
import csv
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


def write_wines(data, events, items):
    """Writes X-Wines as a log, in which a rating from 4.5 on is a click, and a table of items; returns the newest date."""
    newest = ""
    with open(data / "XWines_Slim_150K_ratings.csv") as rows, open(events, "w", newline="") as log:
        write = csv.writer(log).writerow
        write(["user", "item", "time", "label"])
        for row in csv.DictReader(rows):
            newest = max(newest, row["Date"])
            write([row["UserID"], row["WineID"], row["Date"], int(float(row["Rating"]) >= 4.5)])
    with open(data / "XWines_Slim_1K_wines.csv") as rows, open(items, "w", newline="") as table:
        write = csv.writer(table).writerow
        write(["item", "type", "body", "country", "winery", "grape"])
        for row in csv.DictReader(rows):
            grapes = ast.literal_eval(row["Grapes"])
            write([row["WineID"], row["Type"], row["Body"], row["Country"], row["WineryID"], (grapes or [""])[0]])
    return newest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--movielens", type=pathlib.Path, metavar="DATA")
    parser.add_argument("--movielens-100k", type=pathlib.Path, metavar="DATA")
    parser.add_argument("--encoder", type=pathlib.Path, metavar="efficientnet_lite0.onnx")
    parser.add_argument("--wines", type=pathlib.Path, metavar="DATA")
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

    def movielens_100k(out, flags):
        ams("import", "movielens", options.movielens_100k, "--out", out, "--replace", "--max-behaviors", "32", *flags)
        ams("encode", out, "--images", options.movielens_100k / "images", "--encoder", options.encoder,
            "--output-node", "features", "--preprocess", "custom", "--size", "224", "--resize", "whole", "--filter",
            "bicubic", "--mean", "127", "--std", "128", "--pixels", "0..255", "--channels", "rgb")

    def wines(out, _):
        events, items = (out.with_name(f"{out.name}-{name}.csv") for name in ("events", "items"))
        write_wines(options.wines, events, items)
        ams("prepare", "--events", events, "--items", items, "--out", out, "--replace", "--item-fields",
            "type,body,country,winery,grape", "--test-fraction", "0.2")

    wanted = [(shop, name, flags) for name, flags in SHOPS.items()]
    if options.movielens:
        wanted += [(movielens, name, flags) for name, flags in MOVIELENS.items()]
    if options.movielens_100k:
        wanted.append((movielens_100k, "ml100k-held-out", MOVIELENS["held-out"]))
    if options.wines:
        wanted.append((wines, "xwines", []))
    for make, name, flags in wanted:
        out = options.work / name
        if not (out / ("dataset.json" if make is wines else "images/images.json")).exists():
            make(out, flags)
        print(out, json.dumps(json.loads((out / "dataset.json").read_text())["counts"]))


if __name__ == "__main__":
    main()
