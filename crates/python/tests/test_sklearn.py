"""The classifier is `prepare`, `encode`, `train` and `predict`."""

from pathlib import Path

import numpy
import polars
import pytest
from sklearn.base import clone

import ams
from ams.sklearn import AmsClassifier
from conftest import FIELDS, SMALL, Shop


def test_it_learns_what_the_functions_learn(shop: Shop, tmp_path: Path) -> None:
    events = polars.read_parquet(shop.shop / "events.parquet")
    classifier = AmsClassifier(
        shop.shop / "items.csv", shop.shop, folder=tmp_path, encode_options={"dim": 64}, config=SMALL, **FIELDS
    )
    classifier = clone(classifier)
    rows = events.drop("label")
    assert classifier.fit(rows, events["label"]) is classifier
    both = classifier.predict_proba(rows)
    assert both.shape == (len(events), 2) and numpy.allclose(both.sum(axis=1), 1)
    assert (both[:, 1].astype("float32") == numpy.asarray(ams.load(tmp_path / "models/model").predict(rows))).all()
    assert set(classifier.predict(rows)) <= {0, 1} and 0 <= classifier.score(rows, events["label"]) <= 1
    with pytest.raises(ams.InputError, match="expected 0 and 1"):
        classifier.fit(rows, [7] * len(events))
    with pytest.raises(ams.InputError, match="as X has rows"):
        classifier.fit(rows, [0, 1])


def test_it_learns_without_pictures(shop: Shop) -> None:
    events = polars.read_parquet(shop.shop / "events.parquet")
    classifier = AmsClassifier(config=SMALL, user_fields=["age"]).fit(events.drop("label"), events["label"])
    assert not classifier.model_.card["image_towers"]
