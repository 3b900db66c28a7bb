#!/usr/bin/env python3
"""Golden values: rank networks and tower in plain PyTorch, as the paper draws them, in float64.

    python -m venv env && env/bin/pip install -r requirements.txt
    env/bin/python make.py            # writes rank.json and tower.json beside this file
    env/bin/python make.py --check    # computes them again and compares with what is committed

The Rust tests read the files and never run this. A change of what a network computes changes this
script first; values are never copied from Rust.

rank.json holds the shape of the networks (`config`), one batch (`batch`), the constants of Adam
(`adam`), and one case per network (`cases`). A case names an arm of images and the aggregators
whose network it is: without behavior images no aggregator makes a difference. It holds the logits;
the mean cross entropy; the gradients of rows and image embeddings; and, by name in Rust's layout,
each weight's shape, values, gradient, and values after the steps of Adam on the same batch, which
move the weights alone. tower.json holds the same of one tower: features that halfs hold exactly,
their scale, the embeddings, and gradients given `dout`.

Nothing here is computed as in Rust: no group shares work, no layer is split, every impression is
one sample on its own, the output is a softmax of two classes, and all gradients are autograd's.

Values come from Python's `random`, one stream per name; `random()` is the same in every version.
Inputs and first weights are multiples of 1/256, which floats and doubles hold alike.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
SIGNIFICANT_DIGITS = 12
CHECK_TOLERANCE = 1e-9
# How far PReLUs are from their kink and maxima apart: rounding to floats must not change sides.
KINK_MARGIN = 1e-5

D = 4
CONFIG = {
    "dim": D,
    "group_fields": 2,
    "impression_fields": 3,
    "query_fields": [2, 0],
    "attention": [5, 3],
    "concatenate_length": 3,
    "mlp": [6, 5],
}
ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "steps": 10}

# Groups of 3, 1, 0, 2 and 1 impressions with 2, 0, 2, 5 and 1 behaviors. Fields with no, one and
# several values; rows in several lists, and twice in one; row 6 in none. `None` is no image. Images
# are shared, missing and repeated within a history; ad image 2 belongs to nobody, and behavior
# image 3 to a group without impressions alone.
IMPRESSIONS = [3, 1, 0, 2, 1]
HISTORIES = [[2, None], [], [3, 0], [1, 0, 1, None, 2], [0]]
GROUP_FIELDS = [
    [[0], [1], [5], [2], [3]],
    [[4, 4, 1], [], [0], [3, 2, 5], [0]],
]
IMPRESSION_FIELDS = [
    [[3], [4], [3], [0], [1], [2], [5]],
    [[1, 2], [], [0], [], [0, 1, 4], [3], [2, 2]],
    [[2], [2], [2], [1], [1], [1], [0]],
]
AD_IMAGES = [0, 1, None, 0, 1, None, 0]
LABELS = [0, 1, 0, 0, 1, 1, 0]
ROWS, AD_EMBEDDINGS, BEHAVIOR_EMBEDDINGS = 7, 3, 4

TOWER = {"input": 8, "widths": [6, 5, 4]}
TOWER_IMAGES, TOWER_SCALE = 5, 0.375


def draw(name, shape, reach, middle=0.0):
    """A tensor of multiples of 1/256 within `reach` of `middle`, from the stream of `name`."""
    stream = random.Random(f"golden {name}")
    count = torch.Size(shape).numel()
    values = [round(256 * (middle + reach * (2 * stream.random() - 1))) / 256 for _ in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


class Weights:
    """The weights of one network: drawn when a name is first asked for, then kept."""

    def __init__(self):
        self.tensors = {}

    def get(self, name, *shape, reach=0.5, middle=0.0):
        if name not in self.tensors:
            self.tensors[name] = draw(name, shape, reach, middle).requires_grad_()
        assert self.tensors[name].shape == shape, f"{name} was {self.tensors[name].shape}"
        return self.tensors[name]

    def linear(self, name, x, outputs, middle=0.0):
        """A fully connected layer of `x` (rows, inputs)."""
        weight = self.get(f"{name}.weight", outputs, x.shape[1], reach=(3 / x.shape[1]) ** 0.5)
        return F.linear(x, weight, self.get(f"{name}.bias", outputs, middle=middle))

    def prelu(self, name, x):
        """PReLU of `x` (rows, channels), a slope per channel."""
        assert (x.abs() > KINK_MARGIN).all(), f"{name} is at its kink: draw other values"
        return F.prelu(x, self.get(f"{name}.slope", x.shape[1], reach=0.3, middle=0.2))


# By name: what the aggregate belongs to, and a function. That gets the weights, the history `e`
# (behaviors, D), and the queries of the ad's image and of its ids, each (width); it gives a vector.
AGGREGATORS = {}


def aggregator(name, per):
    """Registers a function; `per` is "group" or "impression", where Rust keeps its columns of W."""

    def register(function):
        AGGREGATORS[name] = (per, function)
        return function

    return register


def attention(weights, name, e, query):
    """w_i = FC1(FC16(FC64([e_i; q]))) with PReLU between and no softmax; the sum of w_i e_i."""
    first, second = CONFIG["attention"]
    x = torch.cat([e, query.expand(len(e), -1)], 1)
    # Rust keeps the columns of e and of q apart.
    key = weights.get(f"{name}.0.key.weight", first, D)
    asked = weights.get(f"{name}.0.query.weight", first, len(query))
    bias = weights.get(f"{name}.0.query.bias", first)
    x = weights.prelu(f"{name}.0", F.linear(x, torch.cat([key, asked], 1), bias))
    x = weights.prelu(f"{name}.1", weights.linear(f"{name}.1", x, second))
    return (weights.linear(f"{name}.2", x, 1, middle=1.0) * e).sum(0)


@aggregator("concatenate", per="group")
def concatenate(weights, e, image_query, id_query):
    """The first of the history, which are the newest; a shorter one is padded with zeros."""
    e = e[: CONFIG["concatenate_length"]]
    return F.pad(e, (0, 0, 0, CONFIG["concatenate_length"] - len(e))).flatten()


@aggregator("max", per="group")
def max_of(weights, e, image_query, id_query):
    if len(e) == 0:
        return torch.zeros(D, dtype=e.dtype)
    first, second = F.pad(e.unique(dim=0), (0, 0, 0, 1), value=-torch.inf).topk(2, 0).values
    assert (first - second > KINK_MARGIN).all(), "two images are as large: draw other values"
    return e.amax(0)


@aggregator("sum", per="group")
def sum_of(weights, e, image_query, id_query):
    return e.sum(0)


@aggregator("attentive", per="impression")
def attentive(weights, e, image_query, id_query):
    return attention(weights, "attention.image", e, image_query)


@aggregator("multi-query-attentive", per="impression")
def multi_query_attentive(weights, e, image_query, id_query):
    image = attention(weights, "attention.image", e, image_query)
    return torch.cat([image, attention(weights, "attention.fields", e, id_query)])


def rank_logit(weights, inputs, arm, aggregator_name, impression):
    """The logit of one impression."""
    group = next(g for g in range(len(IMPRESSIONS)) if impression < sum(IMPRESSIONS[: g + 1]))

    def pooled(rows):
        return inputs["rows"][rows].sum(0)

    of_group = [pooled(field[group]) for field in GROUP_FIELDS]
    of_impression = [pooled(field[impression]) for field in IMPRESSION_FIELDS]
    id_query = torch.cat([of_impression[field] for field in CONFIG["query_fields"]])
    image_query = id_query
    if arm in ("ad", "joint"):
        no_image = weights.get("ad.no_image", D, reach=1.0)
        image = AD_IMAGES[impression]
        image_query = no_image if image is None else inputs["ad_embeddings"][image]
        of_impression.append(image_query)
    if arm in ("behavior", "joint"):
        no_image = weights.get("behavior.no_image", D, reach=1.0)
        embeddings = torch.cat([inputs["behavior_embeddings"], no_image[None]])
        e = embeddings[[len(embeddings) - 1 if i is None else i for i in HISTORIES[group]]]
        per, aggregate = AGGREGATORS[aggregator_name]
        part = {"group": of_group, "impression": of_impression}[per]
        part.append(aggregate(weights, e, image_query, id_query))
    x = torch.cat(of_group + of_impression)
    # Rust keeps the columns of the group and of the impression apart.
    width, reach = CONFIG["mlp"][0], (3 / len(x)) ** 0.5
    parts = {"group": sum(map(len, of_group)), "impression": sum(map(len, of_impression))}
    matrix = [weights.get(f"mlp.0.{k}.weight", width, n, reach=reach) for k, n in parts.items()]
    x = F.linear(x[None], torch.cat(matrix, 1), weights.get("mlp.0.group.bias", width))
    for layer, width in enumerate([*CONFIG["mlp"][1:], 1], start=1):
        x = weights.linear(f"mlp.{layer}", weights.prelu(f"mlp.{layer - 1}", x), width)
    return x[0, 0]


def rank_case(arm, aggregators):
    """One network: the values of rank.json's header."""
    weights = Weights()
    inputs = {name: value.clone().requires_grad_() for name, value in rank_floats().items()}

    def forward():
        impressions = range(len(LABELS))
        logits = torch.stack(
            [rank_logit(weights, inputs, arm, aggregators[0], i) for i in impressions]
        )
        # The softmax of two classes, of which the first one's score is 0.
        classes = torch.stack([torch.zeros_like(logits), logits], 1)
        return logits, F.cross_entropy(classes, torch.tensor(LABELS))

    logits, loss = forward()
    # Before anything moves. An arm that does not see an input gives it a gradient of zeros.
    gradients = torch.autograd.grad(loss, list(inputs.values()), materialize_grads=True)
    return {
        "images": arm,
        "aggregators": aggregators,
        "logits": numbers(logits),
        "loss": numbers(loss)[0],
        **{f"d{name}": numbers(gradient) for name, gradient in zip(inputs, gradients)},
        "weights": learned(weights, lambda: forward()[1]),
    }


