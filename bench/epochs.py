#!/usr/bin/env python3
"""An epoch by ams, ids alone, with pictures, and by the preset `recommended`, beside FuxiCTR's DIN: impressions per second.

usage: bench/epochs.py WORK OUT DATASET.. [--rounds N] [--batch N] [--threads N] [--workers N] [--ams PROGRAM]

WORK     folder for runs and a Python environment if this Python has not got fuxictr and torch; finished trainings in it
         are not repeated
OUT      folder for results.jsonl and table.md
DATASET  folders of samples that ams prepared, such as those of bench/datasets.py; with features if they have pictures

Both programs read the same fields: those of the user, the context, the ad and of every behavior. Both: embeddings of 12,
attention [64, 16] that asks with all fields of the ad, layers [200, 80], Adam with .001, one epoch.

Of FuxiCTR everything is what its package on PyPI installs: DIN is model_zoo.LongCTR.DIN with its defaults (Dice in the
attention, ReLU, gradients clipped), unchanged, trained by its `fit`; lists are summed by its MaskedSumPooling. There
are two rows of it, by where batches come from:

- loader: its own LongCTRDataLoader, on Parquet files as it wants them, with --workers processes;
- memory: batches cut out of tensors in memory by this script, as wide as the longest history of the batch. This is no part
  of FuxiCTR, and what is left is mostly the time of its model and its optimizer.

(Its other loaders, npz and Ray's Parquet, have no place for histories of items with several fields each.)

There are three rows of ams: `base = "din"` on ids alone, which is what FuxiCTR computes; the joint image model, with the
pictures of the ad and of every behavior; and the network of the preset `recommended` with towers, as it is, aligned before.
Samples without pictures have `recommended` with ids alone, and no joint model. ams reads its sample files while it trains.
Seconds are of the epoch alone: not the import, not the start, not the alignment, not the evaluation. Systems take turns.
AUC, of the last round, says that they all learn.
"""
import argparse
import json
import pathlib
import pickle
import time

from peers.judge import judge_ams, metrics
from peers.packages import with_packages
from peers.program import AMS, ams, around

NEEDS = {"fuxictr": "fuxictr", "torch": "torch", "pyarrow": "pyarrow"}
DIM, ATTENTION, LAYERS, RATE = 12, [64, 16], [200, 80], 0.001
TITLES = {"din": "ams, DIN", "joint": "ams, joint with pictures", "recommended": "ams, `recommended`",
          "loader": "FuxiCTR's DIN, its loader", "memory": "FuxiCTR's DIN, batches from memory"}
PEERS = ["loader", "memory"]
NO_PICTURES = 'images = "none"\nsimilarity = "none"\ninteractions = "none"\n'


# The samples, as FuxiCTR's loader for histories wants them.

def theirs(field):
    """The name of a field there: a module of PyTorch has attributes called `type` and `float`."""
    return f"{field}_"


class Dataset:
    """A folder of samples."""

    def __init__(self, folder):
        about = json.loads((folder / "dataset.json").read_text())
        fields = {side: {field["name"]: field["multi"] for field in about["fields"] if field["side"] == side}
                  for side in ("user", "context", "ad", "behavior")}
        if fields["ad"] != fields["behavior"]:
            raise SystemExit(f"{folder}: fields of ads and of behaviors differ; FuxiCTR's loader wants the same")
        lists = [name for side in ("user", "context") for name, multi in fields[side].items() if multi]
        if lists:
            raise SystemExit(f"{folder}: {', '.join(lists)}: lists of a user or a context are not written here")
        self.folder, self.name = folder, folder.name
        self.user, self.context, self.item = list(fields["user"]), list(fields["context"]), list(fields["ad"])
        self.lists = [name for name, multi in fields["ad"].items() if multi]
        self.behaviors, self.counts = about["max_behaviors"], about["counts"]
        self.pictures = (folder / "images/images.json").exists()
        self.systems = ["din", *(["joint"] if self.pictures else []), "recommended"]


