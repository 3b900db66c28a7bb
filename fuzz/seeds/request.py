#!/usr/bin/env python3
"""Small requests of every kind, and some that are none: what the fuzzer of requests begins with.

usage: fuzz/seeds/request.py

Writes fuzz/seeds/request/. The first byte of a file says what speaks, see `crates/serve/src/fuzzing.rs`.
"""
import json
import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent / "request"

PAGE = {
    "user": {"id": "u1", "features": {"age": 25, "tags": ["a", None, 4.2]},
             "behaviors": {"item": ["5", None, 9], "time": [1700000200, None, "2023-11-14T22:15:00Z"],
                           "features": {"category": [None, [], "x"]}}},
    "context": {"hour": "12", "new": True},
    "candidates": {"item": ["3", 4], "bid": [1, None], "features": {"price": [4.2, 1e300]}},
    "options": {"top_k": 10, "deadline_ms": 50.0},
}


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


TENSORS = {
    "id": "7", "parameters": None, "outputs": [{"name": "ctr"}],
    "inputs": [
        tensor("candidates.item", "INT64", [1, 2], [[3, 4]]),
        tensor("candidates.bid", "FP32", [2], [0.5, None]),
        tensor("candidates.features.tags", "BYTES", [2, 2], ["a", "b", "c", ""]),
        tensor("user.behaviors.item", "BYTES", [3], ["5", "", "9"]),
        tensor("user.behaviors.time", "UINT64", [3], [1700000200, 0, 1700000100]),
        tensor("context.new", "BOOL", [1], [True]),
        tensor("user.features.age", "FP16", [], 25),
    ],
}


def binary():
    """Tensors as bytes behind the JSON; two bytes before it say how long that is."""
    parts = [
        ("candidates.item", "BYTES", [2], b"\1\0\0\0" + b"3" + b"\1\0\0\0" + b"4"),
        ("candidates.bid", "FP64", [2], struct.pack("<2d", 1, 0.5)),
        ("user.features.age", "BF16", [1], struct.pack("<H", 0x41C8)),
        ("user.behaviors.item", "INT32", [2], struct.pack("<2i", 5, -9)),
        ("user.behaviors.time", "INT64", [2], struct.pack("<2q", 1_700_000_200, 1_700_000_100_000)),
    ]
    inputs = [{"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
              for name, datatype, shape, data in parts]
    text = json.dumps({"inputs": inputs}).encode()
    return struct.pack("<H", len(text)) + text + b"".join(data for *_, data in parts)


def field(number, value):
    """One field of a message: a whole number, a float, a text, or a message in it."""
    if isinstance(value, int):
        out, value = b"", value % (1 << 64)
        while value > 127:
            out, value = out + bytes([value % 128 + 128]), value // 128
        return bytes([number << 3]) + out + bytes([value])
    if isinstance(value, float):
        return bytes([number << 3 | 1]) + struct.pack("<d", value)
    value = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(value)]) + value


def messages():
    """`ams.v1.Ranking` and `inference.GRPCInferenceService`."""
    cell = lambda *values: b"".join(field(1, value) for value in values)
    named = lambda name, value: field(1, name) + field(2, value)
    column = field(1, cell("x")) + field(1, field(2, 1))
    behaviors = field(1, "5") + field(1, "9") + field(2, 1_700_000_200) + field(2, 1_700_000_100_000)
    user = field(1, "u1") + field(2, named("tags", cell("a", "b"))) + field(3, behaviors)
    shown = field(1, "3") + field(1, "4") + field(2, 1.0) + field(2, 0.5) + field(3, named("category", column))
    view = field(1, user) + field(2, named("hour", cell("12"))) + field(3, shown) + field(4, field(1, 10))
    yield "score", 3, field(1, "m") + field(2, 1) + field(3, view)
    yield "page", 4, field(1, "m") + field(3, view) + field(4, "p") + field(5, 3)
    items = field(1, "candidates.item") + field(2, "INT64") + field(3, 2) + field(5, field(3, 3) + field(3, 4))
    yield "contents", 5, field(1, "m") + field(3, "7") + field(5, items)
    raw = field(1, "candidates.item") + field(2, "BYTES") + field(3, 1)
    yield "raw", 5, field(1, "m") + field(5, raw) + field(7, b"\1\0\0\0" + b"3")


def main():
    OUT.mkdir(exist_ok=True)

    def save(name, kind, data):
        data = json.dumps(data).encode() if isinstance(data, dict) else data
        (OUT / name).write_bytes(bytes([kind]) + data)

    save("page.json", 0, PAGE)
    save("least.json", 0, {"candidates": {"item": ["1"]}})
    save("mark.json", 0, b"\xef\xbb\xbf" + json.dumps({"user": [], "candidates": {"item": [1]}}).encode())
    save("nan.json", 0, b'{"candidates": {"item": ["1"], "bid": [NaN]}}')
    save("utf16.json", 0, json.dumps(PAGE).encode("utf-16"))
    save("tensors.json", 1, TENSORS)
    save("binary", 2, binary())
    for name, kind, data in messages():
        save(name, kind, data)
    save("changes.json", 6, {
        "pictures": [{"name": "a.png", "feature": [0.5, 1]}], "remove_pictures": None, "remove_items": [7],
        "items": [{"item": 1, "picture": None, "features": {"price": 4.2}}]})
    save("similar.json", 6, {"item": "1", "picture": None, "top_k": 3})


if __name__ == "__main__":
    main()
