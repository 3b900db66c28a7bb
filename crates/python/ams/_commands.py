"""The commands of the program as functions. Their options are the flags of the command, with `_` for `-`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from html import escape
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, Union

from . import _ams
from ._ams import InputError, Table
from ._model import ArrowStream, html_table

PathText: TypeAlias = Union[str, "PathLike[str]"]
#: A table: a path, several of them (patterns too), or a table in memory.
Source: TypeAlias = Union[PathText, "list[PathText]", ArrowStream]
#: What a step of a training tells: step, steps, epoch, impressions, loss, learning_rate.
OnStep: TypeAlias = Callable[[dict[str, Any]], object]


class Report(dict[str, Any]):
    """What a command prints with `--json`, and in `said` the words along the way."""

    said: str = ""

    def _repr_html_(self) -> str:
        rows = [(escape(key), escape(_short(value))) for key, value in self.items()]
        return html_table("", ("", ""), rows)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else text[:199] + "…"


class Prepared(Report):
    """A dataset that was made: `understood` says what each column was taken for."""

    @property
    def path(self) -> Path:
        """The folder of the dataset."""
        return Path(self["path"])

    @property
    def understood(self) -> list[dict[str, str]]:
        """A row for each column: what, table, column, example, reading."""
        return list(self.get("understood", []))

    def _repr_html_(self) -> str:
        keys = ("what", "column", "example", "reading")
        rows = [
            tuple(escape(row[key] if key != "column" else f"{row['table']}: {row['column']}") for key in keys)
            for row in self.understood
        ]
        counts = ("users", "items", "items_with_image", "groups", "impressions", "train", "test", "clicks")
        counted = ", ".join(f"{self[name]:,} {name.replace('_', ' ')}" for name in counts if name in self)
        warnings = "".join(f"<p>warning: {escape(it)}</p>" for it in self.get("warnings", []))
        header = ("role", "column", "example", "read as")
        return html_table("I understood", header, rows) + f"<p>{escape(counted)}</p>{warnings}"


def _flags(options: Mapping[str, object]) -> list[str]:
    """Options as arguments: True is a flag, None and False are left out, a list is a flag for each of its values."""
    arguments = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            arguments.append(flag)
            continue
        several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, os.PathLike))
        for one in value if isinstance(value, Iterable) and several else [value]:
            arguments.append(f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
    return arguments


def _call(command: str, arguments: list[str], on_step: OnStep | None = None) -> Report:
    report, said = _ams.call([command, *arguments], on_step)
    answer = Report(json.loads(report) if report else {})
    answer.said = said
    return answer


def _is_path(source: object) -> bool:
    return isinstance(source, (str, os.PathLike))


class _Files:
    """Sources as paths: tables in memory are written to a folder that is gone at the end."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="ams-")

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def of(self, name: str, source: object) -> list[str]:
        """The paths of a source; `name` is what errors call a table in memory."""
        if source is None:
            return []
        if isinstance(source, (str, os.PathLike)):
            return [os.fspath(source)]
        if hasattr(source, "__arrow_c_stream__"):
            path = Path(self._folder.name) / f"{name}.parquet"
            try:
                _ams.write_parquet(source, path)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            return [str(path)]
        if isinstance(source, (list, tuple)) and all(_is_path(it) for it in source):
            return [os.fspath(it) for it in source]
        raise InputError(
            f"{name}: a {type(source).__name__} is no table; expected a path, a list of paths, or a table with "
            "__arrow_c_stream__ (pyarrow, pandas 2.2 or later, Polars, DuckDB)"
        )

    def toml(self, config: Mapping[str, object] | PathText) -> str:
        """The path of a configuration."""
        if isinstance(config, (str, os.PathLike)):
            return os.fspath(config)
        if not isinstance(config, Mapping):
            raise InputError(f"config: a {type(config).__name__}, expected a dict or the path of a TOML file")
        path = Path(self._folder.name) / "config.toml"
        lines = [f"{_key(key)} = {_toml(value)}\n" for key, value in config.items() if value is not None]
        path.write_text("".join(lines), encoding="utf-8")
        return str(path)


def _key(key: object) -> str:
    return json.dumps(str(key), ensure_ascii=False)


