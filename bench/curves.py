#!/usr/bin/env python3
"""How cost grows: the reference step of `ams bench step`, with one thing at a time made smaller and larger.

usage: bench/curves.py OUT [--ams PROGRAM] [--rounds N] [--steps N] [--threads N] [--curves behaviors,lanes]
                       [--mpi-ams PROGRAM] [--mpirun COMMAND]

OUT   folder for results.jsonl, table.md and one SVG a curve

The reference step: 1,024 impressions in 128 groups, histories of 64 behaviors, 2,000 different images, 8 lanes, all
cores. Every curve changes one of these and leaves the rest:

- behaviors of each history; the different images stay as many;
- images, different ones in the step; at most 9,216, which is how often the reference step refers to one;
- lanes (`train.lanes`), which share the batch whatever the number of threads;
- threads, up to --threads;
- processes, 1, 2 and 4. `ams bench step` runs alone only, so this curve is of `mpirun -n N ams bench placement`,
  placement `ams`, one thread each, on the batch of `ams bench table2 --scale 60` (1,000 impressions, 32 lanes, longer
  tails): its numbers do not go with those of the other curves. It needs --mpi-ams, a program built with the feature
  `mpi`, and is skipped without.

A point is the median of --rounds runs, with the smallest and the largest. A round runs all points in an order of its
own, so a machine that gets slower meanwhile does so for all of them; a run that two curves share is made once. What
`ams` calls a run's ms is the median of its --steps steps; of it, towers and network are the time of their stages, mean
of all threads, and the rest is all else, waiting for other threads too. Below each table stands the straight line
through the medians, with the least relative squares, and by how much it misses the worst of them: a cost that is not a
fixed part and a part in proportion shows there.

Not here: how cost grows with the rows that the tables of ids hold already. `ams bench step` begins with empty tables
and takes one batch again and again, and filling them by a training before would change the batch too. This is what
`ams bench rows` is for.

Only the standard library and target/release/ams are needed. Nothing else should run meanwhile.
"""
import argparse
import json
import math
import os
import pathlib
import random
import shlex
import statistics
import subprocess
import tempfile
from html import escape

AMS = pathlib.Path(__file__).resolve().parent.parent / "target/release/ams"
POINTS = {
    "behaviors": [8, 16, 32, 64, 128, 256],
    "images": [500, 1000, 2000, 4000, 8000, 9216],
    "lanes": [1, 2, 4, 8, 16, 32],
    "threads": [],
    "processes": [1, 2, 4],
}
TITLES = {"behaviors": "behaviors of each history", "images": "different images", "lanes": "lanes",
          "threads": "threads", "processes": "processes"}
# What of a step is reported apart: the stages of `ams bench step`, each a mean over its steps.
PARTS = {"towers": ["tower_forward", "tower_backward", "tower_matrix"],
         "network": ["network_forward", "network_backward"]}
# A line is drawn if it is nowhere further off than this.
STRAIGHT = 0.1


# The runs.

