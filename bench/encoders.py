#!/usr/bin/env python3
"""Real posters through an ONNX network: `ams encode` beside onnxruntime with Pillow.

usage: bench/encoders.py DATA WORK OUT [--parts features,training,speed] [--seeds N] [--rounds N] [--pictures N]
                         [--set KEY=VALUE ...] [--ams PROGRAM]

DATA  folder with ml1m-posters/ and encoders/efficientnet_lite0.onnx
WORK  folder for datasets, stores, runs, and a Python environment if this Python has not got what is needed
OUT   folder for results.jsonl and table.md

features  every poster of MovieLens 1M encoded by ams; cosine of each with the feature that onnxruntime and Pillow gave,
          which is in DATA
training  explicit MovieLens 1M, images as in bench/ablations/explicit.toml: GAUC and AUC with our features and with
          theirs, seed by seed
speed     so many posters by ams on two threads, with tract and with the peer's onnxruntime, and by three forms of the peer
          (bench/peers/encode.py), one after the other in every round; ratios are of one round. Have nothing else run
          meanwhile
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

from peers.packages import with_packages
from peers.program import around
from peers.store import rows_by_name

ROOT = pathlib.Path(__file__).resolve().parent.parent
NEEDS = {"numpy": "numpy", "onnxruntime": "onnxruntime", "PIL": "pillow", "safetensors": "safetensors"}
PREPARE = ["--preprocess", "custom", "--size", "224", "--resize", "whole", "--filter", "bicubic", "--pixels", "0..255",
           "--mean", "127", "--std", "128"]
OURS = {"tract": ["--runtime", "tract"], "onnxruntime": ["--runtime", "onnxruntime", "--onnxruntime"]}
PEERS = {
    "2 processes, 1 thread each, batch 8": ["--processes", "2", "--threads", "1", "--batch", "8"],
    "2 processes, 1 thread each, batch 1": ["--processes", "2", "--threads", "1", "--batch", "1"],
    "1 process, 2 threads, batch 1": ["--processes", "1", "--threads", "2", "--batch", "1"],
}
CONFIG = """\
name = "{name}"
runs = "{runs}"
seed = {seed}

[data]
samples = "{samples}"
images = "{images}"

[model]
query_fields = ["item", "genres"]

[train]
epochs = 1
batch = 2048
rows_learning_rate = 0.004
"""


def run(command):
    """Runs a program and returns the object it prints."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)


