#!/usr/bin/env python3
"""`Model.predict` on a flat table beside `ams eval` on the same impressions: rows per second of both, in turns.

usage: bench/predict.py WORK OUT [--rows 1e6] [--rounds 5]

WORK  folder for the shop, its dataset, the run and the flat table; what is there is not made again
OUT   folder for results.jsonl

Needs the wheel of docs/python.md, pyarrow and numpy. The flat table has every test impression of the shop in the order of
the sample files, with its user's history in lists beside it. Both ways predict with all cores; `ams eval` counts what it
does besides (it reads Parquet, and computes metrics), `predict` what it does (it reads a table in memory). The rates are
held against each other: they are of the same impressions.
"""
import argparse
import json
import pathlib
import statistics
import time

import ams
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FIELDS = {"user_fields": ["gender", "age"], "item_fields": ["category", "brand"], "context_fields": ["hour", "position"]}


def made(work, rows):
    """The run and the published model, of a shop with about `rows` test impressions."""
    if not (work / "models").exists():
        # A tenth of the users in three pages of twelve items each day: the last day is the test.
        users = max(200, int(rows / 36 / 1.1))
        drawn = ams.synth(work / "shop", size="tiny", users=users, items=1000, days=3, pages_per_day=3, items_per_page=12)
        ams.prepare(work / "shop/events.parquet", work / "shop/items.csv", out=work / "data", test_from=drawn["test_from"], **FIELDS)
        ams.encode(work / "shop", dataset=work / "data", dim=64)
        config = {"name": "joint", "runs": work / "runs", "data": {"samples": work / "data"}, "train": {"epochs": 1, "batch": 2048}}
        ams.train(config).publish(work / "models")
    return ams.Run.open(work / "runs/joint"), ams.load(work / "models/joint")


def flat(data):
    """The test impressions as a flat table."""
    pieces = []
    for path in sorted((data / "test").glob("*.parquet")):
        groups = pq.read_table(path)
        if len(groups) == 0:
            continue
        shown = groups["impressions"].combine_chunks()
        past = groups["behaviors"].combine_chunks()
        parents = pc.list_parent_indices(shown)
        values = pc.list_flatten(shown)
        row = {"user": groups["user"].combine_chunks().take(parents)}
        row |= {name: groups[name].combine_chunks().take(parents) for name in ("gender", "age")}
        row |= {name: values.field(name) for name in ("item", "hour", "position")}
        items = pa.ListArray.from_arrays(past.offsets, past.values.field("item"))
        row["behaviors.item"] = items.take(parents)
        row = {name: column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for name, column in row.items()}
        pieces.append(pa.table(row))
    return pa.concat_tables(pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    run, model = made(given.work, given.rows)
    table = flat(given.work / "data").slice(0, int(given.rows))
    times = {"eval": [], "predict": []}
    for _ in range(given.rounds):
        begin = time.perf_counter()
        evaluation = run.evaluate()
        times["eval"].append(evaluation["impressions"] / (time.perf_counter() - begin))
        begin = time.perf_counter()
        rates = model.predict(table)
        times["predict"].append(len(table) / (time.perf_counter() - begin))
        print({name: round(of[-1]) for name, of in times.items()}, flush=True)
    line = {"rows": len(table), "impressions": evaluation["impressions"], "mean_rate": float(np.asarray(rates).mean())}
    for name, of in times.items():
        line[f"{name}_rows_per_second"] = round(statistics.median(of))
        line[f"{name}_range"] = [round(min(of)), round(max(of))]
    line["ratio"] = round(line["predict_rows_per_second"] / line["eval_rows_per_second"], 3)
    with (given.out / "results.jsonl").open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
