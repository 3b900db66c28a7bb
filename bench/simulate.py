#!/usr/bin/env python3
"""How often the intervals of `ams simulate` have the truth: many seeds of one experiment, one process each.

usage: bench/simulate.py PROGRAM WORK --seeds 1-100 [--processes 2] [-- ARGUMENTS OF ams simulate]
       bench/simulate.py PROGRAM WORK -- --quick --set market.shop.users=200

A seed that WORK has is not run again. WORK gets the report of each seed, `seeds.csv` (a line for each design and metric of a seed) and
`report.md`, the page of `ams report` about all of them.
"""
import argparse
import concurrent.futures
import csv
import json
import pathlib
import shutil
import subprocess
import sys
import time


def run(program, work, seed, arguments):
    kept, out = work / f"{seed}.json", work / f"of-{seed}"
    if kept.exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    begin = time.time()
    words = [program, "simulate", *arguments, "--out", out, "--threads", "1", "--set", f"market.seeds=[{seed}]"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"seed {seed}: {done.stderr}")
    (out / "report.json").rename(kept)
    shutil.rmtree(out)
    print(f"seed {seed}: {time.time() - begin:.0f} s", flush=True)


def lines(reports):
    """Everything that a lift says, a line for each design and metric of a seed."""
    for report in reports:
        for seed in report["seeds"]:
            for design in seed["designs"]:
                for metric, of in design["lifts"].items():
                    line = {"seed": seed["seed"], "design": design["design"], "metric": metric, "truth": of["truth"]}
                    for name in ("measured", "over_users", "bias"):
                        value = of[name] or {}
                        line |= {name: value.get("value"), f"{name}_low": value.get("low"), f"{name}_high": value.get("high")}
                    variances = of["variances"] or {}
                    yield line | {f"variance_{name}": variances.get(name) for name in ("users", "replicas", "days")}


def inside(rows, name):
    has = [row for row in rows if row["truth"] is not None and row[f"{name}_low"] is not None]
    return sum(row[f"{name}_low"] <= row["truth"] <= row[f"{name}_high"] for row in has), len(has)


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else float("nan")


def show(rows):
    print("| design | metric | mean truth | mean measured | mean bias | has the truth | over users alone | half width | of that |")
    print("|---|---|---|---|---|---|---|---|---|")
    for design, metric in dict.fromkeys((row["design"], row["metric"]) for row in rows):
        of = [row for row in rows if (row["design"], row["metric"]) == (design, metric)]
        cells = [f"{100 * mean(row[name] for row in of):+.1f} %" for name in ("truth", "measured", "bias")]
        cells += ["{} of {}".format(*inside(of, name)) for name in ("measured", "over_users")]
        for name in ("measured", "over_users"):
            widths = [(row[f"{name}_high"] - row[f"{name}_low"]) / 2 for row in of if row[f"{name}_low"] is not None]
            cells.append(f"{100 * mean(widths):.1f} %")
        print("|", " | ".join([design, metric, *cells]), "|")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seeds", default="1-100")
    parser.add_argument("--processes", type=int, default=2, help="0: what WORK has is told, nothing is run")
    words, arguments = sys.argv[1:], []
    if "--" in words:
        at = words.index("--")
        words, arguments = words[:at], words[at + 1 :]
    given = parser.parse_args(words)
    given.work.mkdir(parents=True, exist_ok=True)
    first, last = map(int, given.seeds.split("-"))
    seeds = range(first, last + 1)
    if given.processes:
        with concurrent.futures.ThreadPoolExecutor(given.processes) as pool:
            list(pool.map(lambda seed: run(given.program, given.work, seed, arguments), seeds))
    files = [file for seed in seeds if (file := given.work / f"{seed}.json").exists()]
    rows = list(lines(json.loads(file.read_text()) for file in files))
    with (given.work / "seeds.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows({key: f"{it:.6g}" if isinstance(it, float) else it for key, it in row.items()} for row in rows)
    show(rows)
    subprocess.run([given.program, "report", "--experiment", *files, "--out", given.work / "report.md"], check=True)


if __name__ == "__main__":
    main()
