#!/usr/bin/env python3
"""What rows of bytes cost: the same training on features kept as halfs and as bytes, several seeds, GAUC of the test beside.

    python3 bench/int8_rows.py target/release/ams --work DIR [--data DATASET] [--seeds 3] [--epochs 1]

Without --data, on the synthetic shop of the demo. A dataset has to hold its feature store of halfs in `images`. Prints one JSON
object.
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path


def ams(binary: str, *words: object) -> dict:
    command = [binary, *map(str, words), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ams")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=Path, help="the folder of pictures of --data")
    parser.add_argument("--encode", default="", help="further words for `ams encode`, as for the store of halfs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--dim", type=int, default=1024)
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    data, images = options.data, options.images
    if data is None:
        data, images = work / "data", work / "shop"
        if not data.exists():
            ams(options.ams, "synth", "--out", images)
            ams(options.ams, "prepare", "--events", images / "events.parquet", "--items", images / "items.csv", "--out", data,
                "--user-fields", "gender,age", "--item-fields", "category,brand", "--context-fields", "hour,position")
    words = options.encode.split() or ["--images", images, "--dim", options.dim]
    ams(options.ams, "encode", data, *words)
    ams(options.ams, "encode", data, *words, "--rows", "int8", "--out", work / "bytes")
    sizes = {rows: ams(options.ams, "images", "verify", store)["bytes"]
             for rows, store in (("f16", data / "images"), ("int8", work / "bytes"))}
    config = work / "int8.toml"
    config.write_text(f'name = "int8"\nruns = "{work / "runs"}"\n[data]\nsamples = "{data}"\n[train]\nepochs = {options.epochs}\n')
    gauc: dict[str, list[float]] = {"f16": [], "int8": []}
    for seed in range(1, options.seeds + 1):
        for rows, store in (("f16", data / "images"), ("int8", work / "bytes")):
            name = f"{rows}-{seed}"
            ams(options.ams, "train", config, "--replace", "--set", f"name={name}", "--set", f"seed={seed}",
                "--set", f"data.images={store}")
            gauc[rows].append(ams(options.ams, "eval", work / "runs" / name)["gauc"])
    differences = [b - a for a, b in zip(gauc["f16"], gauc["int8"])]
    print(json.dumps({"bytes": sizes, "gauc": gauc, "difference_mean": statistics.mean(differences),
                      "difference_by_seed": differences}))


if __name__ == "__main__":
    main()
