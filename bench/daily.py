#!/usr/bin/env python3
"""Day by day against from scratch: GAUC and log loss of the next day, with intervals.

usage: bench/daily.py WORK OUT shop [--days 14] [--first 3] [--ams PROGRAM] [--drift 0.05] [--turnover 0.03]
       bench/daily.py WORK OUT wines DATA [--months 36] [--ams PROGRAM]

WORK  folder for logs, datasets and runs; finished ones are not made again
OUT   folder for results.jsonl, a line for each day and arm, and table.md
DATA  folder with XWines_Slim_150K_ratings.csv and XWines_Slim_1K_wines.csv

A day is a day of the shop, or a month of the wines. On the first one there is `scratch` alone. Each model is the preset `small`; it is judged by all impressions of
the day after the one that it learned from last.

scratch    all days so far, from initial weights
none       the newest WINDOW days, from initial weights
partial    the same, with the weights of the day before but for the rows of ids: the paper's partial warm-up
full       the same, with all weights of the day before
full-1     the newest day alone, with all weights of the day before

Intervals are the middle 95 % of 1,000 draws of users; those of differences to `scratch` are paired. Needs the wheel of
docs/python.md, pyarrow and numpy.
"""
import argparse
import datetime
import json
import pathlib
import shutil
import subprocess

import ams
import datasets
import numpy as np
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parent.parent
ARMS = {"scratch": (None, None), "none": (3, None), "partial": (3, "all-but-ids"), "full": (3, "all"), "full-1": (1, "all")}
UTC = datetime.timezone.utc
FIELDS = ["--user-fields", "gender,age", "--item-fields", "category,brand", "--context-fields", "hour,position"]
WITHOUT_PICTURES = 'images = "none"\nsimilarity = "none"\ninteractions = "none"\n'


