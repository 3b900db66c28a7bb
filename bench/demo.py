#!/usr/bin/env python3
"""The demo's shop over several seeds: what images gain, beside what a perfect model would reach.

usage: bench/demo.py WORK OUT [--seeds N]

WORK  folder for the demos
OUT   folder for results.jsonl and table.md

Only the standard library and target/release/ams are needed.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
MODELS = ["id-only", "joint", "recommended"]
METRICS = ["gauc", "auc", "logloss", "cold_gauc", "cold_auc"]


def demo(work, seed):
    """Runs the demo of one seed and returns its report."""
    command = [AMS, "demo", "--seed", str(seed), "--out", work / f"demo-{seed}", "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return {"seed": seed, **json.loads(done.stdout)}


def mean(reports, model, metric):
    values = [a[metric] for report in reports for a in report["arms"] if a["name"] == model]
    return statistics.mean(values)


def table(reports):
    lines = [f"Mean over seeds {', '.join(str(r['seed']) for r in reports)}; "
             f"seconds of the whole demo: {', '.join(format(r['seconds'], '.0f') for r in reports)}.", "",
             "| test day | GAUC | AUC | log loss | cold GAUC | cold AUC |", "|---|---|---|---|---|---|"]
    for model in MODELS:
        cells = [f"{mean(reports, model, metric):.4f}" for metric in METRICS]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    bayes = {m: statistics.mean(r["bayes"][m] for r in reports) for m in METRICS if m != "logloss"}
    cells = [f"{bayes[m]:.4f}" if m in bayes else "-" for m in METRICS]
    lines.append("| best possible | " + " | ".join(cells) + " |")
    joint, none = (lambda m: mean(reports, "joint", m)), (lambda m: mean(reports, "id-only", m))
    closed = (joint("gauc") - 0.5) / (bayes["gauc"] - 0.5)
    lines += ["", f"Joint over ID-only: {joint('gauc') - none('gauc'):+.4f} GAUC, "
              f"{joint('cold_gauc') - none('cold_gauc'):+.4f} on cold items. Joint closes {closed:.1%} of the "
              "distance from 0.5 to the best possible GAUC "
              f"({', '.join(format(closed_of(r), '.1%') for r in reports)} by seed)."]
    return "\n".join(lines) + "\n"


def closed_of(report):
    joint = next(arm for arm in report["arms"] if arm["name"] == "joint")
    return (joint["gauc"] - 0.5) / (report["bayes"]["gauc"] - 0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    reports = []
    for seed in range(1, arguments.seeds + 1):
        reports.append(demo(arguments.work, seed))
        print(seed, f"{reports[-1]['seconds']:.0f} s", flush=True)
    (arguments.out / "table.md").write_text(table(reports))
    (arguments.out / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in reports))


main()