def learned(weights, loss):
    """Each weight's shape, values, gradient of `loss`, and values after the steps of Adam.

    Moves the weights: nothing can be asked of them afterwards.
    """
    parameters = list(weights.tensors.values())
    gradients = torch.autograd.grad(loss(), parameters)
    tensors = {
        name: {"shape": list(w.shape), "values": numbers(w), "gradient": numbers(gradient)}
        for (name, w), gradient in zip(weights.tensors.items(), gradients)
    }
    optimizer = torch.optim.Adam(
        parameters, lr=ADAM["lr"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["eps"]
    )
    for _ in range(ADAM["steps"]):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for name, w in weights.tensors.items():
        tensors[name]["after_adam"] = numbers(w)
    return tensors


def rank_floats():
    return {
        "rows": draw("rows", (ROWS, D), 1.0),
        "ad_embeddings": draw("ad embeddings", (AD_EMBEDDINGS, D), 1.0),
        "behavior_embeddings": draw("behavior embeddings", (BEHAVIOR_EMBEDDINGS, D), 1.0),
    }


def rank():
    """What rank.json holds."""
    batch = {
        "impressions": offsets(IMPRESSIONS),
        "behaviors": offsets(map(len, HISTORIES)),
        "group_fields": [lists(field) for field in GROUP_FIELDS],
        "impression_fields": [lists(field) for field in IMPRESSION_FIELDS],
        "ad_images": AD_IMAGES,
        "behavior_images": [image for history in HISTORIES for image in history],
        "labels": LABELS,
        **{name: numbers(value) for name, value in rank_floats().items()},
    }
    cases = [rank_case(arm, list(AGGREGATORS)) for arm in ("none", "ad")]
    cases += [rank_case(arm, [name]) for arm in ("behavior", "joint") for name in AGGREGATORS]
    return {"config": CONFIG, "adam": ADAM, "batch": batch, "cases": cases}


def tower():
    """What tower.json holds: FC, PReLU, FC, PReLU, FC over scaled features."""
    features = draw("features", (TOWER_IMAGES, TOWER["input"]), 2.0)
    assert torch.equal(features, features.half().double()), "halfs do not hold the features"
    dout = draw("dout", (TOWER_IMAGES, TOWER["widths"][-1]), 1.0)
    weights = Weights()

    def forward():
        x = TOWER_SCALE * features
        for layer, width in enumerate(TOWER["widths"]):
            x = weights.prelu(f"{layer - 1}", x) if layer else x
            x = weights.linear(f"{layer}", x, width)
        return x

    embeddings = forward()
    return {
        "config": TOWER,
        "adam": ADAM,
        "features": numbers(features),
        "scale": TOWER_SCALE,
        "dout": numbers(dout),
        "embeddings": numbers(embeddings),
        "weights": learned(weights, lambda: (forward() * dout).sum()),
    }


def offsets(lengths):
    out = [0]
    for length in lengths:
        out.append(out[-1] + length)
    return out


def lists(field):
    return {"offsets": offsets(map(len, field)), "rows": [row for list_ in field for row in list_]}


def numbers(tensor):
    """The values of `tensor`, row by row, rounded to what the files keep."""
    return [float(f"{x:.{SIGNIFICANT_DIGITS}g}") for x in tensor.detach().flatten().tolist()]


def differences(path, got, kept):
    """Where two JSON values differ; numbers by more than the tolerance of their list's largest."""
    if isinstance(got, dict) and isinstance(kept, dict):
        if got.keys() != kept.keys():
            return [f"{path} holds {sorted(got)}, but in the file {sorted(kept)}"]
        return [line for key in got for line in differences(f"{path}/{key}", got[key], kept[key])]
    if isinstance(got, float) and isinstance(kept, float):
        got, kept = [got], [kept]
    if isinstance(got, list) and isinstance(kept, list) and len(got) == len(kept):
        if all(isinstance(x, float) for x in got + kept):
            bound = CHECK_TOLERANCE * max(map(abs, kept), default=0.0)
            far = [abs(a - b) for a, b in zip(got, kept) if not abs(a - b) <= bound]
            return [f"{path}: differs by {max(far):.3g}, more than {bound:.3g}"] if far else []
        pairs = enumerate(zip(got, kept))
        return [line for i, (a, b) in pairs for line in differences(f"{path}/{i}", a, b)]
    return [] if got == kept else [f"{path}: {got!r}, but the file has {kept!r}"]


def text(value):
    """JSON of `value`, one line per list of numbers: a change shows as the tensor that changed."""
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {text(x)}" for key, x in value.items()]
        return "{\n" + ",\n".join(rows) + "\n}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(map(text, value)) + "\n]"
    return json.dumps(value)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the committed values")
    check = arguments.parse_args().check
    torch.set_num_threads(1)
    lines = []
    for name, value in [("rank.json", rank()), ("tower.json", tower())]:
        if check:
            kept = json.loads((HERE / name).read_text())
            lines += differences(name, json.loads(text(value)), kept)
        else:
            (HERE / name).write_text(text(value) + "\n")
    sys.exit("\n".join(lines) if lines else 0)


if __name__ == "__main__":
    main()
