"""A model in Python gives the bits of the program, and says what is wrong as the program does."""

import gc
import itertools
import json
import multiprocessing
import os
import signal
import struct
import threading
from array import array
from typing import Any, Iterator

import duckdb
import numpy
import pandas
import polars
import pyarrow
import pytest

import ams
from conftest import Shop, program


def bits(rates: list[float]) -> list[bytes]:
    return [struct.pack("f", rate) for rate in rates]


def test_score_is_the_programs(shop: Shop) -> None:
    for number, sample in enumerate(shop.pages, 1):
        said = json.loads(program("score", "--json", "--model", shop.bundle, "--sample", number).stdout)
        page = shop.model.score_page(sample)
        assert vars(page) == said
        assert [it.item for it in page] == page.items and len(page) == len(page.items)
        best = shop.model.score_page({**sample, "options": {"top_k": 1}})
        assert best.items == page.items[:1] and best.items[0] in page._repr_html_()


def test_score_takes_what_python_has(shop: Shop) -> None:
    page = shop.pages[0]
    user, past, items = page["user"], page["user"]["behaviors"], page["candidates"]["item"]
    expected = shop.model.score_page(page)
    whose: ams.User = {"id": user["id"], "features": user["features"]}
    for of in (list, tuple, numpy.array, pandas.Series, polars.Series):
        behaviors: ams.Behaviors = {"item": of(past["item"]), "time": of(past["time"])}
        assert shop.model.score(whose, behaviors, of(items), page["context"]) == expected, of
    assert shop.model.score(user, None, items, page["context"], top_k=2).items == expected.items[:2]
    assert shop.model.score("nobody", [], items).missing["users"] == ["nobody"]
    assert len(shop.model.score(candidates=items)) == len(items)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"candidates": []}, "candidates.item has 0 items, expected 1 to 10000"),
        ({"candidates": "i1"}, "candidates.item: invalid type: string"),
        ({"candidates": ["i1"], "context": {"hoor": 1}}, "context.hoor: no such field; did you mean `hour`?"),
        ({"candidates": [float("nan")]}, "NaN at line 1 column"),
        ({"candidates": [object()]}, "expected a text, a number, a boolean, None, or lists of them"),
        ({"candidates": [b"i1"]}, "is a bytes"),
        ({"candidates": ["\ud800"]}, "request: "),
        ({"candidates": ["i1"], "top_k": 0}, "options.top_k"),
        ({"user": {"behaviors": {}}, "behaviors": ["i1"], "candidates": ["i1"]}, "twice"),
        ({"behaviors": {"item": ["i1"], "time": ["soon"]}, "candidates": ["i1"]}, "`soon` is not a time"),
    ],
)
def test_a_wrong_request_is_an_input_error(shop: Shop, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ams.InputError) as error:
        shop.model.score(**arguments)
    assert words in str(error.value)


def test_load_says_what_is_missing(shop: Shop) -> None:
    said = program("score", "--model", shop.root / "nothing", "--sample", 1)
    with pytest.raises(ams.InputError) as error:
        ams.load(shop.root / "nothing")
    assert said.returncode == 1 and said.stderr.strip() == f"error: {error.value}"
    assert isinstance(error.value, ValueError)


def tables(flat: dict[str, list[Any]]) -> dict[str, Any]:
    table = pyarrow.table(flat)
    categories = {name: pandas.Series(flat[name], dtype="category") for name in ("user", "item")}
    return {
        "pyarrow": table,
        "batches of one row": pyarrow.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1)),
        "pandas": pandas.DataFrame(flat),
        "categories": pandas.DataFrame({**flat, **categories}),
        "polars": polars.DataFrame(flat),
        "duckdb": duckdb.from_arrow(table),
        "large": table.cast(pyarrow.schema([(f.name, large(f.type)) for f in table.schema])),
        "timestamps": table.set_column(
            table.schema.get_field_index("behaviors.time"),
            "behaviors.time",
            table["behaviors.time"].cast(pyarrow.list_(pyarrow.timestamp("s"))),
        ),
    }


