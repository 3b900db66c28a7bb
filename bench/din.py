#!/usr/bin/env python3
"""DIN by ams beside DIN by deepctr-torch: the same MovieLens samples, ids alone, the same widths.

usage: bench/din.py DATA WORK OUT [--seeds N] [--threads N] [--query item,genres] [--base din]
                    [--peers shipped,alike] [--set KEY=VALUE ...] [--ams PROGRAM]

DATA  folder with ratings.dat, movies.dat, users.dat (see bench/notes/ablations.md)
WORK  folder for the dataset, runs, and a Python environment if this Python has not got deepctr-torch and pyarrow;
      finished trainings in it are not repeated
OUT   folder for results.jsonl and table.md

Both read the sample files of `ams import movielens` (explicit: a rating of 4 or 5 is a click), so split, histories
and fields are the same: user, gender, age, occupation, zip; item, genres, year of the ad and of at most 32 behaviors.
Both: embeddings of 12, attention [64, 16] with the fields of --query, the other fields of the behaviors summed,
layers [200, 80], Adam with .001, one epoch of batch 1,024 in an order of their own, no regularization. An id that
training has not seen is a row of zeros.

Of deepctr-torch these are the model, its loss and the optimizer. Two things are ours. Its DIN takes one value per
behavior and field, so with genres in the query a subclass sums the rows of a behavior's genres, as ams does, before
the library's attention layer sees them. And batches are slices of one array: the library's own `fit` collects them
row by row, which would only be slower. There are two peers, and both are DINs one meets:

- shipped: the library's defaults: ReLU, Dice in the attention (which normalizes by batch), embeddings and hidden
  layers from a normal distribution of deviation .0001; only its L2 is off.
- alike: PReLU throughout and first weights of the size that ams draws.

Rows per second are of training alone. ams reads its sample files meanwhile; the peer has everything in memory, and the
time this takes is not counted. GAUC, AUC and log loss of all come from peers/judge.py, which is held against what
`ams eval` says.
"""
import argparse
import json
import pathlib
import statistics
import time

from peers.judge import METRICS, judge_ams, metrics
from peers.movielens import BEHAVIORS, ITEM, USER, imported
from peers.packages import with_packages
from peers.program import AMS, ams

NEEDS = {"deepctr_torch": "deepctr-torch", "requests": "requests", "pyarrow": "pyarrow", "torch": "torch"}
DIM, ATTENTION, LAYERS, RATE, BATCH = 12, [64, 16], [200, 80], 0.001, 1024
PEERS = {
    "shipped": {"dnn_activation": "relu", "att_activation": "Dice"},
    "alike": {"dnn_activation": "prelu", "att_activation": "prelu"},
}
# The same with a learning rate of its own for rows: ams moves a row only in steps that use it, torch's Adam in all.
OURS = {"ams": [], "ams-rows": ["train.rows_learning_rate=0.008"]}
TITLES = {"ams": "ams", "ams-rows": "ams, rows at .008", "shipped": "deepctr-torch, as shipped",
          "alike": "deepctr-torch, alike"}


# The peer.

class Samples:
    """Samples as one array, a row per impression; ids are numbers of the training's vocabulary, 0 is none."""

    def __init__(self, dataset):
        import pyarrow.parquet
        genres = pyarrow.parquet.read_table(dataset / "items.parquet")["genres"].to_pylist()
        self.genres = max(len(of_item or []) for of_item in genres)
        self.vocabulary = {name: {} for name in USER + ITEM}
        wide = [(name, self.genres if name == "genres" else 1) for name in ITEM]
        # (name, field, width): the ad, then the behaviors (`hist_`), among them how many there are.
        self.columns = [(name, name, 1) for name in USER] + [(name, name, width) for name, width in wide]
        self.columns += [(f"hist_{name}", name, BEHAVIORS * width) for name, width in wide]
        self.columns.insert(len(USER + ITEM) + 1, ("length", None, 1))
        self.places, at = {}, 0
        for name, _, width in self.columns:
            self.places[name] = (at, at + width)
            at += width
        self.train = self.read(dataset / "train", learn=True)
        self.test = self.read(dataset / "test", learn=False)

    def read(self, folder, learn):
        """(samples, users, labels) of half a dataset."""
        import numpy as np
        import pyarrow.parquet
        parts = []
        for path in sorted(folder.glob("*.parquet")):
            groups = pyarrow.parquet.read_table(path).to_pylist()
            count = sum(len(group["impressions"]) for group in groups)
            # Numbers up to 32,767 are enough for these data, and keep the array small.
            array = np.zeros((count, self.places[self.columns[-1][0]][1]), np.int16)
            labels = np.zeros(count, np.int16)
            users = []
            for group in groups:
                first, shown = len(users), group["impressions"]
                users += [group["user"]] * len(shown)
                rows = array[first:len(users)]
                for name in USER:
                    rows[:, self.places[name][0]] = self.number(name, group[name], learn)
                for row, item in zip(rows, shown):
                    self.put(row, "", 0, item, learn)
                labels[first:len(users)] = [item["label"] for item in shown]
                behaviors = group["behaviors"] or []
                for at, item in enumerate(behaviors):
                    self.put(rows[0], "hist_", at, item, learn)
                rows[0, self.places["length"][0]] = len(behaviors)
                begin = self.places["hist_item"][0]
                rows[1:, begin:] = rows[0, begin:]
            parts.append((array, np.array(users, dtype=object), labels))
        assert all(len(known) < 1 << 15 for known in self.vocabulary.values()), "too many ids"
        array, users, labels = (np.concatenate(column) for column in zip(*parts))
        return array, np.unique(users.astype(str), return_inverse=True)[1], labels

    def number(self, field, text, learn):
        if not text:
            return 0
        known = self.vocabulary[field]
        return known.setdefault(text, len(known) + 1) if learn else known.get(text, 0)

    def put(self, row, prefix, at, item, learn):
        for name in ITEM:
            texts = item[name] if name == "genres" else [item[name]]
            begin = self.places[prefix + name][0] + at * (self.genres if name == "genres" else 1)
            for place, text in enumerate(texts or []):
                row[begin + place] = self.number(name, text, learn)


