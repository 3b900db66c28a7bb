#!/usr/bin/env python3
"""Epochs on MovieLens by ams, ids alone and with posters, beside FuxiCTR's DIN: impressions per second.

usage: bench/fuxictr_din.py DATA WORK OUT [--rounds N] [--batch N] [--threads N] [--workers N] [--ams PROGRAM]

DATA  folder with ratings.dat, movies.dat, users.dat, features/ (see bench/notes/ablations.md)
WORK  folder for the dataset, runs, and a Python environment if this Python has not got fuxictr and torch; finished
      trainings in it are not repeated
OUT   folder for results.jsonl and table.md

Both read the samples of `ams import movielens` (explicit: a rating of 4 or 5 is a click): user, gender, age, occupation,
zip; item, genres, year of the ad and of at most 32 behaviors. Both: embeddings of 12, attention [64, 16] that asks with
all three fields of the ad, layers [200, 80], Adam with .001, one epoch.

Of FuxiCTR everything is what its package on PyPI installs: DIN is model_zoo.LongCTR.DIN with its defaults (Dice in the
attention, ReLU, gradients clipped), unchanged, trained by its `fit`; genres are summed by its MaskedSumPooling. There
are two rows of it, by where batches come from:

- loader: its own LongCTRDataLoader, on Parquet files as it wants them, with --workers processes;
- memory: batches cut out of tensors in memory by this script, which is as fast as that can be. This is no part of FuxiCTR,
  and what is left is the time of its model and its optimizer alone.

(Its other loaders, npz and Ray's Parquet, have no place for histories of items with several fields each.)

There are two rows of ams: `base = "din"` on ids alone, which is what FuxiCTR computes, and the joint image model, with the posters of the ad
and of every behavior. ams reads its sample files while it trains. Seconds are of the epoch alone: not the import, not the
start, not the evaluation. Systems take turns. AUC, of the last round, says that they all learn.
"""
import argparse
import json
import pathlib
import pickle
import time

from peers.judge import judge_ams, metrics
from peers.movielens import BEHAVIORS, ITEM, USER, imported, with_posters
from peers.packages import with_packages
from peers.program import AMS, ams, around

NEEDS = {"fuxictr": "fuxictr", "torch": "torch", "pyarrow": "pyarrow"}
DIM, ATTENTION, LAYERS, RATE = 12, [64, 16], [200, 80], 0.001
OURS = {
    "din": 'base = "din"\nimages = "none"',
    "joint": 'images = "joint"',
}
TITLES = {"din": "ams, DIN", "joint": "ams, joint with posters", "loader": "FuxiCTR's DIN, its loader",
          "memory": "FuxiCTR's DIN, batches from memory"}


# The samples, as FuxiCTR's loader for histories wants them.

