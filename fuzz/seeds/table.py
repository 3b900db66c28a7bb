"""Writes the seeds of the target `table` into fuzz/seeds/table: small files of every format behind the byte that chooses options.

    pip install pyarrow zstandard && python3 fuzz/seeds/table.py
"""

import decimal
import gzip
import io
import pathlib
import uuid

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import zstandard

HERE = pathlib.Path(__file__).parent / "table"
CSV = 'user,item,price,text\n007,a,4.2,"one, ""two""\nthree"\n8,,,\n'
JSON = '{"user": "007", "price": 4.2, "tags": ["a", null, 1], "more": {"x": 1}}\n{"user": 8, "price": NaN}\n'


def table(strange):
    columns = {
        "user": pa.array(["007", None]),
        "item": pa.array([1, 2]),
        "price": pa.array([4.2, float("nan")], pa.float32()),
        "brand": pa.array(["x", "x"]).dictionary_encode(),
        "time": pa.array([0, 1], pa.timestamp("us", "UTC")),
        "tags": pa.array([["a", None], []]),
        "cost": pa.array([decimal.Decimal("12.50"), None]),
    }
    if strange:
        columns["about"] = pa.array([{"a": 1}, {"a": 2}])
        columns["map"] = pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64()))
        columns["bytes"] = pa.array([b"\xff", b"x"])
        columns["id"] = pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes], pa.binary(16))
    return pa.table(columns)


def parquet(strange, **options):
    to = io.BytesIO()
    pa.parquet.write_table(table(strange), to, **options)
    return to.getvalue()


def stream():
    to = io.BytesIO()
    with pa.ipc.new_stream(to, table(True).schema) as writer:
        writer.write_table(table(True))
    return to.getvalue()


def feather(compression):
    to = io.BytesIO()
    pa.feather.write_feather(table(False), to, compression=compression)
    return to.getvalue()


HERE.mkdir(exist_ok=True)
for name, first, content in [
    ("plain.csv", 0, CSV.encode()),
    ("none.csv", 3, CSV.encode()),
    ("backslash.csv", 2, CSV.replace('""two""', '\\"two\\"').encode()),
    ("tabs.tsv", 8, CSV.replace(",", "\t").encode()),
    ("colons.dat", 12, CSV.replace(",", "::").encode()),
    ("hive.txt", 0, CSV.replace(",", "\x01").encode()),
    ("excel.csv", 0, ("sep=;\n" + CSV.replace(",", ";")).encode()),
    ("mac.csv", 0, CSV.replace("\n", "\r").encode()),
    ("wide.csv", 0, CSV.encode("utf-16")),
    ("latin.csv", 16 | 32, "name\ncaf\xe9\n".encode("latin-1")),
    ("packed.csv.gz", 0, gzip.compress(CSV.encode(), mtime=0)),
    ("packed.csv.zst", 0, zstandard.compress(CSV.encode())),
    ("lines.jsonl", 0, JSON.encode()),
    ("array.json", 0, ("[" + ",\n".join(JSON.splitlines()) + "]").encode()),
    ("spread.json", 0, JSON.replace(", ", ",\n").encode()),
    ("plain.parquet", 0, parquet(False)),
    ("strange.parquet", 0, parquet(True, compression="zstd")),
    ("old.parquet", 0, parquet(False, compression="gzip", version="1.0", use_deprecated_int96_timestamps=True)),
    ("stream.arrows", 0, stream()),
    ("plain.feather", 0, feather("uncompressed")),
    ("lz4.feather", 0, feather("lz4")),
]:
    (HERE / name).write_bytes(bytes([first]) + content)