def at(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def shop(options, run):
    """The log of a shop, and the beginnings of its days, with that of the day after the last one."""
    raw = options.work / "raw"
    if not (raw / "truth.json").exists():
        run("synth", "--out", raw, "--days", options.days, "--taste-drift", options.drift, "--new-per-day", "0.01",
            "--leaving-per-day", options.turnover, "--cold-share", "0", "--seed", options.seed)
    begins = [at("2024-03-04") + datetime.timedelta(days=day) for day in range(options.days + 1)]
    flags = ["--events", raw / "events.parquet", "--items", raw / "items.csv", *FIELDS]
    return begins, flags, raw, options.first


def wines(options, run):
    """The same of the wines: the months of the last years."""
    events, items = (options.work / f"{name}.csv" for name in ("events", "items"))
    newest = datasets.write_wines(options.data, events, items)
    # The newest whole month is the last one that judges.
    end = at(newest[:7] + "-01")
    month = lambda back: (end.year * 12 + end.month - 1 - back)
    begins = [datetime.datetime(m // 12, m % 12 + 1, 1, tzinfo=UTC) for m in map(month, range(options.months + 3, -1, -1))]
    flags = ["--events", events, "--items", items, "--item-fields", "type,body,country,winery,grape"]
    return begins, flags, None, 2


def users_labels(data):
    """User and label of every impression of the test, in the order of the files."""
    users, labels = [], []
    for path in sorted((data / "test").glob("*.parquet")):
        groups = pq.read_table(path, columns=["user", "impressions"])
        for user, shown in zip(groups["user"].to_pylist(), groups["impressions"].to_pylist()):
            users += [user] * len(shown)
            labels += [impression["label"] for impression in shown]
    return np.unique(users, return_inverse=True)[1], np.array(labels)


def predict(model, data):
    """The rate of every impression of the test, in the order of the files."""
    tables = (pq.read_table(path) for path in sorted((data / "test").glob("*.parquet")))
    return np.concatenate([np.asarray(model.predict(table)) for table in tables if len(table)])


def by_user(users, labels, rates):
    """Of each user: AUC times impressions, impressions of those that have an AUC, sum of log losses, impressions."""
    rates = rates.astype(float)
    losses = -np.where(labels == 1, np.log(np.maximum(rates, 1e-12)), np.log(np.maximum(1 - rates, 1e-12)))
    rows = np.zeros((users.max() + 1, 4))
    order = np.lexsort((rates, users))
    for own in np.split(order, np.flatnonzero(np.diff(users[order])) + 1):
        user, clicked = users[own[0]], labels[own] == 1
        rows[user, 2:] = losses[own].sum(), len(own)
        clicks = int(clicked.sum())
        if 0 < clicks < len(own):
            values, inverse, counts = np.unique(rates[own], return_inverse=True, return_counts=True)
            rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
            auc = (rank[clicked].sum() - clicks * (clicks + 1) / 2) / (clicks * (len(own) - clicks))
            rows[user, :2] = auc * len(own), len(own)
    return rows


def metrics(rows):
    """GAUC and log loss of the sums of `by_user`."""
    total = rows.sum(axis=-2)
    return np.stack([total[..., 0] / total[..., 1], total[..., 2] / total[..., 3]], axis=-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("log", choices=["shop", "wines"])
    parser.add_argument("data", type=pathlib.Path, nargs="?")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--first", type=int, default=3, help="number of the first day that a model is made for, from 0")
    parser.add_argument("--months", type=int, default=36)
    parser.add_argument("--drift", default="0.05")
    parser.add_argument("--turnover", default="0.03")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--ams", type=pathlib.Path, default=ROOT / "target/release/ams", metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)

    def run(*arguments):
        command = [options.ams, *map(str, arguments), "--json"]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)

    begins, flags, pictures, first = {"shop": shop, "wines": wines}[options.log](options, run)
    results = []
    for day in range(first, len(begins) - 2):
        judged = {}
        # Warm starts begin with a model of all days until the first.
        for arm, (window, parts) in ARMS.items() if day > first else [("scratch", ARMS["scratch"])]:
            data = options.work / f"data-{day}-{window or 'all'}"
            if not (data / "dataset.json").exists():
                begin = begins[max(0, day + 1 - window)] if window else begins[0]
                if window:
                    limits = ["--train-from", begin.isoformat()]
                else:
                    limits = []
                run("prepare", *flags, "--out", data, "--replace", "--until", begins[day + 2].isoformat(), "--test-from",
                    begins[day + 1].isoformat(), *limits)
                if pictures:
                    run("encode", data, "--images", pictures, "--dim", "256", "--out", options.work / "images")
            name, runs = f"{arm}-{day}", options.work / "runs"
            config = options.work / f"{name}.toml"
            text = f'name = "{name}"\nruns = "{runs}"\n[data]\nsamples = "{data}"\n'
            text += f'images = "{options.work}/images"\n' if pictures else ""
            text += '[model]\npreset = "small"\n' + ("" if pictures else WITHOUT_PICTURES)
            if parts:
                before = runs / (f"{arm}-{day - 1}" if day - 1 > first else f"scratch-{first}")
                text += f'[train.warm_start]\nfrom = "{before}"\nparts = "{parts}"\n'
            config.write_text(text)
            bundle = options.work / "models" / name / "1"
            if not bundle.exists():
                run("train", config, "--replace")
                run("publish", runs / name, "--to", options.work / "models")
            users, labels = users_labels(data)
            judged[arm] = by_user(users, labels, predict(ams.load(bundle), data))
        if day == first:
            continue
        draws = np.random.default_rng(day).multinomial(len(judged["scratch"]), np.full(len(judged["scratch"]), 1 / len(judged["scratch"])), 1000)
        drawn = {arm: metrics(np.einsum("du,uk->dk", draws, rows)[:, None, :]) for arm, rows in judged.items()}
        for arm, rows in judged.items():
            value, apart = metrics(rows), drawn[arm] - drawn["scratch"]
            low, high = np.percentile(apart, [2.5, 97.5], axis=0)
            line = {"day": begins[day].date().isoformat(), "arm": arm, "impressions": int(rows[:, 3].sum())}
            for at_, metric in enumerate(("gauc", "logloss")):
                line |= {metric: round(value[at_], 5), f"{metric}_to_scratch": [round(float(it[at_]), 5) for it in (low, high)]}
                line[f"{metric}_difference"] = round(float(value[at_] - metrics(judged["scratch"])[at_]), 5)
            results.append(line)
            print(json.dumps(line), flush=True)
        for kept in options.work.glob(f"data-{day - 1}-*"):
            shutil.rmtree(kept)
    (options.out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in results))
    (options.out / "table.md").write_text(table(results))
    print(table(results))


def table(results):
    """A row a day: GAUC of `scratch`, the differences of the others; then means."""
    days = sorted({line["day"] for line in results})
    of = {(line["day"], line["arm"]): line for line in results}
    text = ""
    for metric in ("gauc", "logloss"):
        arms = [arm for arm in ARMS if arm != "scratch"]
        text += f"| {metric} | scratch | " + " | ".join(arms) + " |\n|" + "---|" * (len(arms) + 2) + "\n"
        for day in days:
            cells = [f"{of[day, 'scratch'][metric]:.4f}"]
            for arm in arms:
                low, high = of[day, arm][f"{metric}_to_scratch"]
                cells.append(f"{of[day, arm][f'{metric}_difference']:+.4f} ({low:+.4f} to {high:+.4f})")
            text += f"| {day} | " + " | ".join(cells) + " |\n"
        means = [f"{np.mean([of[day, 'scratch'][metric] for day in days]):.4f}"]
        means += [f"{np.mean([of[day, arm][f'{metric}_difference'] for day in days]):+.4f}" for arm in arms]
        text += "| mean | " + " | ".join(means) + " |\n\n"
    return text


if __name__ == "__main__":
    main()
