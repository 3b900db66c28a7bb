#!/usr/bin/env python3
"""Golden values: rank networks and tower in plain PyTorch, as the paper draws them, in float64.

    python -m venv env && env/bin/pip install -r requirements.txt
    env/bin/python make.py            # writes rank.json, tower.json, align.json beside this file
    env/bin/python make.py --check    # computes them again and compares with what is committed

The Rust tests read the files and never run this. A change of what a network computes changes this
script first; values are never copied from Rust.

rank.json holds the settings the networks share (`config`), the constants of Adam (`adam`), two
batches (`batches`), and one case per network (`cases`). A case has all settings, beside the shared
ones, that make its network: without behavior images, say, no aggregator makes a difference. It
holds the logits; the mean cross entropy; the gradients of rows and embeddings; and, by name in
Rust's layout, each weight's shape, values, gradient, and values after the steps of Adam on the same
batch, which move the weights alone. tower.json holds the same of one tower: features that halfs
hold exactly, their scale, the embeddings, and gradients given `dout`. align.json holds an
alignment: components of pictures, pairs of them, the map's embeddings, loss and gradient, and the
map after the steps of Adam on the same batch, each with the pull to where it began.

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
# How far PReLUs are from their kink, maxima apart, and cosines from edges of buckets: rounding to
# floats must not change sides.
KINK_MARGIN = 1e-5

D = 4
CONFIG = {
    "dim": D,
    "group_fields": 2,
    "impression_fields": 3,
    "query_fields": [2, 0],
    "base": "mlp",
    "behavior_fields": [],
    "contents": ["image"],
    "attention": [5, 3],
    "concatenate_length": 3,
    "mlp": [6, 5],
    "pre_rank": [5, 2],
    "interactions": "none",
    "similarity": "none",
}
ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "steps": 10}

# Groups of 3, 1, 0, 2, 1 and 1 impressions with 2, 0, 2, 5, 1 and 7 behaviors. Fields with no, one
# and several values; rows in several lists, and twice in one; row 6 in none.
IMPRESSIONS = [3, 1, 0, 2, 1, 1]
BEHAVIORS = [2, 0, 2, 5, 1, 7]
GROUP_FIELDS = [
    [[0], [1], [5], [2], [3], [4]],
    [[4, 4, 1], [], [0], [3, 2, 5], [0], [1, 3]],
]
IMPRESSION_FIELDS = [
    [[3], [4], [3], [0], [1], [2], [5], [0]],
    [[1, 2], [], [0], [], [0, 1, 4], [3], [2, 2], [5]],
    [[2], [2], [2], [1], [1], [1], [0], [4]],
]
# A list per behavior.
BEHAVIOR_FIELDS = [
    [[0], [2], [5], [1], [2], [], [1], [4], [2], [3], [1], [2], [0], [5], [3], [2], [1]],
    [[3, 1], [], [2], [0], [4, 4], [3], [], [5, 0, 3], [1], [2], [0], [4], [], [2], [5], [1], [3]],
]
LABELS = [0, 1, 0, 0, 1, 1, 0, 1]
ROWS = 7
# How many of the groups are in a batch. The last one's history has more than TOP images.
BATCHES = {"short": 5, "long": 6}

# The image of each impression and of each behavior. `None` is no image. Images are shared, missing
# and repeated within a history; ad image 2 belongs to nobody, and behavior image 3 to a group
# without impressions and to the last alone. Then the sketch of each image; an ad and a behavior
# share one, and the last sketch is zeros.
CONTENTS = {
    "image": {
        "ads": [0, 1, None, 0, 1, None, 0, 1],
        "histories": [[2, None], [], [3, 0], [1, 0, 1, None, 2], [0], [1, 3, 0, None, 3, 2, 1]],
        "ad_embeddings": 3,
        "behavior_embeddings": 4,
        "ad_sketches": [4, 0, 1],
        "behavior_sketches": [0, 3, 5, 2],
        "sketches": (6, 3),
    },
    "text": {
        "ads": [None, 0, 1, 1, 0, 0, None, 1],
        "histories": [[None, 1], [], [0, 2], [2, 2, None, 0, 1], [1], [0, 1, 2, 1, 0, 0, 2]],
        "ad_embeddings": 2,
        "behavior_embeddings": 3,
        "ad_sketches": [1, 3],
        "behavior_sketches": [2, 0, 1],
        "sketches": (5, 2),
    },
}
# Of similarity: buckets over [-1, 1], and how many of the largest cosines have a mean of their own.
BUCKETS, TOP = 16, 5

# Pictures, components of each, width of the map; then pairs of pictures with their users: some share
# a picture or a user, and one weighs nothing.
ALIGN = {"pictures": 9, "components": 7, "width": 4, "temperature": 0.25, "penalty": 0.125}
ALIGN_PAIRS = [[0, 1], [2, 3], [4, 0], [5, 6], [6, 2], [7, 8], [1, 4], [3, 5], [8, 7], [2, 8]]
ALIGN_USERS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
ALIGN_WEIGHTS = [1.0, 0.25, 0.5, 0.75, 1.0, 0.125, 0.0, 2.0, 0.5, 1.5]

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


# By name: what the aggregate belongs to, and a function. That gets attention, to be called with the
# name of a channel, the history and a query; the history `e` (behaviors, D); and the queries of the
# ad's image and of its ids, each (width). It gives a vector.
AGGREGATORS = {}


def aggregator(name, per):
    """Registers a function; `per` is "group" or "impression", where Rust keeps its columns of W."""

    def register(function):
        AGGREGATORS[name] = (per, function)
        return function

    return register


def product(x, y):
    """x * y; the shorter is repeated."""
    width = max(len(x), len(y))
    return x.repeat(width // len(x)) * y.repeat(width // len(y))


def attention(weights, name, products, e, query):
    """w_i = FC1(FC16(FC64([e_i; q]))) with PReLU between and no softmax; the sum of w_i e_i.

    With `products` the first layer sees [e_i; q; e_i * q].
    """
    first, second = CONFIG["attention"]
    x = torch.cat([e, query.expand(len(e), -1)], 1)
    # Rust keeps the columns of e, of q and of their product apart.
    matrix = [weights.get(f"{name}.0.key.weight", first, e.shape[1])]
    matrix.append(weights.get(f"{name}.0.query.weight", first, len(query)))
    bias = weights.get(f"{name}.0.query.bias", first)
    if products:
        width = max(e.shape[1], len(query))
        matrix.append(weights.get(f"{name}.0.product.weight", first, width, reach=0.375))
        pairs = [product(key, query) for key in e]
        x = torch.cat([x, torch.stack(pairs) if pairs else e.new_zeros(0, width)], 1)
    x = weights.prelu(f"{name}.0", F.linear(x, torch.cat(matrix, 1), bias))
    x = weights.prelu(f"{name}.1", weights.linear(f"{name}.1", x, second))
    return (weights.linear(f"{name}.2", x, 1, middle=1.0) * e).sum(0)


@aggregator("concatenate", per="group")
def concatenate(attend, e, image_query, id_query):
    """The first of the history, which are the newest; a shorter one is padded with zeros."""
    e = e[: CONFIG["concatenate_length"]]
    return F.pad(e, (0, 0, 0, CONFIG["concatenate_length"] - len(e))).flatten()


@aggregator("max", per="group")
def max_of(attend, e, image_query, id_query):
    if len(e) == 0:
        return torch.zeros(D, dtype=e.dtype)
    first, second = F.pad(e.unique(dim=0), (0, 0, 0, 1), value=-torch.inf).topk(2, 0).values
    assert (first - second > KINK_MARGIN).all(), "two images are as large: draw other values"
    return e.amax(0)


@aggregator("sum", per="group")
def sum_of(attend, e, image_query, id_query):
    return e.sum(0)


@aggregator("attentive", per="impression")
def attentive(attend, e, image_query, id_query):
    return attend("image", e, image_query)


@aggregator("multi-query-attentive", per="impression")
def multi_query_attentive(attend, e, image_query, id_query):
    return torch.cat([attend("image", e, image_query), attend("fields", e, id_query)])


def similarity(kind, content, group, impression):
    """How alike the sketches of an ad and of its history are: no parameter, no gradient."""
    ad, history = content["ads"][impression], content["histories"][group]
    history = [content["behavior_sketches"][image] for image in history if image is not None]
    summary, buckets = torch.zeros(4).double(), torch.zeros(BUCKETS).double()
    if ad is not None and history:
        sketches = content["vectors"]
        ad = sketches[content["ad_sketches"][ad]]
        cosines = F.cosine_similarity(ad[None], sketches[history]).clamp(-1, 1)
        # 0 of a vector of zeros is exact.
        edges = torch.linspace(-1, 1, BUCKETS + 1)[1:-1]
        far = (cosines[:, None] - edges).abs() > KINK_MARGIN
        assert (far.all(1) | (cosines == 0)).all(), "a cosine is at an edge: draw other values"
        top = cosines.topk(min(TOP, len(cosines))).values.mean()
        summary = torch.stack([cosines.mean(), cosines.max(), top, cosines[0]])
        buckets = cosines.histc(BUCKETS, -1, 1).log1p()
    return summary if kind == "cosine" else torch.cat([summary, buckets])


def content_parts(weights, inputs, settings, name, group, impression, id_query):
    """What one content adds to the inputs: vectors of the group, and of the impression."""
    content, arm = CONTENTS[name], settings["images"]
    products = settings["interactions"] == "product"
    prefix = "" if name == settings["contents"][0] else f"{name}."
    parts = {"group": [], "impression": []}
    image_query = id_query
    if arm in ("ad", "joint"):
        no_image = weights.get(f"{prefix}ad.no_image", D, reach=1.0)
        image = content["ads"][impression]
        image_query = no_image if image is None else inputs[f"{name}.ad_embeddings"][image]
        parts["impression"].append(image_query)
    if arm in ("behavior", "joint"):
        no_image = weights.get(f"{prefix}behavior.no_image", D, reach=1.0)
        embeddings = torch.cat([inputs[f"{name}.behavior_embeddings"], no_image[None]])
        images = content["histories"][group]
        e = embeddings[[len(embeddings) - 1 if i is None else i for i in images]]
        per, aggregate = AGGREGATORS[settings["aggregator"]]

        def attend(channel, e, query):
            return attention(weights, f"{prefix}attention.{channel}", products, e, query)

        vector = aggregate(attend, e, image_query, id_query)
        parts[per].append(vector)
        if products and arm == "joint":
            parts["impression"].append(product(image_query, vector))
    if settings["similarity"] != "none":
        parts["impression"].append(similarity(settings["similarity"], content, group, impression))
    return parts["group"], parts["impression"]


def rank_logit(weights, inputs, settings, impression):
    """The logit of one impression."""
    group = next(g for g in range(len(IMPRESSIONS)) if impression < sum(IMPRESSIONS[: g + 1]))

    def pooled(rows):
        return inputs["rows"][rows].sum(0)

    def query(fields):
        return torch.cat([pooled(IMPRESSION_FIELDS[field][impression]) for field in fields])

    of_group = [pooled(field[group]) for field in GROUP_FIELDS]
    of_impression = [pooled(field[impression]) for field in IMPRESSION_FIELDS]
    id_query = query(settings["query_fields"])
    for name in settings["contents"]:
        parts = content_parts(weights, inputs, settings, name, group, impression, id_query)
        of_group += parts[0]
        of_impression += parts[1]
    if settings["base"] == "din":
        begin = sum(BEHAVIORS[:group])
        behaviors = range(begin, begin + BEHAVIORS[group])
        keys = [torch.cat([pooled(field[i]) for field in BEHAVIOR_FIELDS]) for i in behaviors]
        asked = query(settings["behavior_fields"])
        e = torch.stack(keys) if keys else asked.new_zeros(0, len(asked))
        of_impression.append(attention(weights, "attention.ids", True, e, asked))
    if settings["base"] == "pre-rank":
        user = vector_of(weights, "user", torch.cat(of_group))
        return user @ vector_of(weights, "ad", torch.cat(of_impression))
    x = torch.cat(of_group + of_impression)
    widths = [1] if settings["base"] == "logistic-regression" else [*CONFIG["mlp"], 1]
    # Rust keeps the columns of the group and of the impression apart.
    width, reach = widths[0], (3 / len(x)) ** 0.5
    parts = {"group": sum(map(len, of_group)), "impression": sum(map(len, of_impression))}
    matrix = [weights.get(f"mlp.0.{k}.weight", width, n, reach=reach) for k, n in parts.items()]
    x = F.linear(x[None], torch.cat(matrix, 1), weights.get("mlp.0.group.bias", width))
    for layer, width in enumerate(widths[1:], start=1):
        x = weights.linear(f"mlp.{layer}", weights.prelu(f"mlp.{layer - 1}", x), width)
    return x[0, 0]


def vector_of(weights, name, x):
    """One of the two vectors whose inner product is the logit of the pre-rank network."""
    x = x[None]
    for layer, width in enumerate(CONFIG["pre_rank"]):
        x = weights.prelu(f"{name}.{layer - 1}", x) if layer else x
        x = weights.linear(f"{name}.{layer}", x, width)
    return x[0]


def rank_networks():
    """Every network there are values of: its batch, and the settings beside the shared ones."""
    arms, every = ("none", "ad", "behavior", "joint"), list(AGGREGATORS)
    asks, of_group = "multi-query-attentive", ("concatenate", "max", "sum")
    texts = {"contents": ["image", "text"], "interactions": "product", "similarity": "cosine"}
    kinds = [
        ("short", arms, every, {}),
        ("short", arms, every, {"interactions": "product"}),
        ("short", ("none", "joint"), ("sum", asks), {"base": "logistic-regression"}),
        ("short", ("none", "joint"), (asks,), {"base": "din", "behavior_fields": [2, 0]}),
        ("short", arms, of_group, {"base": "pre-rank"}),
        ("long", ("none", "joint"), ("sum",), {"similarity": "cosine"}),
        ("long", ("none", "joint"), ("sum",), {"similarity": "histogram"}),
        ("long", ("joint",), ("sum", asks), texts),
    ]
    for batch, of_arms, of_aggregators, settings in kinds:
        for arm in of_arms:
            for name in of_aggregators:
                yield batch, {"images": arm, "aggregator": name, **settings}


def rank_cases():
    """The cases of rank.json. Settings whose logits agree to the last bit make one network."""
    cases = {}
    for batch, settings in rank_networks():
        logits = RankTwin(batch, settings).forward()[0]
        cases.setdefault((batch, *logits.tolist()), []).append(settings)
    return [rank_case(batch, networks) for (batch, *_), networks in cases.items()]


class RankTwin:
    """One network, and what it takes."""

    def __init__(self, batch, settings):
        self.settings, self.weights = {**CONFIG, **settings}, Weights()
        self.labels = torch.tensor(LABELS[: sum(IMPRESSIONS[: BATCHES[batch]])])
        floats = rank_floats(self.settings["contents"])
        self.inputs = {name: value.requires_grad_() for name, value in floats.items()}

    def forward(self):
        """Logits and loss."""
        network = (self.weights, self.inputs, self.settings)
        logits = torch.stack([rank_logit(*network, i) for i in range(len(self.labels))])
        # The softmax of two classes, of which the first one's score is 0.
        classes = torch.stack([torch.zeros_like(logits), logits], 1)
        return logits, F.cross_entropy(classes, self.labels)


def rank_case(batch, networks):
    """One network, which all of the settings `networks` make: the values of rank.json's header."""
    twin = RankTwin(batch, networks[0])
    logits, loss = twin.forward()
    # Before anything moves. An arm that does not see an input gives it a gradient of zeros.
    gradients = torch.autograd.grad(loss, list(twin.inputs.values()), materialize_grads=True)
    return {
        "batch": batch,
        "networks": networks,
        "logits": numbers(logits),
        "loss": numbers(loss)[0],
        "gradients": {name: numbers(gradient) for name, gradient in zip(twin.inputs, gradients)},
        "weights": learned(twin.weights, lambda: twin.forward()[1]),
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


def rank_floats(contents):
    floats = {"rows": draw("rows", (ROWS, D), 1.0)}
    for name in contents:
        prefix = "" if name == "image" else f"{name} "
        for side in ("ad", "behavior"):
            shape = (CONTENTS[name][f"{side}_embeddings"], D)
            floats[f"{name}.{side}_embeddings"] = draw(f"{prefix}{side} embeddings", shape, 1.0)
    return floats


def rank_batch(groups):
    """A batch of the first `groups`."""
    impressions, behaviors = sum(IMPRESSIONS[:groups]), sum(BEHAVIORS[:groups])
    floats = {name: numbers(value) for name, value in rank_floats(CONTENTS).items()}
    contents = {}
    for name, content in CONTENTS.items():
        assert list(map(len, content["histories"])) == BEHAVIORS, f"histories of {name}"
        ads = content["ads"][:impressions]
        history = [image for history in content["histories"][:groups] for image in history]
        contents[name] = {
            "ad_embeddings": floats[f"{name}.ad_embeddings"],
            "ad_images": ads,
            "behavior_embeddings": floats[f"{name}.behavior_embeddings"],
            "behavior_images": history,
            "sketches": {
                "vectors": numbers(content["vectors"]),
                "dim": content["sketches"][1],
                "ads": [i if i is None else content["ad_sketches"][i] for i in ads],
                "behaviors": [i if i is None else content["behavior_sketches"][i] for i in history],
            },
        }
    return {
        "impressions": offsets(IMPRESSIONS[:groups]),
        "behaviors": offsets(BEHAVIORS[:groups]),
        "group_fields": [lists(field[:groups]) for field in GROUP_FIELDS],
        "impression_fields": [lists(field[:impressions]) for field in IMPRESSION_FIELDS],
        "behavior_fields": [lists(field[:behaviors]) for field in BEHAVIOR_FIELDS],
        "labels": LABELS[:impressions],
        "rows": floats["rows"],
        "contents": contents,
    }


def rank():
    """What rank.json holds."""
    for name, content in CONTENTS.items():
        content["vectors"] = draw(f"{name} sketches", content["sketches"], 1.0)
        content["vectors"][-1] = 0.0
    batches = {name: rank_batch(groups) for name, groups in BATCHES.items()}
    return {"config": CONFIG, "adam": ADAM, "batches": batches, "cases": rank_cases()}


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


def align():
    """The alignment: every pair is a sample of its own, and its negatives are a list."""
    components, width = ALIGN["components"], ALIGN["width"]
    x = draw("align x", (ALIGN["pictures"], components), 1.0)
    first = torch.eye(width, components, dtype=torch.float64)
    weight = torch.tensor(ALIGN_WEIGHTS, dtype=torch.float64)

    def embeddings(w):
        return F.normalize(x @ w.T, dim=1)

    def negatives(i):
        others = [j for j in range(len(ALIGN_PAIRS)) if j != i and ALIGN_USERS[j] != ALIGN_USERS[i]]
        return [j for j in others if not set(ALIGN_PAIRS[i]) & set(ALIGN_PAIRS[j])]

    def info_nce(w):
        e = embeddings(w)
        losses = []
        for i, (a, b) in enumerate(ALIGN_PAIRS):
            forth = torch.stack([e[a] @ e[ALIGN_PAIRS[j][1]] for j in [i, *negatives(i)]])
            back = torch.stack([e[b] @ e[ALIGN_PAIRS[j][0]] for j in [i, *negatives(i)]])
            right = torch.tensor(0)
            both = [F.cross_entropy(c / ALIGN["temperature"], right) for c in (forth, back)]
            losses.append(sum(both) / 2)
        return (weight * torch.stack(losses)).sum() / weight.sum()

    def loss(w):
        return info_nce(w) + ALIGN["penalty"] * ((w - first) ** 2).sum()

    begin = (first + draw("align w", first.shape, 0.25)).requires_grad_()
    value = loss(begin)
    value.backward()
    w = begin.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([w], ADAM["lr"], (ADAM["beta1"], ADAM["beta2"]), ADAM["eps"])
    for _ in range(ADAM["steps"]):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()
    return {
        **ALIGN,
        "adam": ADAM,
        "users": ALIGN_USERS,
        "pairs": ALIGN_PAIRS,
        "weights": ALIGN_WEIGHTS,
        "x": numbers(x),
        "w": numbers(begin),
        "embeddings": numbers(embeddings(begin)),
        "loss": float(f"{value.item():.{SIGNIFICANT_DIGITS}g}"),
        "gradient": numbers(begin.grad),
        "after_adam": numbers(w),
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
        flat = [not any(isinstance(x, (dict, list)) for x in row.values()) for row in value]
        rows = [json.dumps(row) if one_line else text(row) for row, one_line in zip(value, flat)]
        return "[\n" + ",\n".join(rows) + "\n]"
    return json.dumps(value)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the committed values")
    check = arguments.parse_args().check
    torch.set_num_threads(1)
    lines = []
    for name, value in [
        ("rank.json", rank()),
        ("tower.json", tower()),
        ("align.json", align()),
    ]:
        if check:
            kept = json.loads((HERE / name).read_text())
            lines += differences(name, json.loads(text(value)), kept)
        else:
            (HERE / name).write_text(text(value) + "\n")
    sys.exit("\n".join(lines) if lines else 0)


if __name__ == "__main__":
    main()