def large(kind: Any) -> Any:
    if pyarrow.types.is_string(kind):
        return pyarrow.large_string()
    return pyarrow.large_list(large(kind.value_type)) if pyarrow.types.is_list(kind) else kind


def test_predict_has_the_bits_of_the_program(shop: Shop) -> None:
    expected = bits(shop.rates())
    assert len(expected) > len(shop.pages)
    for name, table in tables(shop.flat()).items():
        rates = shop.model.predict(table)
        assert bits(list(rates)) == expected, name
    assert isinstance(rates, array)
    assert numpy.asarray(rates).dtype == numpy.float32


def test_a_rate_does_not_depend_on_what_is_beside_it(shop: Shop) -> None:
    table = pyarrow.table(shop.flat())
    expected = numpy.asarray(shop.model.predict(table))
    for seed in range(3):
        order = numpy.random.default_rng(seed).permutation(len(table))
        assert (numpy.asarray(shop.model.predict(table.take(order))) == expected[order]).all()


def test_rows_of_one_user_need_not_have_one_history(shop: Shop) -> None:
    """Neighbors that are alike share their history; those that differ in anything do not."""
    table = pyarrow.table(shop.flat())
    row = next(it for it in table.to_pylist() if len(it["behaviors.item"]) > 2)
    items, times = row["behaviors.item"], row["behaviors.time"]
    changes: list[dict[str, Any]] = [
        {},
        {"position": type(row["position"])(3)},
        {"behaviors.item": items[:-1], "behaviors.time": times[:-1]},
        {"behaviors.item": items[::-1]},
        {},
        {"behaviors.item": [], "behaviors.time": []},
        {"age": None},
        {"user": None},
        {"user": None, "position": type(row["position"])(5)},
        {},
    ]
    rows = [{**row, **change} for change in changes]
    alone = [shop.model.predict(pyarrow.Table.from_pylist([it], schema=table.schema))[0] for it in rows]
    together = shop.model.predict(pyarrow.Table.from_pylist(rows, schema=table.schema))
    assert bits(list(together)) == bits(alone) and len(set(alone)) > 3


def test_many_rows_are_predicted_in_their_order(shop: Shop) -> None:
    table = pyarrow.table(shop.flat())
    times = 6000 // len(table) + 1
    many = pyarrow.concat_tables([table] * times).combine_chunks()
    assert bits(list(shop.model.predict(many))) == bits(list(shop.model.predict(table))) * times
    wrong = many.slice(0, 5000).to_pylist()
    wrong[4321] = {**wrong[4321], "item": None}
    # The row that its page view begins with.
    with pytest.raises(ams.InputError, match=r"^row 4[123]\d\d: request: candidates.item.* is empty"):
        shop.model.predict(pyarrow.Table.from_pylist(wrong, schema=table.schema))


def test_histories_have_several_spellings(shop: Shop) -> None:
    flat = shop.flat()
    items, times = flat.pop("behaviors.item"), flat.pop("behaviors.time")
    rows = list(zip(items, times))
    brands = dict(polars.read_csv(shop.shop / "items.csv").select("item", "brand").iter_rows())
    expected = bits(shop.rates())
    histories: dict[str, dict[str, list[Any]]] = {
        "structs": {"behaviors": [[{"item": i, "time": t} for i, t in zip(*row)] for row in rows]},
        "items": {"behaviors": items},
        "padded": {"behaviors.item": [[None, *row] for row in items], "behaviors.time": [[None, *row] for row in times]},
        "turned": {"behaviors.item": [row[::-1] for row in items], "behaviors.time": [row[::-1] for row in times]},
        "fields": {"behaviors.item": items, "behaviors.brand": [[brands[item] for item in row] for row in items]},
    }
    for name, columns in histories.items():
        rates = shop.model.predict(pyarrow.table({**flat, **columns}))
        # Behaviors of one time keep their order, which turning turns.
        distinct = [len(set(row)) == len(row) for row in times]
        for rate, of, usable in zip(bits(list(rates)), expected, distinct):
            assert rate == of or (name == "turned" and not usable), name
    none = shop.model.predict(pyarrow.table(flat))
    assert list(none) == list(shop.model.predict(pyarrow.table({**flat, "behaviors": [[]] * len(items)})))
    assert bits(list(none)) != expected