def _toml(value: object) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        return json.dumps(os.fspath(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(it) for it in value) + "]"
    if hasattr(value, "item"):
        return _toml(value.item())
    raise InputError(f"config: {value!r} is a {type(value).__name__}, expected a text, number, boolean, list or dict")


def synth(out: PathText, **options: object) -> Report:
    """Generates a synthetic shop, as `ams synth`."""
    return _call("synth", _flags({"out": out, **options}))


def prepare(
    events: Source, items: Source | None = None, users: Source | None = None, *, out: PathText, **options: object
) -> Prepared:
    """Turns an event log into a dataset, as `ams prepare`; shows in a notebook what each column was taken for."""
    with _Files() as files:
        tables = {"events": files.of("events", events), "items": files.of("items", items), "users": files.of("users", users)}
        report = _call("prepare", _flags({**tables, "out": out, **options}))
    prepared = Prepared({"path": os.fspath(out), **report})
    prepared.said = report.said
    return prepared


def encode(
    pictures: Source | None = None,
    *,
    vectors: Source | None = None,
    dataset: PathText | None = None,
    out: PathText | None = None,
    **options: object,
) -> Report:
    """Makes a feature store, as `ams encode`: of pictures, or of vectors computed elsewhere.

    `pictures` is a folder, a Parquet file, or a table with a column of structs of `bytes` and `path`; `vectors` a file, or
    a table with a column of names and one of lists of floats. `out` is `images` inside the dataset unless given.
    """
    with _Files() as files:
        sources = {"images": files.of("pictures", pictures), "features": files.of("vectors", vectors)}
        place = [] if dataset is None else [os.fspath(dataset)]
        report = _call("encode", place + _flags({**sources, "out": out, **options}))
    return report


def _is_address(path: PathText) -> bool:
    return "://" in os.fspath(path)


class Run:
    """The folder of a training, or its address in a bucket."""

    def __init__(self, path: PathText, report: Report | None = None) -> None:
        self.path = Path(path)
        # A path would make `s3:/` of the beginning of an address.
        self._named = os.fspath(path)
        self.report = report if report is not None else Report()

    def __repr__(self) -> str:
        return f"<ams.Run {self._named}>"

    @classmethod
    def open(cls, path: PathText) -> Run:
        """A run that is there already."""
        if not (_is_address(path) or (Path(path) / "config.toml").is_file()):
            raise InputError(f"{os.fspath(path)}: no run is there; expected a folder that ams train wrote")
        return cls(path)

    @property
    def metrics(self) -> Table:
        """The lines of metrics.jsonl as a table; `validation.gauc` and the like are null in the others."""
        path = self.path / "metrics.jsonl"
        if _is_address(self._named):
            raise InputError(f"{self._named}: is not on this host; copy its metrics.jsonl, or write a page about it")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        return _ams.rows([line for line in lines if line.strip()])

    def evaluate(self, split: str = "test", **options: object) -> Report:
        """AUC, GAUC, log loss, calibration and slices, as `ams eval`."""
        return _call("eval", [self._named, *_flags({"split": split, **options})])

    def publish(self, to: PathText, **options: object) -> Report:
        """Freezes the run into the next version of a model below `to`, as `ams publish`; `path` is its folder."""
        return _call("publish", [self._named, *_flags({"to": to, **options})])

    def page(self, out: PathText, **options: object) -> Report:
        """A page about the run, as `ams report`: HTML, Markdown or PNG, by the ending of `out`."""
        return report([self], out, **options)

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._named)}</p>" + self.report._repr_html_()


def train(config: Mapping[str, object] | PathText, on_step: OnStep | None = None, **options: object) -> Run:
    """Trains a model, as `ams train`.

    `on_step` gets a dict after every step; if it raises, the training stops. So does Ctrl-C: a checkpoint is written, and
    the same call with `resume=True` goes on from there.
    """
    with _Files() as files:
        report = _call("train", [files.toml(config), *_flags({"watchdog": 0, **options})], on_step)
    return Run(report["run"], report)


def align(config: Mapping[str, object] | PathText, **options: object) -> Report:
    """Aligns image features with behavior, as `ams align`."""
    with _Files() as files:
        return _call("align", [files.toml(config), *_flags({"watchdog": 0, **options})])


def ablate(config: Mapping[str, object] | PathText, on_step: OnStep | None = None, **options: object) -> Report:
    """Trains the paper's tables on a dataset and compares, as `ams ablate`."""
    with _Files() as files:
        return _call("ablate", [files.toml(config), *_flags(options)], on_step)


def vectors(**options: object) -> Report:
    """Computes vectors ahead, as `ams vectors`: `model` or `images`, `data`, `out`."""
    return _call("vectors", _flags(options))


def doctor(data: Source, **options: object) -> Report:
    """Looks at data before a model learns from them, as `ams doctor`: a dataset, or a table of events.

    `["examination"]["findings"]` has a verdict for each check: `ok`, `look` or `bad`.
    """
    with _Files() as files:
        return _call("doctor", [*files.of("events", data), *_flags(options)])


def report(runs: Iterable[Run | PathText], out: PathText, **options: object) -> Report:
    """Writes a page about runs, as `ams report`: HTML, Markdown or PNG, by the ending of `out`."""
    paths = [run._named if isinstance(run, Run) else os.fspath(run) for run in runs]
    return _call("report", [*paths, *_flags({"out": out, **options})])