def ams(command):
    """Runs ams and returns the object it prints."""
    # Only Open MPI reads these, and only root needs them.
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run([*map(str, command), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(map(str, command))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def step(options, point):
    """One run of the reference step, changed so."""
    return ams([options.ams, "bench", "step", "--behaviors", point["behaviors"], "--images", point["images"],
                "--set", f"train.lanes={point['lanes']}", "--threads", point["threads"], "--steps", options.steps])


def job(options, folder, processes):
    """One run on so many processes; its batch is made by the first one and stays."""
    config = folder / "config.toml"
    if not config.exists():
        ams([options.mpi_ams, "bench", "table2", "--scale", 60, "--steps", options.steps, "--out", folder])
        config.write_text(f'name = "curves"\nseed = 1\nruns = "{folder / "runs"}"\n[data]\n'
                          f'samples = "{folder / "data"}"\n[train]\nbatch = 1000\nlanes = 32\nepochs = 1\n')
    found = ams([*shlex.split(options.mpirun), "-n", processes, options.mpi_ams, "bench", "placement", config,
                 "--steps", options.steps, "--threads", 1])
    if found["processes"] != processes:
        raise SystemExit(f"{options.mpi_ams} ran as {found['processes']} processes, expected {processes}")
    row = next(row for row in found["placements"] if row["placement"] == "ams")
    return {**row, "ms": 1e3 * row["seconds_per_step"],
            "impressions_per_second": row["impressions"] / row["seconds_per_step"]}


def run(options, curves, folder):
    """All rounds of all points: rows of results, the point in the key `point`."""
    reference = {"behaviors": 64, "images": 2000, "lanes": 8, "threads": options.threads}
    points = []
    for name, values in curves.items():
        for value in values:
            point = {"processes": value} if name == "processes" else {**reference, name: value}
            points += [] if point in points else [point]
    results = []
    for at in range(options.rounds):
        for point in random.Random(at).sample(points, len(points)):
            found = job(options, folder, point["processes"]) if "processes" in point else step(options, point)
            found.pop("losses", None)
            results.append({"round": at + 1, "point": point, **found})
            print(at + 1, *(f"{key} {value}" for key, value in point.items()), f"{found['ms']:.1f} ms", flush=True)
    return reference, results


# The tables.

def spread(values):
    """median, smallest, largest"""
    return statistics.median(values), min(values), max(values)


def of_curve(name, values, reference, results):
    """The curve's points: (value, its runs)."""
    wanted = [(value, {"processes": value} if name == "processes" else {**reference, name: value}) for value in values]
    return [(value, [row for row in results if row["point"] == point]) for value, point in wanted]


def line(points):
    """(a, b, off): a + b x, least relative squares through the medians, and the largest relative distance."""
    pairs = [(x, statistics.median(row["ms"] for row in rows)) for x, rows in points]
    # 1 = a / y + b x / y: two unknowns, by Cramer's rule.
    uu, uv = sum(1 / y ** 2 for _, y in pairs), sum(x / y ** 2 for x, y in pairs)
    vv, u, v = sum((x / y) ** 2 for x, y in pairs), sum(1 / y for _, y in pairs), sum(x / y for x, y in pairs)
    det = uu * vv - uv ** 2
    a, b = (u * vv - v * uv) / det, (v * uu - u * uv) / det
    return a, b, max(abs(a + b * x - y) / y for x, y in pairs)


def line_of(name, points):
    """The line where one means something: more threads and processes do not add work."""
    return line(points) if name not in ("threads", "processes") and len(points) > 2 else None


def table(name, points):
    """The curve's table in Markdown."""
    lines = [f"## {TITLES[name].capitalize()}", "", f"![]({name}.svg)", "",
             f"| {name} | impressions/s | min to max | ms a step | min to max | {' | '.join(PARTS)} | the rest |",
             "|" + "---:|" * (6 + len(PARTS))]
    for value, rows in points:
        cells = [f"{value:,}"]
        for key, digits in [("impressions_per_second", 0), ("ms", 1)]:
            middle, low, high = (f"{number:,.{digits}f}" for number in spread([row[key] for row in rows]))
            cells += [middle, f"{low} to {high}"]
        if "stages_ms" in rows[0]:
            parts = [statistics.median(sum(row["stages_ms"][stage] for stage in stages) for row in rows)
                     for stages in PARTS.values()]
            rest = statistics.median(row["ms"] for row in rows) - sum(parts)
            cells += [f"{ms:.1f}" for ms in [*parts, rest]]
        else:
            cells += ["-"] * (1 + len(PARTS))
        lines.append(f"| {' | '.join(cells)} |")
    if fit := line_of(name, points):
        a, b, off = fit
        said = "at most" if off <= STRAIGHT else "which is no straight line:"
        lines += ["", f"ms = {a:.1f} + {b:.3g} {name}, {said} {off:.0%} off."]
    if name == "processes":
        lines += ["", "Another step than above: `ams bench placement`, placement `ams`, one thread a process."]
    return "\n".join(lines) + "\n"


# The drawings.

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 15px; font-weight: 600 }
.ground { fill: #ffffff } .grid { stroke: #d0d7de } .line { fill: none; stroke: #0969da; stroke-width: 2 }
.point { fill: #0969da } .bar { stroke: #0969da; stroke-width: 1.5 }
.fit { fill: none; stroke: #bc4c00; stroke-dasharray: 4 4 } .said { fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .ground { fill: #161b22 } .grid { stroke: #3d444d } .line, .bar { stroke: #58a6ff }
.point { fill: #58a6ff } .fit { stroke: #f0883e } .said { fill: #f0883e } }
"""


def text(x, y, words, anchor="middle", kind=""):
    shown = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{shown}>{escape(words)}</text>'


def panel(left, top, width, height, name, unit, points, fit):
    """Axes, points with their smallest and largest, and a line; `points` are (x, (median, smallest, largest))."""
    most = max(high for _, (_, _, high) in points)
    tick = 10 ** math.floor(math.log10(most / 4))
    tick *= next(times for times in (1, 2, 5, 10) if most / (tick * times) <= 5)
    upper = tick * math.ceil(most / tick)
    first, last = math.log2(points[0][0]), math.log2(points[-1][0])
    across = lambda x: left + 14 + (math.log2(x) - first) / ((last - first) or 1) * (width - 28)
    up = lambda y: top + height - y / upper * height
    drawn = [text(left, top - 10, unit, "start")]
    for at in range(round(upper / tick) + 1):
        y = up(at * tick)
        drawn.append(f'<path class="grid" d="M{left} {y:.1f}h{width}"/>')
        drawn.append(text(left - 6, y + 4, f"{at * tick:,.10g}", "end"))
    free = -math.inf
    for x, _ in points:
        drawn.append(f'<path class="grid" d="M{across(x):.1f} {top + height}v4"/>')
        if across(x) - free > 30:
            free = across(x)
            drawn.append(text(free, top + height + 18, f"{x:,}"))
    drawn.append(text(left + width / 2, top + height + 38, f"{name} (log 2)"))
    if fit:
        a, b, _ = fit
        xs = [2 ** (first + (last - first) * at / 48) for at in range(49)]
        path = " ".join(f"{across(x):.1f},{up(a + b * x):.1f}" for x in xs if 0 <= a + b * x <= upper)
        drawn.append(f'<polyline class="fit" points="{path}"/>')
        drawn.append(text(left + width, top - 10, f"dashed: {a:.1f} + {b:.3g} x", "end", "said"))
    path = " ".join(f"{across(x):.1f},{up(middle):.1f}" for x, (middle, _, _) in points)
    drawn.append(f'<polyline class="line" points="{path}"/>')
    for x, (middle, low, high) in points:
        at = f"{across(x) - 4:.1f}"
        drawn.append(f'<path class="bar" d="M{at} {up(low):.1f}h8m-4 0V{up(high):.1f}m-4 0h8"/>')
        drawn.append(f'<circle class="point" cx="{across(x):.1f}" cy="{up(middle):.1f}" r="3"/>')
    return drawn


def drawing(name, points):
    """The curve as an SVG: impressions a second on the left, milliseconds a step on the right."""
    of = lambda key: [(x, spread([row[key] for row in rows])) for x, rows in points]
    fit = line_of(name, points)
    fit = fit if fit and fit[2] <= STRAIGHT else None
    title = f"Cost of a step against {TITLES[name]}"
    drawn = ['<rect class="ground" width="640" height="300" rx="6"/>', text(20, 28, title, "start", "title"),
             *panel(62, 72, 242, 170, TITLES[name], "impressions/s", of("impressions_per_second"), None),
             *panel(372, 72, 250, 170, TITLES[name], "ms a step", of("ms"), fit)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="300" viewBox="0 0 640 300" role="img">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n" + "\n".join(drawn) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--curves", type=lambda words: words.split(","), default=list(POINTS))
    parser.add_argument("--mpi-ams", type=pathlib.Path, metavar="PROGRAM")
    parser.add_argument("--mpirun", default="mpirun --oversubscribe --bind-to none", metavar="COMMAND")
    options = parser.parse_args()
    if unknown := [name for name in options.curves if name not in POINTS]:
        parser.error(f"--curves {unknown[0]}: expected some of {', '.join(POINTS)}")
    POINTS["threads"] = [1 << at for at in range(options.threads.bit_length())]
    curves = {name: POINTS[name] for name in options.curves if name != "processes" or options.mpi_ams}
    skipped = " Processes: skipped, which need --mpi-ams." if len(curves) < len(options.curves) else ""
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ams-curves-") as folder:
        reference, results = run(options, curves, pathlib.Path(folder))
    (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    tables = [f"The reference step ({', '.join(f'{value:,} {key}' for key, value in reference.items())}), one thing "
              f"changed at a time. Median, smallest and largest of {options.rounds} runs of {options.steps} steps; "
              f"towers, network and the rest are of the ms.{skipped}\n"]
    for name, values in curves.items():
        points = of_curve(name, values, reference, results)
        tables.append(table(name, points))
        (options.out / f"{name}.svg").write_text(drawing(name, points))
    (options.out / "table.md").write_text("\n".join(tables))
    if skipped:
        print(skipped.strip())


if __name__ == "__main__":
    main()