def test_samples_are_predicted_as_by_eval(shop: Shop) -> None:
    shop.run.evaluate()
    said = polars.read_parquet(shop.run.path / "predictions" / "test.parquet")
    parts = [polars.read_parquet(path) for path in sorted((shop.data / "test").glob("part-*.parquet"))]
    samples = polars.concat([part for part in parts if len(part)])
    assert bits(list(shop.model.predict(samples))) == bits(said["p"].to_list())


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.drop(["item"]), "no column `item`; found: user"),
        (lambda t: t.drop(["age"]), "no column `age`; found: user"),
        (lambda t: set_column(t, "item", pyarrow.array([{"a": 1}] * len(t))), "column `item`: it is of type struct"),
        (lambda t: set_column(t, "item", pyarrow.array([None] * len(t), pyarrow.string())), "candidates.item[0] is empty"),
        (lambda t: set_column(t, "behaviors.item", t["user"]), "`behaviors` has one value a row, expected lists"),
        (lambda t: set_column(t, "behaviors.time", t["behaviors.item"]), "is not a time of one meaning"),
        (lambda t: set_column(t, "behaviors.time", pyarrow.array([[1]] * len(t))), "expected"),
        (lambda t: set_column(t, "hour", pyarrow.array([[["1"]]] * len(t))), "column `hour`"),
        (lambda t: set_column(t, "impressions", pyarrow.array([[{"item": "1"}]] * len(t))), "no column `behaviors`"),
    ],
)
def test_a_wrong_table_is_an_input_error(shop: Shop, change: Any, words: str) -> None:
    with pytest.raises(ams.InputError) as error:
        shop.model.predict(change(pyarrow.table(shop.flat())))
    assert words in str(error.value)


def set_column(table: Any, name: str, column: Any) -> Any:
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)


def test_a_broken_stream_is_an_input_error(shop: Shop) -> None:
    table = pyarrow.table(shop.flat())
    for wrong in (None, 7, "events.parquet", [1, 2], shop.flat()):
        with pytest.raises(ams.InputError, match="has no __arrow_c_stream__"):
            shop.model.predict(wrong)  # type: ignore[arg-type]

    def raising() -> Iterator[Any]:
        yield table.to_batches()[0]
        raise RuntimeError("the tap is dry")

    with pytest.raises(ams.InputError, match="the tap is dry"):
        shop.model.predict(pyarrow.RecordBatchReader.from_batches(table.schema, raising()))
    reader = pyarrow.RecordBatchReader.from_batches(table.schema, table.to_batches())
    assert len(shop.model.predict(reader)) == len(table)
    try:
        assert len(shop.model.predict(reader)) == 0
    except ams.InputError as error:
        assert "cannot be read" in str(error)

    class Once:
        def __init__(self) -> None:
            self.capsule = table.__arrow_c_stream__()

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return self.capsule

    once = Once()
    shop.model.predict(once)
    with pytest.raises(ams.InputError, match="cannot be read"):
        shop.model.predict(once)

    class Wrong:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return 7

    with pytest.raises(ams.InputError, match="cannot be read"):
        shop.model.predict(Wrong())


def test_explain_and_similar(shop: Shop) -> None:
    page = shop.pages[0]
    user, items = page["user"], page["candidates"]["item"]
    explained = shop.model.explain(user, None, items, page["context"], top_k=3)
    ranked = shop.model.score(user, None, items, page["context"])
    assert [it.item for it in explained.candidates] == ranked.items[:3]
    for candidate in explained.candidates:
        assert len(candidate.raises) == len(explained.behaviors) == len(explained.rows)
    similar = shop.model.similar(items[0], top_k=4)
    assert len(similar.items) == 4 and similar.cosine == sorted(similar.cosine, reverse=True)
    with pytest.raises(ams.InputError, match="neither is there"):
        shop.model.similar()


