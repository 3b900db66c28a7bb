#!/usr/bin/env python3
"""MovieLens 1M with posters: every image arm and its shuffled twin, explicit and implicit.

usage: bench/ml1m.py DATA WORK OUT [--seeds N] [--tasks explicit,implicit] [--set KEY=VALUE ...]

DATA  folder with ratings.dat, movies.dat, users.dat, images/, features/ (see bench/README.md)
WORK  folder for datasets and runs; finished trainings in it are not repeated
OUT   folder for results.jsonl and table.md

Only the standard library and target/release/ams are needed.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
IMPORT = ["--max-behaviors", "32"]
TASKS = {
    "explicit": [],
    "implicit": ["--implicit", "--negatives", "1", "--negatives-from", "popularity"],
}
# (arm, images shuffled)
ROWS = [("none", False)] + [(arm, s) for arm in ("ad", "behavior", "joint") for s in (False, True)]
METRICS = ["gauc", "auc", "logloss"]


def ams(*arguments):
    """Runs ams and returns the object it prints."""
    done = subprocess.run([AMS, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def prepare(data, work, task):
    """Imports and encodes once; returns the dataset's folder and counts."""
    out = work / task
    if not (out / "images" / "images.json").exists():
        ams("import", "movielens", data, "--out", out, "--replace", *IMPORT, *TASKS[task])
        features = data / "features"
        ams("encode", out, "--features", features / "effnet_lite0_1280.f16.npy",
            "--keys", features / "image_ids.txt")
    return out, json.loads((out / "dataset.json").read_text())["counts"]


def train(work, dataset, task, arm, shuffled, seed, settings):
    """Trains and evaluates one model, unless that was done before."""
    name = f"{task}-{arm}{'-shuffled' if shuffled else ''}-{seed}"
    result = work / "runs" / name / "result.json"
    if not result.exists():
        config = work / "config.toml"
        config.write_text(
            f'name = "{name}"\nseed = {seed}\nruns = "{work / "runs"}"\n'
            f'[data]\nsamples = "{dataset}"\n'
            + (f"shuffle_images = {seed}\n" if shuffled else "")
            + f'[model]\nimages = "{arm}"\n[train]\nepochs = 1\nbatch = 1024\n'
        )
        sets = [word for setting in settings for word in ("--set", setting)]
        trained = ams("train", config, "--replace", *sets)
        evaluated = ams("eval", work / "runs" / name)
        row = {"task": task, "arm": arm, "shuffled": shuffled, "seed": seed,
               "steps": trained["steps"], "loss": trained["loss"], **evaluated}
        result.write_text(json.dumps(row))
    return json.loads(result.read_text())


def spread(values):
    """mean and standard deviation over seeds"""
    if any(value is None for value in values):
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def table(task, counts, results):
    """The task's table in Markdown."""
    seeds = len({row["seed"] for row in results})
    lines = [f"### {task}", "",
             f"{counts['train']:,} training and {counts['test']:,} test impressions, "
             f"{counts['users']:,} users, {counts['behaviors_mean']:.1f} behaviors per impression; "
             f"mean ± standard deviation over {seeds} seeds.", "",
             "| images | GAUC | AUC | log loss | AUC, items shown 1-9 times | AUC, cold items |",
             "|---|---|---|---|---|---|"]
    for arm, shuffled in ROWS:
        rows = [r for r in results if (r["arm"], r["shuffled"]) == (arm, shuffled)]
        if not rows:
            continue
        cells = [spread([row[metric] for row in rows]) for metric in METRICS]
        for name in ("items shown 1-9 times", "cold items"):
            slices = [s for row in rows for s in row["slices"] if s["name"] == name]
            cells.append(spread([s["auc"] for s in slices]) if slices else "-")
        lines.append(f"| {arm}{', shuffled' if shuffled else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tables, lines = [], []
    for task in arguments.tasks.split(","):
        dataset, counts = prepare(arguments.data, arguments.work, task)
        results = []
        for seed in range(1, arguments.seeds + 1):
            for arm, shuffled in ROWS:
                row = train(arguments.work, dataset, task, arm, shuffled, seed, arguments.set)
                print(task, arm, "shuffled" if shuffled else "", seed, f"GAUC {row['gauc']:.4f}",
                      flush=True)
                results.append(row)
        tables.append(table(task, counts, results))
        lines += [json.dumps(row) for row in results]
        (arguments.out / "table.md").write_text("\n".join(tables))
        (arguments.out / "results.jsonl").write_text("\n".join(lines) + "\n")


main()
