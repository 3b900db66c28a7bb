#!/usr/bin/env python3
"""Updating random rows of a table by Adam: `ams bench rows` beside PyTorch.

usage: bench/peers/rows.py OUT [--rows 1e6,1e7] [--threads 1,2] [--steps N] [--ams PROGRAM]

OUT  folder for peers.jsonl and peers.md

100,000 random rows of width 12 get a gradient in every step. PyTorch has two ways: SparseAdam, which like ams touches
the rows of the step alone, and fused Adam, which moves every row of the table in every step. Only the optimizer's
step is timed; its gradient is there, for SparseAdam with each row once and in ascending order. PyTorch gets numbers
of rows and has no ids; of ams there is also the rate with the lookup of the ids' rows, which is what a training pays.
Needs torch.
"""
import argparse
import json
import pathlib
import subprocess
import time

import torch

AMS = pathlib.Path(__file__).resolve().parent.parent.parent / "target/release/ams"
DIM, PORTION, WARM_UP = 12, 100_000, 3


def ams(program, rows, threads, steps):
    """Rows updated per second: by slot, and by id."""
    arguments = f"bench rows --rows {rows} --dim {DIM} --portion {PORTION} --steps {steps} --threads {threads} --json"
    done = subprocess.run([program, *arguments.split()], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    run = json.loads(done.stdout)["runs"][0]
    return run["updates_per_second"], run["both_per_second"]


def gradients(rows, sparse, steps):
    """A gradient for some random rows in every step, and how many."""
    for step in range(steps + WARM_UP):
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(rows, (PORTION,), generator=generator).unique()
        values = torch.rand(len(chosen), DIM, generator=generator) - 0.5
        if sparse:
            yield len(chosen), torch.sparse_coo_tensor(chosen[None], values, (rows, DIM), is_coalesced=True)
        else:
            dense = torch.zeros(rows, DIM)
            dense[chosen] = values
            yield len(chosen), dense


def peer(rows, sparse, steps):
    """Rows with a gradient updated per second by PyTorch."""
    weight = torch.nn.Parameter(torch.rand(rows, DIM) * 0.1 - 0.05)
    optimizer = torch.optim.SparseAdam([weight]) if sparse else torch.optim.Adam([weight], fused=True)
    updated = seconds = 0
    for step, (chosen, gradient) in enumerate(gradients(rows, sparse, steps)):
        weight.grad = gradient
        begin = time.perf_counter()
        optimizer.step()
        if step >= WARM_UP:
            seconds += time.perf_counter() - begin
            updated += chosen
    return updated / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rows", default="1e6,1e7")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--ams", default=AMS)
    arguments = parser.parse_args()
    results = []
    for rows in [int(float(rows)) for rows in arguments.rows.split(",")]:
        for threads in map(int, arguments.threads.split(",")):
            torch.set_num_threads(threads)
            by_slot, by_id = ams(arguments.ams, rows, threads, arguments.steps)
            results.append({
                "rows": rows, "threads": threads, "ams": by_slot, "ams, by id": by_id,
                f"SparseAdam, torch {torch.__version__}": peer(rows, True, arguments.steps),
                f"fused Adam, torch {torch.__version__}": peer(rows, False, max(arguments.steps // 5, 1)),
            })
            print(json.dumps(results[-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "peers.jsonl").write_text("".join(json.dumps(result) + "\n" for result in results))
    columns = list(results[0])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(f"{result[column]:,.0f}" for column in columns) + " |" for result in results]
    (arguments.out / "peers.md").write_text(
        f"Rows with a gradient updated per second, {PORTION:,} random ones of width {DIM} a step "
        "(`bench/peers/rows.py`).\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