class Samples:
    """A row per impression, a history per group, fields per item. Things are numbers, 0 is none."""

    def __init__(self, dataset):
        import numpy as np
        import pyarrow.parquet
        self.user, self.context, self.item, self.lists = dataset.user, dataset.context, dataset.item, dataset.lists
        self.columns = ["user_index", "seq_len", "item_index", *map(theirs, self.user + self.context), "label"]
        items = pyarrow.parquet.read_table(dataset.folder / "items.parquet")
        self.vocabulary = {name: {} for name in self.user + self.context + self.item}
        self.of_items = {}
        for name in self.item:
            values = items[name].to_pylist()
            if name not in self.lists:
                self.of_items[theirs(name)] = np.array([0] + [self.number(name, value) for value in values])
                continue
            numbers = [[self.number(name, value) for value in of_item or []] for of_item in values]
            self.of_items[theirs(name)] = np.zeros((len(numbers) + 1, max(1, *map(len, numbers))), np.int64)
            for row, of_item in zip(self.of_items[theirs(name)][1:], numbers):
                row[:len(of_item)] = of_item
        # Of both halves: a group's history is a row.
        self.histories = []
        self.train = self.read(dataset.folder / "train")
        self.test = self.read(dataset.folder / "test")
        self.padded = np.zeros((len(self.histories), dataset.behaviors), np.int64)
        for row, history in zip(self.padded, self.histories):
            if history:
                row[-len(history):] = history

    def read(self, folder):
        """The rows of half a dataset."""
        import numpy as np
        import pyarrow.parquet
        rows = []
        for path in sorted(folder.glob("*.parquet")):
            for group in pyarrow.parquet.read_table(path).to_pylist():
                history = [self.vocabulary["item"][item["item"]] for item in group["behaviors"]]
                user = [self.number(name, group[name]) for name in self.user]
                for item in group["impressions"]:
                    number = self.vocabulary["item"][item["item"]]
                    context = [self.number(name, item[name]) for name in self.context]
                    rows.append([len(self.histories), len(history), number, *user, *context, item["label"]])
                self.histories.append(history)
        return np.array(rows)

    def number(self, field, text):
        known = self.vocabulary[field]
        return known.setdefault(text, len(known) + 1) if text else 0

    def write(self, folder):
        """The files of the loader."""
        import pandas
        folder.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(self.train, columns=self.columns).to_parquet(folder / "train.parquet")
        pandas.DataFrame({"full_item_seq": self.histories}).to_parquet(folder / "user_info.parquet")
        of_items = {name: list(values) for name, values in self.of_items.items()}
        pandas.DataFrame({"item_index": range(len(self.of_items[theirs("item")])), **of_items}).to_parquet(
            folder / "item_info.parquet")

    def features(self, folder):
        """What FuxiCTR calls a feature map."""
        from fuxictr.features import FeatureMap
        meta = [{name: {"source": "", "type": "meta"}} for name in ("user_index", "seq_len", "item_index")]
        numbers = {theirs(name): {"type": "categorical", "source": "item" if name in self.item else "user", "padding_idx": 0,
                          "vocab_size": len(known) + 1} for name, known in self.vocabulary.items()}
        for name in self.lists:
            numbers[theirs(name)] |= {"type": "sequence", "max_len": self.of_items[theirs(name)].shape[1],
                              "feature_encoder": "layers.MaskedSumPooling()"}
        fields = [{name: numbers[name]} for name in map(theirs, self.user + self.context + self.item)]
        path = folder / "feature_map.json"
        path.write_text(json.dumps({"dataset_id": "samples", "labels": ["label"], "features": meta + fields}))
        features = FeatureMap("samples", str(folder))
        features.load(str(path), {"embedding_dim": DIM})
        return features


class Memory:
    """Batches of `rows`, in random order if there is a seed; what LongCTRDataLoader makes of them."""

    def __init__(self, samples, rows, batch, seed=None):
        import torch
        self.rows, self.batch, self.seed = torch.from_numpy(rows), batch, seed
        self.histories = torch.from_numpy(samples.padded)
        self.of_items = {name: torch.from_numpy(values) for name, values in samples.of_items.items()}
        self.columns = samples.columns

    def __len__(self):
        return -(-len(self.rows) // self.batch)

    def __iter__(self):
        import torch
        order = torch.arange(len(self.rows))
        if self.seed is not None:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(self.seed))
        for numbers in order.split(self.batch):
            columns = dict(zip(self.columns, self.rows[numbers].unbind(1)))
            longest = max(1, int(columns["seq_len"].max()))
            history = self.histories[columns["user_index"]][:, -longest:]
            items = torch.cat([history, columns["item_index"][:, None]], 1).flatten()
            yield columns, {name: values[items] for name, values in self.of_items.items()}, (history > 0).float()


def kept(path, make):
    """What `make` made, now or before."""
    if not path.exists():
        made = make()
        path.write_bytes(pickle.dumps(made))
    return pickle.loads(path.read_bytes())


# The runs.