def network(samples, query, peer, seed):
    """The library's DIN for these samples."""
    import torch
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DIN

    class Attending(DIN):
        """DIN whose behaviors may have several values per field: their rows are summed. Sums what it does not
        attend to."""

        def _compute_interest_dim(self):
            return DIM * len(query)

        def rows(self, name, field, x):
            begin, end = self.feature_index[name]
            return self.embedding_dict[field](x[:, begin:end].long())

        def forward(self, x):
            ad = {name: self.rows(name, name, x).sum(1, keepdim=True) for name in USER + ITEM}
            behaviors = {name: self.rows(f"hist_{name}", name, x) for name in ITEM}
            behaviors = {name: rows.unflatten(1, (BEHAVIORS, -1)).sum(2) for name, rows in behaviors.items()}
            begin, end = self.feature_index["length"]
            attended = self.attention(torch.cat([ad[name] for name in query], -1),
                                      torch.cat([behaviors[name] for name in query], -1),
                                      x[:, begin:end].long())
            summed = [behaviors[name].sum(1, keepdim=True) for name in ITEM if name not in query]
            inputs = torch.cat([*ad.values(), *summed, attended], -1).flatten(1)
            return self.out(self.dnn_linear(self.dnn(inputs)))

    columns = []
    for name, field, width in samples.columns:
        if field is None:
            continue
        column = SparseFeat(name, len(samples.vocabulary[field]) + 1, DIM, embedding_name=field)
        if name.startswith("hist_") or field == "genres":
            length = "length" if name == "hist_item" else None
            column = VarLenSparseFeat(column, width, "sum", length)
        columns.append(column)
    model = Attending(columns, query, dnn_hidden_units=LAYERS, att_hidden_size=ATTENTION,
                      l2_reg_embedding=0, seed=seed, **PEERS[peer])
    assert dict(model.feature_index) == samples.places, (model.feature_index, samples.places)
    with torch.no_grad():
        if peer == "alike":
            for linear in model.modules():
                if isinstance(linear, torch.nn.Linear):
                    outputs, inputs = linear.weight.shape
                    bound = (6 / (inputs if outputs > 1 else inputs + outputs)) ** 0.5
                    torch.nn.init.uniform_(linear.weight, -bound, bound)
                    if linear.bias is not None:
                        torch.nn.init.zeros_(linear.bias)
        for embedding in model.embedding_dict.values():
            if peer == "alike":
                torch.nn.init.uniform_(embedding.weight, -0.05, 0.05)
            # Number 0 is no value: zeros that nothing changes.
            embedding.padding_idx = 0
            embedding.weight[0] = 0
    model.compile("adam", "binary_crossentropy")
    assert model.optim.defaults["lr"] == RATE
    return model


