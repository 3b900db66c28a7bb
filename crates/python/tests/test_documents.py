"""The Python of docs/python.md and docs/tour.ipynb runs."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(names["rates"]) == 2 and os.path.isdir("models/joint/1")  # type: ignore[arg-type]


def test_the_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("I understood" in output.get("data", {}).get("text/html", "") for output in shown)