class Bench:
    def __init__(self, options):
        self.options, self.results = options, []
        self.posters = options.data / "ml1m-posters"
        self.network = options.data / "encoders/efficientnet_lite0.onnx"

    def ams(self, *arguments):
        return run([self.options.ams, *arguments, "--json"])

    def keep(self, **result):
        self.results.append(result)
        print(json.dumps(result), flush=True)
        with open(self.options.out / "results.jsonl", "a") as file:
            file.write(json.dumps(result) + "\n")

    def dataset(self):
        """Explicit MovieLens with two stores, `ours` and `theirs`."""
        data = self.options.work / "explicit"
        if not (data / "dataset.json").exists():
            self.ams("import", "movielens", self.posters, "--images", self.posters / "images", "--out", data, "--replace",
                     "--max-behaviors", "32")
        features = self.posters / "features"
        self.ams("encode", data, "--out", data / "theirs", "--features", features / "effnet_lite0_1280.f16.npy", "--keys",
                 features / "image_ids.txt")
        report = self.ams("encode", data, "--out", data / "ours", "--images", self.posters / "images", "--encoder", self.network,
                          "--output-node", "features", *PREPARE)
        return data, report

    def features(self):
        import numpy as np

        data, report = self.dataset()
        ours, theirs = rows_by_name(data / "ours"), rows_by_name(data / "theirs")
        if ours.keys() != theirs.keys():
            sys.exit(f"{len(ours.keys() ^ theirs.keys())} pictures have a feature in one store only")
        cosine = lambda a, b: float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        cosines = [cosine(ours[name], theirs[name]) for name in sorted(ours)]
        off = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
        self.keep(part="features", pictures=len(cosines), failed=report["failed"], cosine_median=statistics.median(cosines),
                  cosine_least=min(cosines), largest_difference=off)

    def training(self):
        data, _ = self.dataset()
        for seed in range(1, self.options.seeds + 1):
            for store in ["ours", "theirs"]:
                name = f"{store}-{seed}"
                config = self.options.work / f"{name}.toml"
                runs = self.options.work / "runs"
                shutil.rmtree(runs / name, ignore_errors=True)
                config.write_text(CONFIG.format(name=name, runs=runs, seed=seed, samples=data, images=data / store))
                extra = [word for setting in self.options.set for word in ("--set", setting)]
                self.ams("train", config, *extra)
                evaluation = self.ams("eval", runs / name)
                self.keep(part="training", store=store, seed=seed, gauc=evaluation["gauc"], auc=evaluation["auc"])

    def speed(self):
        work = self.options.work
        pictures, data = work / "pictures", work / "some"
        shutil.rmtree(pictures, ignore_errors=True)
        pictures.mkdir()
        all_posters = sorted((self.posters / "images").glob("*.jpg"))
        step = max(1, len(all_posters) // self.options.pictures)
        names = [path.name for path in all_posters[::step][: self.options.pictures]]
        for name in names:
            shutil.copy(self.posters / "images" / name, pictures / name)
        (work / "items.csv").write_text("item_id,image\n" + "".join(f"{name},{name}\n" for name in names))
        clicks = [f"u{at % 7},{name},{at % 2},{1_700_000_000 + at}\n" for at, name in enumerate(names * 2)]
        (work / "events.csv").write_text("user_id,item_id,click,timestamp\n" + "".join(clicks))
        self.ams("prepare", "--events", work / "events.csv", "--items", work / "items.csv", "--out", data, "--replace")
        import onnxruntime

        capi = pathlib.Path(onnxruntime.__file__).parent / "capi"
        for at in range(self.options.rounds):
            for runtime, flags in OURS.items():
                flags = [*flags, capi] if runtime == "onnxruntime" else flags
                shutil.rmtree(work / "timed", ignore_errors=True)
                report = self.ams("encode", data, "--out", work / "timed", "--images", pictures, "--threads", "2",
                                  "--encoder", self.network, "--output-node", "features", *PREPARE, *flags)
                total = sum(float(row.sum(dtype="float64")) for row in rows_by_name(work / "timed").values())
                self.keep(part="speed", round=at, system=f"ams, {runtime}", pictures=report["encoded"],
                          seconds=report["seconds"], sum=total)
            for name, flags in PEERS.items():
                peer = run([sys.executable, ROOT / "bench/peers/encode.py", self.network, "features", pictures, *flags])
                if abs(peer["sum"] / total - 1) > 1e-3:
                    sys.exit(f"the sum of all features is {total} here and {peer['sum']} there: not the same work")
                self.keep(part="speed", round=at, system=name, **peer)


def table(results):
    lines = []
    for row in (row for row in results if row["part"] == "features"):
        lines += [f"{row['pictures']:,} posters: cosine of our feature with theirs {row['cosine_median']:.6f} in the median, "
                  f"{row['cosine_least']:.6f} at least; no value differs by more than {row['largest_difference']:.4f}.", ""]
    training = [row for row in results if row["part"] == "training"]
    if training:
        lines += ["| seed | GAUC, ours | theirs | AUC, ours | theirs |", "|---|---|---|---|---|"]
        of = {(row["seed"], row["store"]): row for row in training}
        seeds = sorted({seed for seed, _ in of})
        for seed in seeds:
            ours, theirs = of[seed, "ours"], of[seed, "theirs"]
            lines.append(f"| {seed} | {ours['gauc']:.4f} | {theirs['gauc']:.4f} | {ours['auc']:.4f} | {theirs['auc']:.4f} |")
        gauc = {store: [of[seed, store]["gauc"] for seed in seeds] for store in ("ours", "theirs")}
        difference = statistics.mean(gauc["ours"]) - statistics.mean(gauc["theirs"])
        spreads = {store: max(values) - min(values) for store, values in gauc.items()}
        lines += ["", f"Mean GAUC, ours less theirs: {difference:+.4f}; the seeds of one spread over {spreads['theirs']:.4f}.", ""]
    speed = [row for row in results if row["part"] == "speed"]
    if speed:
        lines += ["| | pictures/s | ams with onnxruntime is so many times as fast |", "|---|---|---|"]
        rates = lambda system: {row["round"]: row["pictures"] / row["seconds"] for row in speed if row["system"] == system}
        ours = rates("ams, onnxruntime")
        for system, name in [*((f"ams, {name}", f"ams, 2 threads, {name}") for name in OURS),
                             *((name, f"onnxruntime and Pillow, {name}") for name in PEERS)]:
            theirs = rates(system)
            ratios = [ours[at] / theirs[at] for at in theirs]
            lines.append(f"| {name} | {around(list(theirs.values()), 1)} | {around(ratios, 2)} |")
        lines += ["", f"{speed[0]['pictures']} posters, median [least, largest] of {len(ours)} rounds."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--parts", default="features,training,speed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the trainings")
    parser.add_argument("--ams", type=pathlib.Path, default=ROOT / "target/release/ams", metavar="PROGRAM")
    options = parser.parse_args()
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    bench = Bench(options)
    (options.out / "results.jsonl").unlink(missing_ok=True)
    for part in options.parts.split(","):
        getattr(bench, part)()
    text = table(bench.results)
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
