"""A classifier of scikit-learn around the functions of this package. Needs the extra `sklearn`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import pyarrow
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ._commands import Source, encode, prepare, train
from ._ams import InputError
from ._model import ArrowStream, load


class AmsClassifier(ClassifierMixin, BaseEstimator):
    """Predicts clicks of impressions.

    Rows of `X` are impressions: `user`, `item`, `time` and fields; `y` is 1 for a click, otherwise 0. `fit` prepares,
    encodes `pictures`, trains and publishes in `folder`, a temporary one unless given; the last tenth of the log is held
    out. `predict_proba` takes the flat tables of `ams.Model.predict`: without `behaviors.item` a row has no history.
    """

    def __init__(
        self,
        items: Source | None = None,
        pictures: Source | None = None,
        *,
        folder: str | PathLike[str] | None = None,
        user_fields: list[str] | None = None,
        item_fields: list[str] | None = None,
        context_fields: list[str] | None = None,
        prepare_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.items = items
        self.pictures = pictures
        self.folder = folder
        self.user_fields = user_fields
        self.item_fields = item_fields
        self.context_fields = context_fields
        self.prepare_options = prepare_options
        self.encode_options = encode_options
        self.config = config

    def fit(self, X: ArrowStream, y: Any) -> AmsClassifier:
        """Learns from the impressions `X` and their clicks `y`."""
        clicks = numpy.asarray(y)
        if not numpy.isin(clicks, (0, 1)).all():
            raise InputError(f"y has the values {numpy.unique(clicks)[:5].tolist()}, expected 0 and 1")
        events = pyarrow.table(X)
        if len(clicks) != len(events):
            raise InputError(f"y has {len(clicks)} values, expected {len(events)}, as X has rows")
        events = events.append_column("label", pyarrow.array(clicks.astype("int8")))
        if self.folder is None:
            self.temporary_ = TemporaryDirectory(prefix="ams-")
        root = Path(self.temporary_.name if self.folder is None else self.folder)
        fields: dict[str, Any] = {
            "user_fields": self.user_fields,
            "item_fields": self.item_fields,
            "context_fields": self.context_fields,
        }
        self.prepared_ = prepare(
            events, self.items, out=root / "data", replace=True, **fields, **(self.prepare_options or {})
        )
        config: dict[str, Any] = {"name": "model", "runs": root / "runs", **(self.config or {})}
        config["data"] = {"samples": root / "data", **config.get("data", {})}
        if self.pictures is not None:
            encode(self.pictures, dataset=root / "data", **(self.encode_options or {}))
        else:
            config["model"] = {"images": "none", **config.get("model", {})}
        self.run_ = train(config, replace=True)
        self.model_ = load(self.run_.publish(root / "models")["path"])
        self.classes_ = numpy.array([0, 1])
        return self

    def predict_proba(self, X: ArrowStream) -> Any:
        """The rates of no click and of a click of each row."""
        check_is_fitted(self, "model_")
        rates = numpy.asarray(self.model_.predict(X), dtype="float64")
        return numpy.stack([1 - rates, rates], axis=1)

    def predict(self, X: ArrowStream) -> Any:
        """1 where a click is likelier than none."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
