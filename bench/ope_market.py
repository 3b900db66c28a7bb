#!/usr/bin/env python3
"""How far `ams eval --ope` is from the simulator's truth, by the size of the log, and how often its intervals cover it.

usage: bench/ope_market.py PROGRAM WORK [--logs 100] [--users 30,100,300,1000]

A market of `ams simulate` logs page views that explore. In the log `random` all of them are in random order; in `narrow` one of fifty
is, the others are as A ranks them. Both know the true probability of a click on every candidate, so the worth of a policy is a sum
(`--expected truths`, of all users of the log). The policies are of B's model, which the market trained: its best item; items with
chances in proportion to eCPM to the power 6.7, with .1 any. The model of rewards is B's as well. A log is the page views of some users,
drawn without repetition. A line of WORK/results.jsonl is one log.

Needs numpy and pyarrow.
"""
import argparse
import json
import pathlib
import subprocess

import numpy
import pyarrow.compute
import pyarrow.parquet

POLICIES = {"soft": ["--temperature", "0.15", "--epsilon", "0.1"], "best": []}
LOGS = {"random": ("all-on-b", 1.0), "narrow": ("all-on-a", 0.02)}
ESTIMATORS = ("ipw", "snipw", "direct", "doubly-robust")


def simulate(program, out, users, random):
    if out.exists():
        return
    settings = {"seeds": "[1]", "days": "1", "designs": "[]", "shop.users": users, "exploration.share": "1.0", "exploration.random": random}
    words = [word for key, value in settings.items() for word in ("--set", f"market.{key}={value}")]
    subprocess.run([program, "simulate", "--quick", "--out", out, *words], check=True, stdout=subprocess.DEVNULL)


def evaluate(program, log, model, *words):
    done = subprocess.run([program, "eval", "--ope", log, "--policy", model, *words, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def values(found):
    return {name: found["estimates"][at]["value"] for at, name in enumerate(ESTIMATORS)}


def show(case, users, rows, truth):
    effective = numpy.mean([row["overlap"]["effective_sample_size"] for row in rows])
    size = numpy.mean([row["impressions"] for row in rows])
    # Without requests users are scored without history, which is always said.
    warned = sum(any("history" not in it for it in row["warnings"]) for row in rows)
    for name in ESTIMATORS:
        of = [values(row)[name] for row in rows]
        errors = numpy.array([value["mean"] / truth - 1 for value in of])
        covered = [value["low"] <= truth <= value["high"] for value in of if value["low"] is not None]
        print(f"| {case} | {users} | {size:.0f} | {effective:.0f} | {name} | {100 * numpy.sqrt((errors ** 2).mean()):.1f} % |"
              f" {100 * errors.mean():+.1f} % | {sum(covered)} of {len(covered)} | {warned} of {len(rows)} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--logs", type=int, default=100)
    parser.add_argument("--users", default="30,100,300,1000")
    parser.add_argument("--shop", type=int, default=6000, help="users of the market")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    part = given.work / "log.parquet"
    print("| log, policy | users | impressions | effective | estimator | error | bias | covered | warned |")
    print("|---|---|---|---|---|---|---|---|---|")
    with (given.work / "results.jsonl").open("w") as out:
        for log, (world, random) in LOGS.items():
            market = given.work / log
            simulate(given.program, market, given.shop, random)
            whole = market / f"seed-1/{world}/explored.parquet"
            table = pyarrow.parquet.read_table(whole)
            everybody = numpy.array(pyarrow.compute.unique(table["user"]).to_pylist())
            model = next((market / "models/1-all-on-b-b").glob("[0-9]*"))
            for policy, words in POLICIES.items():
                truth = values(evaluate(given.program, whole, model, *words, "--expected", "truths", "--bootstrap", "40"))["direct"]["mean"]
                for users in map(int, given.users.split(",")):
                    rows = []
                    for seed in range(given.logs):
                        drawn = numpy.random.default_rng([seed, users]).choice(everybody, users, replace=False)
                        pyarrow.parquet.write_table(table.filter(pyarrow.compute.is_in(table["user"], pyarrow.array(drawn))), part)
                        found = evaluate(given.program, part, model, *words, "--bootstrap", "400")
                        rows.append({"log": log, "policy": policy, "users": users, "seed": seed, "truth": truth, **found})
                        out.write(json.dumps(rows[-1]) + "\n")
                    show(f"{log}, {policy}", users, rows, truth)


if __name__ == "__main__":
    main()
