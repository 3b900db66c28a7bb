"""A published model in this process, and the answers of models."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from typing import Any, Protocol

from . import _ams
from ._ams import Table
from ._requests import Behaviors, Candidates, Cell, Instant, User, Value, Values, page_view, to_json


class ArrowStream(Protocol):
    """A table that any program of Arrow can read: of pyarrow, pandas 2.2 or later, Polars, DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True)
class Ranked:
    """A candidate, as it was ranked."""

    item: str
    ctr: float
    ecpm: float


@dataclass(frozen=True)
class Page:
    """The candidates of a page view, best first."""

    model: str
    version: int
    items: list[str]
    ctr: list[float]
    ecpm: list[float]
    #: What the model does not know and scored with defaults: users, items, images, and counts of ids.
    missing: dict[str, Any]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Ranked]:
        return (Ranked(*row) for row in zip(self.items, self.ctr, self.ecpm, strict=True))

    def _repr_html_(self) -> str:
        rows = [
            (escape(it.item), f"{it.ctr:.4f}", f"{it.ecpm:.4f}", _bar(it.ctr, max(self.ctr))) for it in self
        ]
        unknown = [
            f"unknown {kind}, scored with defaults: {escape(', '.join(self.missing[kind]))}"
            for kind in ("users", "items", "images")
            if self.missing.get(kind)
        ]
        title = f"{escape(self.model)}, version {self.version}"
        return html_table(title, ("item", "pCTR", "eCPM", ""), rows) + "".join(f"<p>{it}</p>" for it in unknown)


def _bar(share: float, largest: float) -> str:
    width = round(120 * share / largest) if largest > 0 else 0
    return f'<div style="background:#4a7ebb;height:.8em;width:{width}px"></div>'


def html_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Attention:
    """Weights of the behaviors in one attention of the network."""

    over: str
    queries: list[str]
    weights: list[float]


@dataclass(frozen=True)
class ExplainedCandidate:
    """What drew the rate of one candidate: `raises` has a number for each behavior."""

    item: str
    ctr: float
    ctr_without_history: float
    raises: list[float]
    attention: list[Attention] = field(default_factory=list)


@dataclass(frozen=True)
class Explained:
    """The best candidates, and the effect of each behavior the model looked at, newest first."""

    behaviors: list[str]
    rows: list[int]
    candidates: list[ExplainedCandidate]

    @staticmethod
    def of(answer: Mapping[str, Any]) -> Explained:
        """Of the answer in JSON."""
        candidates = [
            ExplainedCandidate(**{**it, "attention": [Attention(**a) for a in it.get("attention", [])]})
            for it in answer["candidates"]
        ]
        return Explained(list(answer["behaviors"]), list(answer["rows"]), candidates)


@dataclass(frozen=True)
class Similar:
    """Items by the cosine of their pictures' embeddings, most similar first."""

    tower: str
    items: list[str]
    cosine: list[float]


class Model:
    """A published model. Threads may use it together; it holds no lock of Python while it computes."""

    def __init__(self, inner: _ams.Model) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        card = self.card
        return f"<ams.Model {card['name']} version {card['version']}>"

    def __reduce__(self) -> tuple[object, ...]:
        # Other processes open the same version.
        return load, (self.card["path"],)

    @property
    def card(self) -> dict[str, Any]:
        """Name, version, hash, and the description in the bundle's manifest."""
        return dict(json.loads(self._inner.card()))

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Example requests of the bundle, as `score_page` takes them."""
        return list(json.loads(self._inner.samples()))

    def score(
        self,
        user: User | Value | None = None,
        behaviors: Behaviors | Values | None = None,
        candidates: Candidates | Values = (),
        context: Mapping[str, Cell] | None = None,
        top_k: int | None = None,
        *,
        time: Instant | None = None,
    ) -> Page:
        """Ranks the candidates of one page view.

        `user` is an id, or a mapping with `id` and `features`; `behaviors` are items, newest first, or a mapping with
        `item`, `time` and `features`; `candidates` are items, or a mapping with `item`, `bid` and `features`.
        `time` is when the page is looked at, for a model that sees the ages of behaviors.
        """
        return self._page(page_view(user, behaviors, candidates, context, {"top_k": top_k}, time))

    def score_page(self, page: Mapping[str, Any]) -> Page:
        """Ranks the candidates of a request as servers and `ams score` take it."""
        return self._page(to_json(page))

    def _page(self, request: str) -> Page:
        return Page(**json.loads(self._inner.score(request)))

    def explain(
        self,
        user: User | Value | None = None,
        behaviors: Behaviors | Values | None = None,
        candidates: Candidates | Values = (),
        context: Mapping[str, Cell] | None = None,
        top_k: int | None = None,
        *,
        time: Instant | None = None,
    ) -> Explained:
        """The effect of each behavior on the best candidates: 5, or `top_k` up to 50."""
        request = page_view(user, behaviors, candidates, context, {"top_k": top_k}, time)
        return Explained.of(json.loads(self._inner.explain(request)))

    def similar(
        self, item: Value | None = None, *, picture: str | None = None, tower: str | None = None, top_k: int | None = None
    ) -> Similar:
        """Items whose pictures are like that of `item`, or like the picture of a name."""
        asked = {"item": item, "picture": picture, "tower": tower, "top_k": top_k}
        request = to_json({name: value for name, value in asked.items() if value is not None})
        return Similar(**json.loads(self._inner.similar(request)))

    def predict(self, table: ArrowStream) -> array[float]:
        """The predicted click-through rate of every impression of a table, in their order, as 32-bit floats.

        The table has the layout of samples (docs/samples.md) or is flat (docs/python.md). `numpy.asarray` of the
        result copies nothing.
        """
        rates: array[float] = array("f")
        rates.frombytes(self._inner.predict(table))
        return rates

    def image_vectors(self, tower: str | None = None) -> Table:
        """Item and vector: what a tower, the model's first unless named, makes of the items' pictures."""
        return self._inner.image_vectors(tower)

    def item_vectors(self) -> Table:
        """Item and vector, of a pre-rank network: the sigmoid of a product with a user's vector is the rate."""
        return self._inner.item_vectors()

    def user_vectors(self, table: ArrowStream) -> Table:
        """User and vector of every row of a table, of a pre-rank network; the table needs no candidates."""
        return self._inner.user_vectors(table)


def load(path: str | PathLike[str]) -> Model:
    """Opens a bundle: the folder of a version, or of a model for its newest version; also in a bucket."""
    return Model(_ams.Model.open(path))
