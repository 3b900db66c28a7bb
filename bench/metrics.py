#!/usr/bin/env python3
"""AUC and GAUC of ten million scores: ams beside scikit-learn and pandas, on the same scores.

usage: bench/metrics.py WORK OUT [--scores N] [--users N] [--rounds N] [--ams PROGRAM]

WORK  folder for the scores, and a Python environment if this Python has not got scikit-learn, pandas and pyarrow
OUT   folder for results.jsonl and table.md

`ams bench metrics` makes the scores and writes them to a file, which Python reads; reading is not timed. AUC is
scikit-learn's roc_auc_score. GAUC is a group-by of pandas: ranks within users, and from the sum of the positives' ranks
every user's AUC, in whole columns. (A call of roc_auc_score for each user is what one often meets; it takes many
times as long.) Both have the columns in memory, in the same order, and take turns. The values have to agree.
"""
import argparse
import json
import os
import pathlib
import time

from peers.packages import with_packages
from peers.program import AMS, ams, around

NEEDS = {"sklearn": "scikit-learn", "pandas": "pandas", "pyarrow": "pyarrow"}


def gauc(users, scores, labels):
    """AUC within users, weighted by impressions; users of one class are left out."""
    import pandas
    frame = pandas.DataFrame({"user": users, "label": labels})
    frame["rank"] = pandas.Series(scores).groupby(users, sort=False).rank()
    frame["rank"] *= labels
    of_users = frame.groupby("user", sort=False).agg(
        impressions=("label", "size"), positives=("label", "sum"), ranks=("rank", "sum"))
    positives = of_users["positives"].astype("int64")
    pairs = positives * (of_users["impressions"] - positives)
    won = of_users["ranks"] - positives * (positives + 1) / 2
    judged = of_users["impressions"].where(pairs > 0, 0)
    return float((judged * (won / pairs.where(pairs > 0, 1))).sum() / judged.sum())


def by_python(users, scores, labels):
    """A row of results."""
    from sklearn.metrics import roc_auc_score
    begun = time.monotonic()
    auc = float(roc_auc_score(labels, scores))
    between = time.monotonic()
    of_users = gauc(users, scores, labels)
    done = time.monotonic()
    seconds = {"auc": between - begun, "gauc": done - between, "both": done - begun}
    return {"auc": auc, "gauc": of_users, "seconds": seconds}


def table(results, versions):
    """The table in Markdown."""
    of = {name: [row for row in results if row["system"] == name] for name in ("ams", "python")}
    first = of["ams"][0]
    lines = [f"{first['scores']:,} scores, {first['users']:,} users ({first['users_without_auc']:,} with one class only), "
             f"{first['positives']:,} positives; {os.cpu_count()} cores; seconds, median [least, most] of "
             f"{len(of['ams'])} rounds. {versions}", "",
             "| | ams | scikit-learn, pandas | ratio of medians | value |", "|---|---|---|---|---|"]
    for name, title in (("auc", "AUC"), ("gauc", "GAUC"), ("both", "both")):
        ours, theirs = ([row["seconds"][name] for row in of[system]] for system in ("ams", "python"))
        ratio = sorted(theirs)[len(theirs) // 2] / sorted(ours)[len(ours) // 2]
        value = f"{first[name]:.12f}" if name in first else ""
        lines.append(f"| {title} | {around(ours, 3)} | {around(theirs, 2)} | {ratio:.1f} | {value} |")
    whole = [row["seconds"]["evaluation"] for row in of["ams"]]
    lines.append(f"| all metrics and twelve slices, as `ams eval` | {around(whole, 3)} | | | |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--scores", default="1e7")
    parser.add_argument("--users", default="500000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    from importlib.metadata import version
    import pyarrow.parquet
    scores = options.work / "scores.parquet"
    asked = ["bench", "metrics", "--scores", options.scores, "--users", options.users]
    ams(options.ams, *asked, "--export", scores)
    columns = pyarrow.parquet.read_table(scores, columns=["user", "logit", "label"])
    columns = [columns[name].to_numpy() for name in ("user", "logit", "label")]
    results = []
    for turn in range(1, options.rounds + 1):
        ours, theirs = ams(options.ams, *asked), by_python(*columns)
        for name, tolerance in (("auc", 1e-12), ("gauc", 1e-9)):
            assert abs(ours[name] - theirs[name]) < tolerance, (name, ours[name], theirs[name])
        for system, row in (("ams", ours), ("python", theirs)):
            seconds = ", ".join(f"{name} {value:.2f} s" for name, value in row["seconds"].items())
            print(turn, system, seconds, flush=True)
            results.append({"system": system, "round": turn, **row})
    versions = f"scikit-learn {version('scikit-learn')}, pandas {version('pandas')}."
    (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    (options.out / "table.md").write_text(table(results, versions))


if __name__ == "__main__":
    main()