def train_peer(samples, query, peer, seed):
    """Trains the peer for an epoch; returns its row of results."""
    import numpy as np
    import torch
    model = network(samples, query, peer, seed)
    array, _, labels = (torch.from_numpy(column) for column in samples.train)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    model.train()
    loss_sum, begun = 0.0, time.monotonic()
    for batch in order.split(BATCH):
        predicted = model(array[batch].float()).squeeze(-1)
        loss = model.loss_func(predicted, labels[batch].float(), reduction="sum")
        model.optim.zero_grad()
        loss.backward()
        model.optim.step()
        loss_sum += loss.item()
    seconds = time.monotonic() - begun
    array, users, labels = samples.test
    model.eval()
    with torch.no_grad():
        batches = torch.from_numpy(array).split(8 * BATCH)
        p = torch.cat([model(batch.float()).squeeze(-1) for batch in batches]).double().numpy()
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return {"steps": -(-len(order) // BATCH), "loss": loss_sum / len(order),
            "rows_per_second": len(order) / seconds, "threads": torch.get_num_threads(),
            **metrics(users, np.log(p) - np.log1p(-p), labels)}


# The runs.

def train_ams(options, dataset, name, seed, settings):
    """Trains and evaluates ams; returns its row of results."""
    config = options.work / "config.toml"
    base = f'base = "{options.base}"\n' if options.base else ""
    config.write_text(
        f'name = "{name}"\nseed = {seed}\nruns = "{options.work / "runs"}"\n'
        f'[data]\nsamples = "{dataset}"\n'
        f'[model]\nimages = "none"\n{base}query_fields = {json.dumps(options.query)}\n'
        f'embedding_dim = {DIM}\nattention = {ATTENTION}\nmlp = {LAYERS}\n'
        f'[train]\nepochs = 1\nbatch = {BATCH}\nlearning_rate = {RATE}\n'
    )
    sets = [word for setting in [*settings, *options.set] for word in ("--set", setting)]
    trained = ams(options.ams, "train", config, "--replace", "--threads", options.threads, *sets)
    run = options.work / "runs" / name
    evaluated = ams(options.ams, "eval", run, "--threads", options.threads)
    return {"steps": trained["steps"], "loss": trained["loss"], "threads": trained["threads"],
            "rows_per_second": trained["impressions_per_second"], **judge_ams(run, evaluated)}


def once(work, name, train):
    """The result of a training, which is done unless it was done before."""
    result = work / "runs" / name / "result.json"
    if not result.exists():
        row = train()
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(row))
    return json.loads(result.read_text())


def spread(values, digits):
    """mean and standard deviation over seeds"""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):,.{digits}f} ± {deviation:,.{digits}f}"


def table(options, counts, results, versions):
    """The table in Markdown."""
    of = {name: [row for row in results if row["system"] == name] for name in [*OURS, *options.peers]}
    columns = [(metric, 4) for metric in METRICS] + [("rows_per_second", 0)]
    lines = [f"{counts['train']:,} training and {counts['test']:,} test impressions, {counts['users']:,} users; "
             f"one epoch; attention asks with {' and '.join(options.query)}; {options.threads} threads; mean ± "
             f"standard deviation over {len(of['ams'])} seeds. {versions}", "",
             "| | GAUC | AUC | log loss | training rows/s |", "|---|---|---|---|---|"]
    for name, rows in of.items():
        cells = [spread([row[column] for row in rows], digits) for column, digits in columns]
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    for ours, peer in [(ours, peer) for ours in OURS for peer in options.peers]:
        pairs = list(zip(of[ours], of[peer]))
        cells = [spread([a[column] - b[column] for a, b in pairs], digits) for column, digits in columns[:-1]]
        cells.append(spread([a["rows_per_second"] / b["rows_per_second"] for a, b in pairs], 2) + " times")
        lines.append(f"| {TITLES[ours]} against {TITLES[peer]}, by seed | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--query", type=lambda text: text.split(","), default=["item", "genres"])
    parser.add_argument("--base", default="din", help="model.base of ams; empty leaves the key out")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PEERS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ams", type=pathlib.Path, default=AMS, metavar="PROGRAM")
    options = parser.parse_args()
    if unknown := [name for name in options.query if name not in ITEM]:
        parser.error(f"--query {unknown[0]}: expected some of {', '.join(ITEM)}")
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"--peers {unknown[0]}: expected some of {', '.join(PEERS)}")
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    from importlib.metadata import version
    import torch
    torch.set_num_threads(options.threads)
    dataset = options.work / "explicit"
    counts = imported(options.ams, dataset, options.data)
    samples, results = None, []
    asked = "-".join(options.query)
    for seed in range(1, options.seeds + 1):
        for system in [*OURS, *options.peers]:
            base = f"{options.base or 'sum'}-" if system in OURS else ""
            name = f"{base}{asked}-{system}-{seed}"
            if system in OURS:
                settings = OURS[system]
                row = once(options.work, name, lambda: train_ams(options, dataset, name, seed, settings))
            else:
                samples = samples or Samples(dataset)
                row = once(options.work, name, lambda: train_peer(samples, options.query, system, seed))
            print(system, seed, f"GAUC {row['gauc']:.4f} AUC {row['auc']:.4f} log loss {row['logloss']:.4f}",
                  f"{row['rows_per_second']:,.0f} rows/s", flush=True)
            results.append({"system": system, "seed": seed, **row})
    versions = f"deepctr-torch {version('deepctr-torch')}, torch {version('torch')}."
    (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    (options.out / "table.md").write_text(table(options, counts, results, versions))


if __name__ == "__main__":
    main()
