#!/usr/bin/env python3
"""Has Airflow run the DAG of deploy/airflow for two days of a tiny shop, by PROGRAM.

usage: .ci/airflow.py PROGRAM

Airflow comes from PyPI into target/airflow; without it nothing is checked. The database is a file, and no scheduler runs:
`airflow dags test` runs the DAG in its own process. It is told an instant in the night, and has to make the day before.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / "target/airflow"
# Of one day's releases, so that what is installed is what was tried.
PACKAGES = ["apache-airflow==3.3.2"]

DAILY = """
name = "shop"
models = "models"
work = "daily"
train = "train.toml"
[prepare]
events = ["shop/events.parquet"]
items = "shop/items.csv"
"""

TRAIN = """
[model]
images = "none"
[train]
epochs = 1
batch = 64
"""


def installed():
    """Airflow's program, or nothing if it is not to be had."""
    program = VENV / "bin/airflow"
    if program.exists():
        return program
    if not (VENV / "bin/python3").exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    install = [[VENV / "bin/pip", "install", "-q", "uv"],
               [VENV / "bin/uv", "pip", "install", "-q", "--python", VENV / "bin/python3", *PACKAGES]]
    if any(subprocess.run(command, check=False).returncode != 0 for command in install):
        print("skipped: Airflow is not to be had")
        sys.exit(0)
    return program


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program, airflow = pathlib.Path(sys.argv[1]).resolve(), installed()
    with tempfile.TemporaryDirectory(prefix="ams-airflow-") as scratch:
        scratch = pathlib.Path(scratch)
        place, dags = scratch / "place", scratch / "dags"
        for folder in (place, dags, scratch / "bin"):
            folder.mkdir()
        (scratch / "bin/ams").symlink_to(program)
        dag = (ROOT / "deploy/airflow/ams_daily.py").read_text()
        assert dag.count("/var/lib/ams") == 1 and dag.count("2026, 1, 1") == 1, "another folder or start"
        (dags / "ams_daily.py").write_text(dag.replace("/var/lib/ams", str(place)).replace("2026, 1, 1", "2024, 3, 1"))
        (place / "daily.toml").write_text(DAILY)
        (place / "train.toml").write_text(TRAIN)
        subprocess.run([program, "synth", "--out", place / "shop", "--size", "tiny"], check=True, capture_output=True)
        environment = os.environ | {
            "PATH": f"{scratch / 'bin'}:{VENV / 'bin'}:{os.environ['PATH']}", "AIRFLOW_HOME": str(scratch / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

        def run(*arguments):
            done = subprocess.run([airflow, *arguments], env=environment, cwd=scratch, capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                sys.exit(f"airflow {' '.join(arguments)}: {done.stdout[-4000:]}{done.stderr[-4000:]}")

        run("db", "migrate")
        for night in ("2024-03-05", "2024-03-06"):
            run("dags", "test", "ams_daily", f"{night}T04:00:00+00:00")
        days = json.loads((place / "daily/state.json").read_text())["days"]
        made = [(day["day"], day["outcome"], day["version"]) for day in days]
        assert made == [("2024-03-04", "published", 1), ("2024-03-05", "published", 2)], made
    print("deploy/airflow/ams_daily.py: Airflow made two days")


if __name__ == "__main__":
    main()