class Samples:
    """A row per impression, a history per group, fields per item. Things are numbers, 0 is none."""

    COLUMNS = ["user_index", "seq_len", "item_index", *USER, "label"]

    def __init__(self, dataset):
        import numpy as np
        import pyarrow.parquet
        items = pyarrow.parquet.read_table(dataset / "items.parquet")
        self.vocabulary = {name: {} for name in USER + ITEM}
        genres = [[self.number("genres", genre) for genre in of_item or []] for of_item in items["genres"].to_pylist()]
        self.genres = np.zeros((len(genres) + 1, max(map(len, genres))), np.int64)
        for row, of_item in zip(self.genres[1:], genres):
            row[:len(of_item)] = of_item
        self.years = np.array([0] + [self.number("year", year) for year in items["year"].to_pylist()])
        self.items = np.array([0] + [self.number("item", item) for item in items["item"].to_pylist()])
        # Of both halves: a group's history is a row.
        self.histories = []
        self.train = self.read(dataset / "train")
        self.test = self.read(dataset / "test")
        self.padded = np.zeros((len(self.histories), BEHAVIORS), np.int64)
        for row, history in zip(self.padded, self.histories):
            row[BEHAVIORS - len(history):] = history

    def read(self, folder):
        """The rows of half a dataset."""
        import numpy as np
        import pyarrow.parquet
        rows = []
        for path in sorted(folder.glob("*.parquet")):
            for group in pyarrow.parquet.read_table(path).to_pylist():
                history = [self.vocabulary["item"][item["item"]] for item in group["behaviors"]]
                user = [self.number(name, group[name]) for name in USER]
                for item in group["impressions"]:
                    number = self.vocabulary["item"][item["item"]]
                    rows.append([len(self.histories), len(history), number, *user, item["label"]])
                self.histories.append(history)
        return np.array(rows)

    def number(self, field, text):
        known = self.vocabulary[field]
        return known.setdefault(text, len(known) + 1) if text else 0

    def write(self, folder):
        """The files of the loader."""
        import pandas
        folder.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(self.train, columns=self.COLUMNS).to_parquet(folder / "train.parquet")
        pandas.DataFrame({"full_item_seq": self.histories}).to_parquet(folder / "user_info.parquet")
        pandas.DataFrame({"item_index": range(len(self.items)), "item": self.items, "genres": list(self.genres),
                          "year": self.years}).to_parquet(folder / "item_info.parquet")

    def features(self, folder):
        """What FuxiCTR calls a feature map."""
        from fuxictr.features import FeatureMap
        meta = [{name: {"source": "", "type": "meta"}} for name in ("user_index", "seq_len", "item_index")]
        numbers = {name: {"type": "categorical", "source": "user" if name in USER else "item", "padding_idx": 0,
                          "vocab_size": len(known) + 1} for name, known in self.vocabulary.items()}
        numbers["genres"] |= {"type": "sequence", "max_len": self.genres.shape[1],
                              "feature_encoder": "layers.MaskedSumPooling()"}
        fields = [{name: numbers[name]} for name in USER + ITEM]
        path = folder / "feature_map.json"
        path.write_text(json.dumps({"dataset_id": "movielens", "labels": ["label"], "features": meta + fields}))
        features = FeatureMap("movielens", str(folder))
        features.load(str(path), {"embedding_dim": DIM})
        return features


class Memory:
    """Batches of `rows`, in random order if there is a seed; what LongCTRDataLoader makes of them."""

    def __init__(self, samples, rows, batch, seed=None):
        import torch
        self.rows, self.batch, self.seed = torch.from_numpy(rows), batch, seed
        self.histories = torch.from_numpy(samples.padded)
        self.of_items = {"item": torch.from_numpy(samples.items), "genres": torch.from_numpy(samples.genres),
                         "year": torch.from_numpy(samples.years)}

    def __len__(self):
        return -(-len(self.rows) // self.batch)

    def __iter__(self):
        import torch
        order = torch.arange(len(self.rows))
        if self.seed is not None:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(self.seed))
        for numbers in order.split(self.batch):
            columns = dict(zip(Samples.COLUMNS, self.rows[numbers].unbind(1)))
            history = self.histories[columns["user_index"]]
            items = torch.cat([history, columns["item_index"][:, None]], 1).flatten()
            yield columns, {name: values[items] for name, values in self.of_items.items()}, (history > 0).float()


def kept(path, make):
    """What `make` made, now or before."""
    if not path.exists():
        made = make()
        path.write_bytes(pickle.dumps(made))
    return pickle.loads(path.read_bytes())


# The runs.

def train_fuxictr(options, samples, system, seed):
    """Trains FuxiCTR's DIN for an epoch; its row of results."""
    import numpy as np
    import torch
    from fuxictr.pytorch.torch_utils import seed_everything
    from model_zoo.LongCTR.DIN.DIN import DIN
    from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

    class Timed(DIN):
        """The epoch is timed. `fit` ends with the weights it saved last: those after the epoch."""

        def train_epoch(self, batches):
            begun = time.monotonic()
            super().train_epoch(batches)
            self.seconds = time.monotonic() - begun
            self.save_weights(self.checkpoint)

    seed_everything(seed)
    files = options.work / "fuxictr"
    model = Timed(samples.features(files), embedding_dim=DIM, attention_hidden_units=ATTENTION,
                  dnn_hidden_units=LAYERS, learning_rate=RATE, optimizer="adam", loss="binary_crossentropy",
                  metrics=["AUC"], verbose=0, model_root=str(files), eval_steps=10**9)
    pathlib.Path(model.model_dir).mkdir(parents=True, exist_ok=True)
    if system == "loader":
        batches = LongCTRDataLoader(model.feature_map, str(files / "train.parquet"), str(files / "user_info.parquet"),
                                    str(files / "item_info.parquet"), batch_size=options.batch, shuffle=True,
                                    num_workers=options.workers, max_len=BEHAVIORS)
    else:
        batches = Memory(samples, samples.train, options.batch, seed)
    model.fit(batches, epochs=1)
    p = np.clip(model.predict(Memory(samples, samples.test, 8192)), 1e-7, 1 - 1e-7)
    users, labels = (samples.test[:, Samples.COLUMNS.index(name)] for name in ("user", "label"))
    return {"rows_per_second": len(samples.train) / model.seconds, "threads": torch.get_num_threads(),
            **metrics(users, np.log(p) - np.log1p(-p), labels)}