def test_vectors_are_arrow(shop: Shop) -> None:
    images = pyarrow.table(shop.model.image_vectors())
    assert images.schema.field("vector").type == pyarrow.list_(pyarrow.field("item", pyarrow.float32(), False), 12)
    vectors = dict(zip(images["item"].to_pylist(), numpy.array(images["vector"].to_pylist())))
    item = shop.pages[0]["candidates"]["item"][0]
    similar = shop.model.similar(item, top_k=3)
    for other, cosine in zip(similar.items, similar.cosine):
        a, b = vectors[item], vectors[other]
        assert abs(a @ b / numpy.sqrt((a @ a) * (b @ b)) - cosine) < 1e-5
    with pytest.raises(ams.InputError, match="only a pre-rank network has vectors"):
        shop.model.item_vectors()
    with pytest.raises(ams.InputError, match="no tower \"nothing\""):
        shop.model.image_vectors("nothing")

    items = dict(zip(*[polars.DataFrame(shop.early.item_vectors())[name].to_list() for name in ("item", "vector")]))
    flat = polars.DataFrame(shop.flat())
    users = polars.DataFrame(shop.early.user_vectors(flat.drop("item", "hour", "position")))
    assert users["user"].to_list() == flat["user"].to_list()
    rates = shop.early.predict(flat)
    for user, item, rate in zip(users["vector"], flat["item"], rates):
        logit = float(numpy.dot(user, items[item]))
        assert abs(1 / (1 + numpy.exp(-logit)) - rate) < 1e-5
    assert len(ams.load(shop.models / "early").card["hash"]) == 64


def test_card(shop: Shop) -> None:
    card = shop.model.card
    assert (card["name"], card["version"], card["hash"]) == ("joint", 1, shop.published["hash"])
    assert card["meta"]["spec"]["fields"] and shop.model.samples == shop.pages
    assert repr(shop.model) == "<ams.Model joint version 1>"


def test_threads_score_together(shop: Shop) -> None:
    expected = [shop.model.score_page(page) for page in shop.pages]
    flat = pyarrow.table(shop.flat())
    rates = shop.model.predict(flat)
    wrong = []

    def ask() -> None:
        for _ in range(50):
            if [shop.model.score_page(page) for page in shop.pages] != expected or shop.model.predict(flat) != rates:
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_scores_and_refuses_commands(shop: Shop) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(ranked, (shop.pages[0],)) == shop.model.score_page(shop.pages[0]).items
        said = pool.apply(refused, (str(shop.root / "other"),))
    assert said.startswith(f"this process was forked from process {os.getpid()}") and "spawn" in said


def test_a_model_goes_to_another_process(shop: Shop) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(shop.model.score_page, (shop.pages[0],)) == shop.model.score_page(shop.pages[0])


def test_ctrl_c_ends_a_long_prediction(shop: Shop) -> None:
    flat = pyarrow.table(shop.flat())
    batches = itertools.repeat(flat.to_batches()[0], 1_000_000)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        shop.model.predict(pyarrow.RecordBatchReader.from_batches(flat.schema, batches))


MODELS: list[ams.Model] = []


@pytest.fixture(autouse=True)
def before_forks(shop: Shop) -> None:
    MODELS[:] = [shop.model]


def ranked(page: dict[str, Any]) -> list[str]:
    return MODELS[0].score_page(page).items


def refused(out: str) -> str:
    try:
        ams.synth(out, size="tiny")
    except ams.InputError as error:
        return str(error)
    return "nothing"


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_nothing_leaks(shop: Shop) -> None:
    flat = pyarrow.table(shop.flat())
    items = shop.pages[0]["candidates"]["item"][:2]

    def resident() -> int:
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(calls: int) -> None:
        for number in range(calls):
            shop.model.score("u", ["i000001"], items)
            if number % 100 == 0:
                shop.model.predict(flat)
                pyarrow.table(shop.model.image_vectors())
                with pytest.raises(ams.InputError):
                    shop.model.score(candidates=[])

    ask(5_000)
    before = resident()
    ask(100_000)
    assert resident() - before < 4 << 20