def train_fuxictr(options, samples, dataset, system, seed):
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
    files = options.work / "fuxictr" / dataset.name
    model = Timed(samples.features(files), embedding_dim=DIM, attention_hidden_units=ATTENTION,
                  dnn_hidden_units=LAYERS, learning_rate=RATE, optimizer="adam", loss="binary_crossentropy",
                  metrics=["AUC"], verbose=0, model_root=str(files), eval_steps=10**9)
    pathlib.Path(model.model_dir).mkdir(parents=True, exist_ok=True)
    if system == "loader":
        batches = LongCTRDataLoader(model.feature_map, str(files / "train.parquet"), str(files / "user_info.parquet"),
                                    str(files / "item_info.parquet"), batch_size=options.batch, shuffle=True,
                                    num_workers=options.workers, max_len=dataset.behaviors)
    else:
        batches = Memory(samples, samples.train, options.batch, seed)
    model.fit(batches, epochs=1)
    p = np.clip(model.predict(Memory(samples, samples.test, 8192)), 1e-7, 1 - 1e-7)
    users, labels = (samples.test[:, samples.columns.index(name)] for name in (theirs("user"), "label"))
    return {"rows_per_second": len(samples.train) / model.seconds, "threads": torch.get_num_threads(),
            **metrics(users, np.log(p) - np.log1p(-p), labels)}


def train_ams(options, dataset, system, seed):
    """Trains and evaluates ams; its row of results."""
    config, name = options.work / "config.toml", f"{dataset.name}-{system}"
    ours = (f'query_fields = {json.dumps(dataset.item)}\nembedding_dim = {DIM}\nattention = {ATTENTION}\n'
            f'mlp = {LAYERS}\n')
    epoch = f"epochs = 1\nbatch = {options.batch}\nlearning_rate = {RATE}\n"
    model, train = {
        "din": ('base = "din"\nimages = "none"\n' + ours, epoch),
        "joint": ('images = "joint"\n' + ours, epoch),
        "recommended": ('preset = "recommended"\n' + ("" if dataset.pictures else NO_PICTURES), "early_stop = 0\n" + epoch),
    }[system]
    config.write_text(f'name = "{name}"\nseed = {seed}\nruns = "{options.work / "runs"}"\n'
                      f'[data]\nsamples = "{dataset.folder}"\n[model]\n{model}[train]\n{train}')
    trained = ams(options.ams, "train", config, "--replace", "--threads", options.threads)
    run = options.work / "runs" / name
    evaluated = ams(options.ams, "eval", run, "--threads", options.threads)
    return {"rows_per_second": trained["impressions_per_second"], "threads": trained["threads"],
            **judge_ams(run, evaluated)}


def table(options, results, versions):
    """The table in Markdown."""
    lines = [f"An epoch of batch {options.batch:,}; {options.threads} threads, and {options.workers} more processes for "
             f"FuxiCTR's loader; median [least, most] of {options.rounds} rounds. {versions}", "",
             "| samples | | training rows/s | over its loader | over batches from memory | AUC |",
             "|---|---|---|---|---|---|"]
    for dataset in options.datasets:
        of = {name: [row for row in results if (row["dataset"], row["system"]) == (dataset.name, name)]
              for name in dataset.systems + PEERS}
        for name, rows in of.items():
            rates = {system: [row["rows_per_second"] for row in rows] for system, rows in of.items()}
            times = [around([a / b for a, b in zip(rates[name], rates[peer])], 2) if name not in PEERS else ""
                     for peer in PEERS]
            lines.append(f"| {dataset.name}, {dataset.counts['train']:,} rows, {dataset.counts['behaviors_mean']:.1f} "
                         f"behaviors | {TITLES[name]} | {around(rates[name], 0)} | {' | '.join(times)} "
                         f"| {rows[-1]['auc']:.4f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("datasets", type=pathlib.Path, nargs="+", metavar="DATASET")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes of FuxiCTR's loader; 0: none of its own")
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    from importlib.metadata import version
    import torch
    torch.set_num_threads(options.threads)
    options.datasets, results = [Dataset(folder.resolve()) for folder in options.datasets], []
    for dataset in options.datasets:
        samples = kept(options.work / f"{dataset.name}.pickle", lambda: Samples(dataset))
        samples.write(options.work / "fuxictr" / dataset.name)
        for turn in range(1, options.rounds + 1):
            for system in dataset.systems + PEERS:
                done = options.work / "done" / f"{dataset.name}-{options.batch}-{turn}-{system}.json"
                if not done.exists():
                    row = (train_fuxictr(options, samples, dataset, system, turn) if system in PEERS
                           else train_ams(options, dataset, system, turn))
                    done.parent.mkdir(exist_ok=True)
                    done.write_text(json.dumps(row))
                row = json.loads(done.read_text())
                print(dataset.name, turn, system, f"{row['rows_per_second']:,.0f} rows/s, AUC {row['auc']:.4f}", flush=True)
                results.append({"dataset": dataset.name, "system": system, "round": turn, **row})
    versions = f"fuxictr {version('fuxictr')}, torch {version('torch')}."
    (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    (options.out / "table.md").write_text(table(options, results, versions))


if __name__ == "__main__":
    main()