def train_ams(options, dataset, system, seed):
    """Trains and evaluates ams; its row of results."""
    config = options.work / "config.toml"
    config.write_text(
        f'name = "{system}"\nseed = {seed}\nruns = "{options.work / "runs"}"\n[data]\nsamples = "{dataset}"\n'
        f'[model]\n{OURS[system]}\nquery_fields = {json.dumps(ITEM)}\n'
        f'embedding_dim = {DIM}\nattention = {ATTENTION}\nmlp = {LAYERS}\n'
        f'[train]\nepochs = 1\nbatch = {options.batch}\nlearning_rate = {RATE}\n')
    trained = ams(options.ams, "train", config, "--replace", "--threads", options.threads)
    run = options.work / "runs" / system
    evaluated = ams(options.ams, "eval", run, "--threads", options.threads)
    return {"rows_per_second": trained["impressions_per_second"], "threads": trained["threads"],
            **judge_ams(run, evaluated)}


def table(options, counts, results, versions):
    """The table in Markdown."""
    of = {name: [row for row in results if row["system"] == name] for name in TITLES}
    lines = [f"{counts['train']:,} training impressions of MovieLens 1M, {counts['behaviors_mean']:.1f} behaviors a group; "
             f"one epoch of batch {options.batch:,}; {options.threads} threads, and {options.workers} more processes for "
             f"the loader; median [least, most] of {options.rounds} rounds. {versions}", "",
             "| | training rows/s | AUC |", "|---|---|---|"]
    for name, rows in of.items():
        lines.append(f"| {TITLES[name]} | {around([row['rows_per_second'] for row in rows], 0)} | {rows[-1]['auc']:.4f} |")
    lines += ["", "| times as many rows/s, by round | " + " | ".join(TITLES[peer] for peer in ("loader", "memory")) + " |",
              "|---|---|---|"]
    for ours in OURS:
        ratios = [around([a["rows_per_second"] / b["rows_per_second"] for a, b in zip(of[ours], of[peer])], 2)
                  for peer in ("loader", "memory")]
        lines.append(f"| {TITLES[ours]} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes of FuxiCTR's loader; 0: none of its own")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(TITLES), help=argparse.SUPPRESS)
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    from importlib.metadata import version
    import torch
    torch.set_num_threads(options.threads)
    dataset = options.work / "explicit"
    counts = imported(options.ams, dataset, options.data)
    with_posters(options.ams, dataset, options.data)
    samples, results = kept(options.work / "samples.pickle", lambda: Samples(dataset)), []
    samples.write(options.work / "fuxictr")
    for turn in range(1, options.rounds + 1):
        for system in options.systems:
            done = options.work / "done" / f"{options.batch}-{turn}-{system}.json"
            if not done.exists():
                train = train_ams if system in OURS else train_fuxictr
                row = train(options, dataset if system in OURS else samples, system, turn)
                done.parent.mkdir(exist_ok=True)
                done.write_text(json.dumps(row))
            row = json.loads(done.read_text())
            print(turn, system, f"{row['rows_per_second']:,.0f} rows/s, AUC {row['auc']:.4f}", flush=True)
            results.append({"system": system, "round": turn, **row})
    versions = f"fuxictr {version('fuxictr')}, torch {version('torch')}."
    (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    (options.out / "table.md").write_text(table(options, counts, results, versions))


if __name__ == "__main__":
    main()
