"""Requests, as their parts are typed and spelled in JSON; docs/requests.md describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Protocol, TypeAlias, TypedDict, Union

from ._ams import InputError


class _Listed(Protocol):
    """An array of numpy, or a series of pandas."""

    def tolist(self) -> Any: ...


class _ListedToo(Protocol):
    """A series of Polars."""

    def to_list(self) -> Any: ...


#: A text, a number or a boolean, which means its text.
Value: TypeAlias = Union[str, int, float, bool]
#: A value of a field, or several of a field with several.
Cell: TypeAlias = Union[Value, "Sequence[Value | None]", None]
#: A column of values, one a row.
Values: TypeAlias = Union["Sequence[Value | None]", _Listed, _ListedToo]
#: An instant: unix time, text or datetime.
Instant: TypeAlias = Union[Value, date]
#: A column of instants: unix times, texts or datetimes.
Times: TypeAlias = Union["Sequence[Value | date | None]", _Listed, _ListedToo]
#: A column of a field, one cell a row.
Cells: TypeAlias = Union["Sequence[Cell]", _Listed, _ListedToo]


class Behaviors(TypedDict, total=False):
    """Past behaviors in columns of one length, newest first; with times, in any order."""

    item: Values
    time: Times
    features: Mapping[str, Cells]


class User(TypedDict, total=False):
    """The user of a page view."""

    id: Value | None
    features: Mapping[str, Cell]
    behaviors: Behaviors | None


class Candidates(TypedDict, total=False):
    """The items that may be shown, in columns of one length; `item` is required."""

    item: Values
    bid: Values
    features: Mapping[str, Cells]


def to_json(value: object) -> str:
    """JSON of a request: arrays, series and scalars of numpy, pandas and Polars are lists and values."""
    try:
        return json.dumps(value, default=_plain)
    except InputError:
        raise
    except (RecursionError, TypeError, ValueError) as error:
        raise InputError(f"request: {error}") from None


def _plain(value: object) -> object:
    for method in ("tolist", "to_list", "isoformat", "as_py"):
        if hasattr(value, method):
            return getattr(value, method)()
    what = f"{value!r} is a {type(value).__name__}"
    raise InputError(f"request: {what}, expected a text, a number, a boolean, None, or lists of them")


def page_view(
    user: User | Value | None,
    behaviors: Behaviors | Values | None,
    candidates: Candidates | Values,
    context: Mapping[str, Cell] | None,
    options: Mapping[str, int | None],
    time: Instant | None,
) -> str:
    """The page view in JSON."""
    whose: dict[str, object] = dict(user) if isinstance(user, Mapping) else {"id": user}
    if behaviors is not None:
        if "behaviors" in whose:
            raise InputError("request: behaviors are there twice, beside the user and in it")
        whose["behaviors"] = behaviors if isinstance(behaviors, Mapping) else {"item": behaviors}
    page: dict[str, object] = {
        "user": whose,
        "candidates": candidates if isinstance(candidates, Mapping) else {"item": candidates},
    }
    if time is not None:
        page["time"] = time
    if context is not None:
        page["context"] = context
    given = {name: value for name, value in options.items() if value is not None}
    if given:
        page["options"] = given
    return to_json(page)
