#!/usr/bin/env python3
"""How far `ams eval --ope` is from the truth, by the size of the log, and how often its intervals cover it.

usage: bench/ope.py PROGRAM WORK [--seeds 100] [--users 100,300,1000,3000,10000]

A shop whose truth is a sum: users of 8 kinds see pages of 3 of 12 items, drawn one after the other. An item is clicked half as often
below one of its category. The log's policy draws by its own scores, with 20 % chance; the evaluated one by the true rates. The value
of a policy is summed over all 10,560 pages that may come about. The model of rewards is wrong by a factor of its own for each kind
and item, and knows nothing of what is above. A line of WORK/results.jsonl is one log.

Needs numpy and pyarrow.
"""
import argparse
import itertools
import json
import pathlib
import subprocess

import numpy
import pyarrow
import pyarrow.parquet

KINDS, ITEMS, POSITIONS, CATEGORIES, PAGES = 8, 12, 3, 4, 2
DECAY = numpy.array([1.0, 0.7, 0.5])
SHOP = numpy.random.default_rng(7)
RATES = 0.02 + 0.28 * SHOP.beta(1.2, 3, (KINDS, ITEMS))
OWN = SHOP.normal(size=(KINDS, ITEMS))
MODEL = numpy.clip(RATES * numpy.exp(0.5 * SHOP.normal(size=(KINDS, ITEMS))), 0, 1)


def choice(kind, above, policy):
    """Probabilities of all items at the position below `above`."""
    scores, chance = {"log": (OWN[kind], 0.2), "narrow": (3 * OWN[kind], 0.0), "evaluated": (12 * RATES[kind], 0.1)}[policy]
    free = numpy.ones(ITEMS, bool)
    free[list(above)] = False
    weights = numpy.where(free, numpy.exp(scores), 0)
    if policy == "narrow":
        # The five best ones only: the others are never seen.
        weights[numpy.argsort(-weights)[5:]] = 0
    return (1 - chance) * weights / weights.sum() + chance * free / free.sum()


def click(kind, item, above):
    same = any(other % CATEGORIES == item % CATEGORIES for other in above)
    return RATES[kind, item] * DECAY[len(above)] * (0.5 if same else 1)


def truth(drawn, chosen):
    """The mean click of an impression, where pages are drawn by one policy and the item at each position by another."""
    total = 0.0
    for kind in range(KINDS):
        for length in range(POSITIONS):
            for above in itertools.permutations(range(ITEMS), length):
                reach = 1.0
                for at in range(length):
                    reach *= choice(kind, above[:at], drawn)[above[at]]
                if reach:
                    here = choice(kind, above, chosen)
                    total += reach * sum(here[item] * click(kind, item, above) for item in range(ITEMS) if here[item])
    return total / KINDS / POSITIONS


def write_log(path, users, seed, policy):
    random = numpy.random.default_rng([seed, users])
    columns = {name: [] for name in ("user", "page", "position", "item", "clicked", "propensity", "candidates", "probabilities",
                                     "evaluated", "expected")}
    known = {}
    kinds = random.integers(KINDS, size=users)
    for user, page in itertools.product(range(users), range(PAGES)):
        kind, above = kinds[user], ()
        for position in range(POSITIONS):
            state = int(kind), above
            if state not in known:
                known[state] = choice(*state, policy), choice(*state, "evaluated")
            of_log, evaluated = known[state]
            item = int(random.choice(ITEMS, p=of_log))
            row = (f"u{user}", f"u{user}-{page}", position, str(item), int(random.random() < click(kind, item, above)),
                   of_log[item], [str(of) for of in range(ITEMS)], of_log, evaluated, MODEL[kind] * DECAY[position])
            for name, value in zip(columns, row):
                columns[name].append(value)
            above += (item,)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--users", default="100,300,1000,3000,10000")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    truths = {("log", "position"): truth("log", "evaluated"), ("log", "page"): truth("evaluated", "evaluated"),
              ("narrow", "position"): truth("narrow", "evaluated"), ("narrow", "page"): truth("evaluated", "evaluated")}
    print("of the log", truth("log", "log"), truths)
    results = arguments.work / "results.jsonl"
    log = arguments.work / "log.parquet"
    cases = [("log", int(users)) for users in arguments.users.split(",")] + [("narrow", 1000)]
    with results.open("w") as out:
        for policy, users in cases:
            rows = []
            for seed in range(arguments.seeds):
                write_log(log, users, seed, policy)
                for weighing in ("position", "page"):
                    words = [arguments.program, "eval", "--ope", log, "--policy-probabilities", "evaluated", "--expected", "expected",
                             "--weighing", weighing, "--bootstrap", "400", "--json"]
                    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
                    rows.append({"policy": policy, "users": users, "seed": seed, "truth": truths[policy, weighing], **found})
                    out.write(json.dumps(rows[-1]) + "\n")
            show(policy, users, rows)


def show(policy, users, rows):
    for weighing in ("position", "page"):
        of = [row for row in rows if row["weighing"] == weighing]
        worth = numpy.mean([row["overlap"]["effective_sample_size"] for row in of])
        warned = sum(bool(row["warnings"]) for row in of)
        overlap = sum(any("overlap" in it or "mean weight" in it for it in row["warnings"]) for row in of)
        for at, name in enumerate(("ipw", "snipw", "direct", "doubly-robust")):
            values = [row["estimates"][at]["value"] for row in of]
            truth_of = of[0]["truth"]
            errors = numpy.array([value["mean"] / truth_of - 1 for value in values])
            covered = sum(value["low"] <= truth_of <= value["high"] for value in values)
            print(f"| {policy} | {weighing} | {users} | {name} | {100 * numpy.sqrt((errors ** 2).mean()):.2f} % |"
                  f" {100 * errors.mean():+.2f} % | {covered} of {len(of)} | {worth:.0f} | {warned}, of overlap {overlap} |", flush=True)


if __name__ == "__main__":
    main()
