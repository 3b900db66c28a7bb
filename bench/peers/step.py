#!/usr/bin/env python3
"""The reference training step of ams in PyTorch, as fast as we could make it on a CPU.

usage: bench/peers/step.py STEP [--variant eager|compile|gathered] [--matmul onednn|mkl] [--rows dense|lazy|sparse]
                           [--table-rows N] [--steps N] [--threads N] [--parts] [--profile] [--json]

STEP  folder that `ams bench step --export STEP` wrote: step.json and step.safetensors

Takes the step's batch and first weights, checks that the losses of the first steps on this batch are those of ams,
then goes on with the same batch and says how many ms a step takes: forward, backward, Adam for all weights and rows,
the loss read back. Needs torch, safetensors and numpy.

Variants:

- eager: what ams does too. The tower runs once per distinct image; the user's part of the first layer once per group;
  the first layer of attention once per image and once per impression. All groups are of one size, so there is no
  padding, no mask and no loop over groups.
- compile: the same, forward and backward through torch.compile.
- gathered: as models usually are in libraries of models: the features of every behavior of every impression are
  gathered and go through the tower, and every impression has its own copy of its user's fields and history.

Rows of ids (--rows), in a table of N rows of which the batch has some (--table-rows, unless given exactly these):

- dense: torch's fused Adam over all the table. With the batch's rows alone the same as lazy, without its copies.
- lazy: rows and moments of the batch are copied out, updated by fused Adam, and copied back. What ams does.
- sparse: sparse gradients and torch.optim.SparseAdam.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import time

# The losses of ams and of the twin differ by no more than this part of them. SparseAdam adds eps before it corrects the
# second moment, which rows with small gradients feel.
TOLERANCE, SPARSE_TOLERANCE = 1e-4, 1e-3
WARMUP = 5
ENVIRONMENT = {
    # Without these glibc returns large tensors to the system and takes them, page by page, again in every step.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


class Step:
    """The exported step: its numbers, its batch, its first weights."""

    def __init__(self, folder):
        import torch
        from safetensors.torch import load_file
        self.numbers = json.loads((folder / "step.json").read_text())
        tensors = load_file(folder / "step.safetensors")
        numbers = self.numbers
        self.impressions, self.groups, self.dim = numbers["impressions"], numbers["groups"], numbers["dim"]
        self.shown, self.history = (numbers[name] // self.groups for name in ("impressions", "behaviors"))
        for name, length in [("impressions", self.shown), ("behaviors", self.history)]:
            if not (tensors[name].diff() == length).all():
                sys.exit(f"{folder}: {name} of groups differ in number, expected {length} each")
        # As PyTorch's users have them: floats, scaled when they are read.
        self.features = tensors["features"].float() * numbers["scale"]
        self.labels = tensors["labels"].float()
        self.ad_images, self.behavior_images = (tensors[f"{name}_images"].long() for name in ("ad", "behavior"))
        # (groups or impressions, fields)
        self.group_fields, self.impression_fields = (
            tensors[f"{name}_fields"].t().contiguous().long() for name in ("group", "impression"))
        self.rows = tensors["rows"]
        self.weights = {name.removeprefix("w."): tensor.requires_grad_() for name, tensor in tensors.items()
                        if name.startswith(("w.", "tower."))}

    def adam(self, parameters, rate="learning_rate", **settings):
        """The settings of an optimizer of torch, to call it with."""
        numbers = self.numbers
        return {"params": parameters, "lr": numbers[rate], "betas": (numbers["beta1"], numbers["beta2"]),
                "eps": numbers["eps"], **settings}


# Rows. `leaf` is what gradients go to, `at` turns rows of the batch into rows of it.

class DenseRows:
    def __init__(self, step, table, places):
        import torch
        self.leaf, self.at = table.requires_grad_(), places
        self.optimizer = torch.optim.Adam(**step.adam([table], "rows_learning_rate", fused=True))

    def begin(self):
        self.optimizer.zero_grad()

    def end(self):
        self.optimizer.step()


class SparseRows(DenseRows):
    def __init__(self, step, table, places):
        import torch
        self.leaf, self.at = table.requires_grad_(), places
        self.optimizer = torch.optim.SparseAdam(**step.adam([table], "rows_learning_rate"))


class LazyRows:
    def __init__(self, step, table, places):
        import torch
        self.places, self.at = places, torch.arange(len(places))
        self.tables = [table, torch.zeros_like(table), torch.zeros_like(table)]
        self.leaf = table[places].requires_grad_()
        self.optimizer = torch.optim.Adam(**step.adam([self.leaf], "rows_learning_rate", fused=True))

    def each(self):
        """Pairs of a table and its rows of the batch: values, and moments once there are some."""
        state = self.optimizer.state[self.leaf]
        return zip(self.tables, [self.leaf.detach(), *(state[k] for k in ("exp_avg", "exp_avg_sq") if k in state)])

    def begin(self):
        import torch
        self.optimizer.zero_grad()
        for table, rows in self.each():
            torch.index_select(table, 0, self.places, out=rows)

    def end(self):
        self.optimizer.step()
        for table, rows in self.each():
            table.index_copy_(0, self.places, rows)


ROWS = {"dense": DenseRows, "lazy": LazyRows, "sparse": SparseRows}


class Twin:
    """The network over one batch. Methods are parts of the forward pass, over `w`, the weights by name."""

    def __init__(self, step, options):
        import torch
        self.step, self.options, self.w = step, options, step.weights
        count = len(step.rows)
        size = options.table_rows or count
        if size < count:
            sys.exit(f"--table-rows {size}: the batch has {count}")
        table, places = step.rows, torch.arange(count)
        if size > count:
            generator = torch.Generator().manual_seed(1)
            places = torch.randperm(size, generator=generator)[:count].sort().values
            table = torch.zeros(size, step.dim)
            table[places] = step.rows
        self.rows = ROWS[options.rows or ("dense" if size == count else "lazy")](step, table, places)
        self.group_fields, self.impression_fields = (
            self.rows.at[fields] for fields in (step.group_fields, step.impression_fields))
        self.optimizer = torch.optim.Adam(**step.adam(list(self.w.values()), fused=True))
        self.loss = {"eager": self.grouped, "compile": self.grouped, "gathered": self.gathered}[options.variant]
        if options.variant == "compile":
            self.loss = torch.compile(self.grouped, dynamic=False)
        # Impressions of one group share its user and its history.
        of_group = torch.arange(step.groups).repeat_interleave(step.shown)
        if options.variant == "gathered":
            self.group_fields = self.group_fields[of_group]
            self.histories = step.behavior_images.view(step.groups, -1)[of_group]

    def train(self):
        """One step; its loss."""
        self.optimizer.zero_grad()
        self.rows.begin()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.rows.end()
        return loss.item()

    # Layers.

    def linear(self, name, x, bias=True):
        import torch.nn.functional as F
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"] if bias else None)

    def wide_linear(self, name, x):
        """The same by oneDNN: a convolution of one pixel."""
        import torch.nn.functional as F
        if self.options.matmul == "mkl":
            return self.linear(name, x)
        x = x[None, :, None].permute(0, 3, 1, 2)
        z = F.conv2d(x, self.w[f"{name}.weight"][:, :, None, None], self.w[f"{name}.bias"])
        return z.permute(0, 2, 3, 1).flatten(0, 2)

    def prelu(self, name, z):
        import torch.nn.functional as F
        return F.prelu(z, self.w[f"{name}.slope"])

    def tower(self, features):
        z = self.prelu("tower.0", self.wide_linear("tower.0", features))
        z = self.prelu("tower.1", self.linear("tower.1", z))
        return self.linear("tower.2", z)

    def read(self, fields):
        """(groups or impressions, fields, D)"""
        import torch.nn.functional as F
        return F.embedding(fields, self.rows.leaf, sparse=isinstance(self.rows, SparseRows))

    def head(self, z):
        """From what the first layer makes to the loss."""
        import torch.nn.functional as F
        z = self.prelu("mlp.1", self.linear("mlp.1", self.prelu("mlp.0", z)))
        return F.binary_cross_entropy_with_logits(self.linear("mlp.2", z).squeeze(1), self.step.labels)

    def upper_attention(self, name, z):
        """Weights of pairs, given what the first layer makes of them."""
        z = self.prelu(f"{name}.1", self.linear(f"{name}.1", self.prelu(f"{name}.0", z)))
        return self.linear(f"{name}.2", z)

    # The network with everything computed once.

    def grouped(self):
        embeddings = self.tower(self.step.features)
        ads, histories, keys = self.images(embeddings)
        of_group, of_impression = self.read(self.group_fields), self.read(self.impression_fields)
        query = of_impression[:, self.step.numbers["query_fields"]].flatten(1)
        attended = [self.attention("attention.image", keys, histories, ads),
                    self.attention("attention.fields", keys, histories, query)]
        return self.head(self.first_layer(of_group, of_impression, ads, attended))

    def images(self, embeddings):
        """The embeddings of ads, those of histories, and all that histories may have."""
        import torch
        import torch.nn.functional as F
        step, count = self.step, len(embeddings)
        every = torch.cat([embeddings, self.w["ad.no_image"][None], self.w["behavior.no_image"][None]])
        self.behaviors = step.behavior_images.where(step.behavior_images >= 0, count + 1)
        ads = F.embedding(step.ad_images.where(step.ad_images >= 0, count), every)
        return ads, F.embedding(self.behaviors, every).view(step.groups, step.history, -1), every

    def attention(self, name, keys, histories, query):
        """(impressions, D)"""
        import torch
        import torch.nn.functional as F
        step = self.step
        keys = F.embedding(self.behaviors, self.linear(f"{name}.0.key", keys, bias=False))
        query = self.linear(f"{name}.0.query", query)
        pairs = keys.view(step.groups, 1, step.history, -1) + query.view(step.groups, step.shown, 1, -1)
        weights = self.upper_attention(name, pairs.flatten(0, 2))
        return torch.bmm(weights.view(step.groups, step.shown, step.history), histories).flatten(0, 1)

    def first_layer(self, of_group, of_impression, ads, attended):
        import torch
        step = self.step
        z = self.linear("mlp.0.impression", torch.cat([of_impression.flatten(1), ads, *attended], 1), bias=False)
        of_group = self.linear("mlp.0.group", of_group.flatten(1))
        return (z.view(step.groups, step.shown, -1) + of_group[:, None]).flatten(0, 1)

    # The network with everything computed per impression.

    def gathered(self):
        import torch
        import torch.nn.functional as F
        step, w = self.step, self.w
        images = torch.cat([step.ad_images, self.histories.flatten()])
        embeddings = self.tower(step.features[images.clamp(min=0)])
        ads, histories = embeddings.split([step.impressions, len(images) - step.impressions])
        ads = torch.where(step.ad_images[:, None] >= 0, ads, w["ad.no_image"])
        histories = torch.where(self.histories.view(-1, 1) >= 0, histories, w["behavior.no_image"])
        histories = histories.view(step.impressions, step.history, -1)
        of_group, of_impression = self.read(self.group_fields), self.read(self.impression_fields)
        query, attended = of_impression[:, step.numbers["query_fields"]].flatten(1), []
        for name, query in [("attention.image", ads), ("attention.fields", query)]:
            pairs = torch.cat([histories, query[:, None].expand(-1, step.history, -1)], 2)
            weight = torch.cat([w[f"{name}.0.key.weight"], w[f"{name}.0.query.weight"]], 1)
            pairs = F.linear(pairs.flatten(0, 1), weight, w[f"{name}.0.query.bias"])
            weights = self.upper_attention(name, pairs)
            attended.append((weights.view(step.impressions, -1, 1) * histories).sum(1))
        x = torch.cat([of_group.flatten(1), of_impression.flatten(1), ads, *attended], 1)
        weight = torch.cat([w["mlp.0.group.weight"], w["mlp.0.impression.weight"]], 1)
        return self.head(F.linear(x, weight, w["mlp.0.group.bias"]))


def timed(count, work):
    """Calls `work` and returns the ms of each call."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def parts(twin, count):
    """Median ms of the parts of the grouped step, each alone, forward and backward."""
    import torch
    step = twin.step

    def leaf(tensor):
        return tensor.detach().clone().requires_grad_()

    embeddings = leaf(twin.tower(step.features))
    of_group, of_impression = leaf(twin.read(twin.group_fields)), leaf(twin.read(twin.impression_fields))
    ads = leaf(twin.images(embeddings)[0])
    query = leaf(of_impression[:, step.numbers["query_fields"]].flatten(1))
    attended = [leaf(ads), leaf(ads)]

    def attention():
        _, histories, keys = twin.images(embeddings)
        return (twin.attention("attention.image", keys, histories, ads).sum()
                + twin.attention("attention.fields", keys, histories, query).sum())

    def mlp():
        return twin.head(twin.first_layer(of_group, of_impression, ads, attended))

    def ids():
        return twin.read(twin.group_fields).sum() + twin.read(twin.impression_fields).sum()

    def rows():
        twin.rows.begin()
        ids().backward()
        twin.rows.end()

    work = {
        "tower": lambda: twin.tower(step.features).sum().backward(),
        "attention": lambda: attention().backward(),
        "mlp": lambda: mlp().backward(),
        "rows, with their optimizer": rows,
        "dense optimizer": twin.optimizer.step,
    }

    def alone(name):
        if name != "dense optimizer":
            twin.optimizer.zero_grad()
        work[name]()

    twin.train()
    return {name: statistics.median(timed(count + WARMUP, lambda: alone(name))[WARMUP:])
            for name in ["dense optimizer", *(name for name in work if name != "dense optimizer")]}


