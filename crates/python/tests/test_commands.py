"""Functions are the commands: the same files, bit by bit, and the same words."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

import ams
from conftest import FIELDS, Shop, program


def files(folder: Path) -> dict[str, bytes]:
    """The tables of a dataset."""
    paths = [folder / "items.parquet", *sorted(folder.glob("t*/part-*.parquet"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_frames_make_the_dataset_that_files_make(shop: Shop, tmp_path: Path) -> None:
    expected = files(shop.data)
    events = pyarrow.parquet.read_table(shop.shop / "events.parquet")
    items = polars.read_csv(shop.shop / "items.csv")
    for name, source in {"arrow": events, "pandas": events.to_pandas(), "polars": polars.DataFrame(events)}.items():
        prepared = ams.prepare(source, items, out=tmp_path / name, **FIELDS)
        assert files(prepared.path) == expected, name
    assert prepared.understood[0] == {
        "what": "user",
        "table": "events.parquet",
        "column": "user",
        "example": events["user"][0].as_py(),
        "reading": "text",
    }
    shown = prepared._repr_html_()
    assert "I understood" in shown and "events.parquet: user" in shown and "impressions" in shown
    assert "I understood" in prepared.said


def test_a_command_says_what_the_program_says(shop: Shop, tmp_path: Path) -> None:
    said = program("prepare", "--events", shop.shop / "events.parquet", "--out", shop.data)
    with pytest.raises(ams.InputError) as error:
        ams.prepare(shop.shop / "events.parquet", out=shop.data)
    assert said.returncode == 1 and f"error: {error.value}" in said.stderr
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (shop.shop / "events.parquet", {"test_form": "2024"}, "unexpected argument '--test-form' found"),
        (7, {}, "events: a int is no table"),
        ([1], {}, "events: a list is no table"),
        (pandas.DataFrame({"user": ["a"], "item": ["b"]}), {}, "time"),
        (polars.DataFrame({"user": ["a"]}), {}, "events.parquet"),
        ("nothing.csv", {}, "nothing.csv"),
    ]
    for events, options, words in cases:
        with pytest.raises(ams.InputError) as error:
            ams.prepare(events, out=tmp_path / "out", **options)
        assert words in str(error.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ams.InputError) as error:
        ams.train({"name": "x", "data": {"samples": str(shop.data)}, "train": {"epohs": 1}})
    assert "did you mean `epochs`?" in str(error.value)
    for config in (7, {"name": object()}):
        with pytest.raises(ams.InputError, match="config: "):
            ams.train(config)  # type: ignore[arg-type]


def test_a_stream_that_raises_is_said_with_its_name(tmp_path: Path) -> None:
    schema = pyarrow.schema([("user", pyarrow.string())])

    def raising() -> Any:
        raise RuntimeError("the tap is dry")
        yield

    with pytest.raises(ams.InputError, match="events: .*the tap is dry"):
        ams.prepare(pyarrow.RecordBatchReader.from_batches(schema, raising()), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_and_vectors_come_from_tables(shop: Shop, tmp_path: Path) -> None:
    names = polars.read_csv(shop.shop / "items.csv")["image"].to_list()[:5]
    pictures = [{"bytes": (shop.shop / name).read_bytes(), "path": name} for name in names]
    report = ams.encode(pyarrow.table({"image": pictures}), out=tmp_path / "store", dim=64)
    assert report["images"] == 5 and report["dim"] == 64
    vectors = pandas.DataFrame({"name": names, "vector": [[float(at), 1.0] for at in range(5)]})
    report = ams.encode(vectors=vectors, dataset=shop.data, out=tmp_path / "vectors", encoder="precomputed", max_failed=1)
    assert (report["images"], report["dim"]) == (5, 2)


def test_a_training_is_the_programs(shop: Shop, tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = []
    config = shop.config("watched", runs=tmp_path / "runs")
    run = ams.train(config, steps.append, threads=1)
    assert [it["step"] for it in steps if it["impressions"]] == list(range(1, run.report["steps"] + 1))
    assert run.path == tmp_path / "runs" / "watched"
    # The configuration that the run has is trained by the program: the same bundle.
    trained = program("train", run.path / "config.toml", "--set", "name=again", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    other = program("publish", tmp_path / "runs" / "again", "--to", tmp_path / "models", "--name", "watched", "--json")
    here = run.publish(tmp_path / "here")
    assert here["path"] == str(tmp_path / "here" / "watched" / "1")
    weights = "dense.safetensors"
    assert (Path(here["path"]) / weights).read_bytes() == (tmp_path / "models" / "watched" / "1" / weights).read_bytes(), other
    metrics = pyarrow.table(run.metrics)
    assert metrics["step"].to_pylist() == list(range(1, run.report["steps"] + 1))
    assert metrics["loss"].type == pyarrow.float64() and len(run.metrics) == len(metrics)
    assert "ams.Table" in repr(run.metrics) and run.metrics.column_names[0] == "step"
    evaluated = ams.Run.open(run.path).evaluate()
    assert 0 < evaluated["auc"] < 1
    assert program("eval", run.path, "--json").stdout.strip() != ""
    with pytest.raises(ams.InputError, match="no run is there"):
        ams.Run.open(tmp_path)


def test_a_step_that_raises_stops_with_a_checkpoint(shop: Shop, tmp_path: Path) -> None:
    config = shop.config("stopped", runs=tmp_path)

    def raising(step: dict[str, Any]) -> None:
        if step["step"] == 2:
            raise LookupError("seen enough")

    with pytest.raises(LookupError, match="seen enough"):
        ams.train(config, raising)
    assert list((tmp_path / "stopped" / "checkpoints").iterdir())
    with pytest.raises(ams.InputError):
        ams.train(config)
    seen: list[int] = []
    run = ams.train(config, lambda step: seen.append(step["step"]), resume=True)
    assert seen[0] == 3 and run.report["finished"]


def test_ctrl_c_writes_a_checkpoint_and_raises(shop: Shop, tmp_path: Path) -> None:
    config = shop.config("interrupted", runs=tmp_path)
    pause = threading.Event()

    def at_step(step: dict[str, Any]) -> None:
        if step["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)
            pause.wait(0.5)

    with pytest.raises(KeyboardInterrupt):
        ams.train(config, at_step)
    assert list((tmp_path / "interrupted" / "checkpoints").iterdir())
    assert ams.train(config, resume=True).report["finished"]


def test_alignments_ablations_and_vectors(shop: Shop, tmp_path: Path) -> None:
    config = shop.config("table", runs=tmp_path)
    report = ams.ablate(config, tables=["arms"], seeds=1, twins="none", bootstrap=40, set=["train.epochs=1"])
    assert report["trained"] == report["trainings"] and "arms" in str(report["tables"])
    exported = ams.vectors(model=shop.models / "early", data=shop.data, out=tmp_path / "ahead")
    ahead = polars.read_parquet(tmp_path / "ahead" / "ads.parquet").sort("item")
    here = polars.DataFrame(shop.early.item_vectors()).sort("item")
    assert exported["ads"] == len(ahead) and ahead["vector"].to_list() == here["vector"].to_list()
    aligned = ams.align({**config, "name": "aligned", "align": {"components": 16, "width": 8, "steps": 20}})
    assert aligned["finished"]


def test_data_are_examined_and_runs_reported(shop: Shop, tmp_path: Path) -> None:
    dataset = ams.doctor(shop.data)["examination"]
    assert {it["verdict"] for it in dataset["findings"]} <= {"ok", "look", "bad"}
    events = polars.read_parquet(shop.shop / "events.parquet")
    known = events.with_columns(seen=polars.col("label") * 3)
    findings = ams.doctor(known)["examination"]["findings"]
    bad = [(it["check"], it["field"]) for it in findings if it["verdict"] == "bad" and "field" in it]
    assert ("leak", "seen") in bad
    written = ams.report([shop.run, str(shop.run.path)], tmp_path / "both.html", images=shop.shop, pages=1)
    assert written["runs"] == 2 and (tmp_path / "both.html").read_text().startswith("<!DOCTYPE html>")
    shop.run.page(tmp_path / "one.md", pages=0)
    assert "# Report: joint" in (tmp_path / "one.md").read_text()
