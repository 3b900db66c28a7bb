"""The Python of docs/python.md and docs/tour.ipynb runs."""

import importlib
import importlib.util
import os
import re
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import ams

DOCS = Path(__file__).resolve().parents[3] / "docs"


#: Packages that a block may do without: it is skipped where they are not.
TRACKERS = ("mlflow", "wandb")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Trackers write files here and ask no server.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    names: dict[str, object] = {}
    blocks = re.findall(r"(<!-- not run: [^\n]*-->\n)?^```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S)
    skipped = [name for name in TRACKERS if importlib.util.find_spec(name) is None]
    for elsewhere, block in blocks:
        if not elsewhere and not any(f"import {name}\n" in block for name in skipped):
            exec(compile(block, "docs/python.md", "exec"), names)
    assert len(names["rates"]) == 2 and os.path.isdir("models/joint/1")  # type: ignore[arg-type]
    if skipped:
        warnings.warn(f"skipped: the blocks of {' and '.join(skipped)}, which is not installed", stacklevel=1)
    if "wandb" not in skipped:
        assert list(Path("wandb").glob("offline-run-*/*.wandb"))
    if "mlflow" not in skipped:
        logged(names["scores"], names["tracked"])


def logged(scores: object, run: object) -> None:
    """What MLflow's store has of the run: the last metrics, and the loss of every step."""
    mlflow = importlib.import_module("mlflow")
    [tracked] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert isinstance(scores, dict) and isinstance(run, ams.Run)
    assert {name: tracked.data.metrics[name] for name in ("gauc", "auc", "logloss")} == {
        name: pytest.approx(scores[name], abs=1e-9) for name in ("gauc", "auc", "logloss")
    }
    losses = mlflow.MlflowClient().get_metric_history(tracked.info.run_id, "loss")
    assert [it.step for it in losses] == list(range(1, run.report["steps"] + 1))


def test_the_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("I understood" in output.get("data", {}).get("text/html", "") for output in shown)
