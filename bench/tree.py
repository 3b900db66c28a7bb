#!/usr/bin/env python3
"""A boosted tree on how alike an ad's picture is to those of the user's history, to hold a model against.

usage: bench/tree.py DATASET.. [--vectors VECTORS.parquet] [--components N] [--shuffle SEED] [--seeds N]

DATASET   a folder of `ams prepare` with its pictures encoded, as bench/datasets.py makes them
VECTORS   vectors that `ams vectors --images RUN` wrote, of an alignment; else the features of DATASET, of which N
          half-whitened principal components are taken
SEED      every item has another item's picture: the twin

Each line has the AUC of the test, and of its cold items, which no training impression showed. The tree sees nine
numbers of the cosines and no id; its iterations are chosen on the newest tenth of the training groups.

Needs numpy, pyarrow, scikit-learn and xxhash from PyPI.
"""
import argparse
import json
import pathlib
import struct

import numpy as np
import pyarrow.parquet as pq
import xxhash
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score

DTYPES = {"U64": "<u8", "F16": "<f2", "F32": "<f4", "I8": "i1"}
DAY = 86_400.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=pathlib.Path, metavar="DATASET")
    parser.add_argument("--vectors", type=pathlib.Path, metavar="VECTORS.parquet")
    parser.add_argument("--components", type=int, default=64, metavar="N")
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    for dataset in options.datasets:
        names, vectors = read_vectors(options.vectors) if options.vectors else read_store(dataset / "images")
        if not options.vectors:
            vectors = half_whitened(vectors, options.components)
        if options.shuffle is not None:
            vectors = vectors[np.random.default_rng(options.shuffle).permutation(len(vectors))]
        rows = {name: row for row, name in enumerate(names)}
        vectors = normalized(vectors)
        train = samples(dataset, "train", rows, vectors)
        test = samples(dataset, "test", rows, vectors)
        cold = ~np.isin(test["item"], train["item"])
        for seed in range(1, options.seeds + 1):
            tree, iterations = fit(train, seed)
            scores = tree.predict_proba(test["x"])[:, 1]
            print(
                f"{dataset.name} seed {seed}: {iterations} iterations, AUC {roc_auc_score(test['label'], scores):.4f}, "
                f"log loss {log_loss(test['label'], scores):.4f}, cold {area(test['label'][cold], scores[cold])}",
                flush=True,
            )


def area(labels, scores):
    return f"{roc_auc_score(labels, scores):.4f}" if len(set(labels)) == 2 else "-"


def read_store(folder):
    """The names (hashed) and rows of a feature store."""
    card = json.loads((folder / "images.json").read_text())
    keys, rows, named = [], [], []
    for name in sorted(of for of in card["files"] if of.endswith(".safetensors")):
        tensors = safetensors(folder / name)
        if name.startswith("names-"):
            named.append((tensors["name"], tensors["key"]))
        else:
            keys.append(tensors["keys"])
            rows.append(tensors["rows"].astype(np.float32))
    place = {key: row for row, key in enumerate(np.concatenate(keys).tolist())}
    rows = np.concatenate(rows)
    names, of = zip(*((name, place[key]) for part in named for name, key in zip(*map(np.ndarray.tolist, part)) if key in place))
    return names, rows[list(of)]


def safetensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, of in header.items():
        if name != "__metadata__" and of["dtype"] in DTYPES:
            begin, end = of["data_offsets"]
            values = np.frombuffer(data[8 + length + begin : 8 + length + end], DTYPES[of["dtype"]])
            found[name] = values.reshape(of["shape"])
    return found


def read_vectors(path):
    table = pq.read_table(path)
    image, vector = table.column_names[:2]
    vectors = table[vector].combine_chunks()
    width = len(vectors[0])
    return [hashed(name) for name in table[image].to_pylist()], np.asarray(vectors.flatten()).reshape(-1, width)


def hashed(name):
    return xxhash.xxh3_64_intdigest(b"picture\0" + name.encode())


def normalized(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def half_whitened(vectors, components):
    """Principal components of rows of length 1, each divided by the fourth root of its variance."""
    vectors = normalized(vectors)
    vectors = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(vectors, rowvar=False))
    order = np.argsort(values)[::-1][:components]
    scale = np.maximum(values[order], 1e-12) ** 0.25
    return (vectors @ directions[:, order] / scale).astype(np.float32)


def samples(dataset, split, rows, vectors):
    """Numbers, labels, times and items of every impression."""
    x, labels, times, items = [], [], [], []
    for path in sorted((dataset / split).glob("part-*.parquet")):
        for group in pq.read_table(path, columns=["behaviors", "impressions"]).to_pylist():
            seen = [(rows.get(hashed(b["image"])), b["time"]) for b in group["behaviors"] if b["image"]]
            seen = [(row, time) for row, time in seen if row is not None]
            history = vectors[[row for row, _ in seen]] if seen else None
            for impression in group["impressions"]:
                row = rows.get(hashed(impression["image"])) if impression["image"] else None
                ages = np.array([impression["time"] - time for _, time in seen]) / DAY
                x.append(numbers(history, ages, None if row is None else vectors[row]))
                labels.append(impression["label"])
                times.append(group["impressions"][0]["time"])
                items.append(impression["item"])
    return {"x": np.array(x, np.float32), "label": np.array(labels), "time": np.array(times), "item": np.array(items)}


def numbers(history, ages, ad):
    """Statistics of the cosines of one impression; missing without a picture or a history."""
    if history is None or ad is None:
        return [np.nan] * 8 + [0.0]
    cosines = history @ ad
    best = np.sort(cosines)[::-1]
    weights = 1.0 / (1.0 + np.maximum(ages, 0.0))
    recent = (weights * cosines).sum() / weights.sum()
    tops = [best[0], best[:3].mean(), best[:5].mean(), best[-1]]
    return [*tops, cosines.mean(), cosines[0], recent, cosines.std(), np.log1p(len(cosines))]


def fit(train, seed):
    """A tree of all training samples, with the iterations that the newest tenth wants."""
    new = train["time"] >= np.quantile(train["time"], 0.9)
    of = {"learning_rate": 0.05, "max_leaf_nodes": 15, "min_samples_leaf": 100, "random_state": seed, "early_stopping": False}
    trial = HistGradientBoostingClassifier(max_iter=300, **of).fit(train["x"][~new], train["label"][~new])
    losses = [log_loss(train["label"][new], p[:, 1]) for p in trial.staged_predict_proba(train["x"][new])]
    iterations = int(np.argmin(losses)) + 1
    return HistGradientBoostingClassifier(max_iter=iterations, **of).fit(train["x"], train["label"]), iterations


main()