def profile(twin):
    """What torch's profiler says of five steps."""
    from torch.profiler import ProfilerActivity, profile as profiled
    with profiled(activities=[ProfilerActivity.CPU]) as found:
        timed(5, twin.train)
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=30)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", type=pathlib.Path)
    parser.add_argument("--variant", choices=["eager", "compile", "gathered"], default="eager")
    parser.add_argument("--matmul", choices=["onednn", "mkl"], default="onednn", help="of the tower's first layer")
    parser.add_argument("--rows", choices=list(ROWS), help="dense, or lazy in a table of more rows, unless given")
    parser.add_argument("--table-rows", type=int, metavar="N")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", action="store_true", help="also ms of the parts")
    parser.add_argument("--profile", action="store_true", help="also what torch's profiler says")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.variant == "compile" and options.rows == "sparse":
        parser.error("--variant compile --rows sparse: compiled gradients are not sparse")
    if not all(os.environ.get(name) == value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    import torch
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    twin = Twin(Step(options.step), options)
    expected = twin.step.numbers["losses"]
    tolerance = SPARSE_TOLERANCE if options.rows == "sparse" else TOLERANCE
    begun = time.perf_counter()
    try:
        losses = [twin.train() for _ in expected]
    except Exception as error:
        if options.variant != "compile":
            raise
        sys.exit(f"torch.compile does not work here: {type(error).__name__}: {error}")
    for at, (loss, of_ams) in enumerate(zip(losses, expected)):
        if not abs(loss - of_ams) <= tolerance * abs(of_ams):
            sys.exit(f"{options.step}: the loss of step {at + 1} is {loss}, but {of_ams} by ams")
    timed(WARMUP, twin.train)
    warm = time.perf_counter() - begun
    times = timed(options.steps, twin.train)
    found = {"variant": options.variant, "matmul": options.matmul, "rows": type(twin.rows).__name__,
             "table_rows": options.table_rows or len(twin.step.rows), "threads": torch.get_num_threads(),
             "torch": torch.__version__, "losses": losses, "seconds_before": warm, "ms": times}
    if options.parts:
        found["parts"] = parts(twin, options.steps)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{statistics.median(times):.1f} ms a step [{min(times):.1f}, {max(times):.1f}], "
              f"{warm:.0f} s before the first")
        for name, ms in found.get("parts", {}).items():
            print(f"{ms:8.1f} ms {name}")
    if options.profile:
        print(profile(twin), file=sys.stderr)


if __name__ == "__main__":
    main()
