#!/usr/bin/env python3
"""The reference training step of ams in PyTorch, as fast as we could make it on a CPU.

usage: bench/peers/step.py STEP [--variant eager|compile|gathered] [--matmul onednn|mkl] [--rows dense|lazy|sparse]
                           [--table-rows N] [--losses L,L,...] [--steps N] [--threads N]
                           [--parts] [--profile] [--json]

STEP  folder that `ams bench step --export STEP` wrote: step.json and step.safetensors

Takes the step's batch and first weights, takes steps on this one batch, checks that the losses of the first ones are
those that `ams bench step --json` says (--losses), and says how many ms a step takes: forward, backward, Adam for all weights and rows,
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

Matrix products (--matmul): MKL, which torch multiplies floats by, takes its AVX-512 kernels on processors by Intel alone.

- as-intel: MKL is told that this is one, by a preloaded library of one function (needs a C compiler).
- onednn: the tower's first layer as a convolution of one pixel, which oneDNN does, by AVX-512 on any processor.
- mkl: as installed.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
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
        self.group_fields, self.impression_fields = (
            [self.field(tensors, f"{name}_field.{at}") for at in range(numbers[f"{name}_fields"])]
            for name in ("group", "impression"))
        self.rows = tensors["rows"]
        self.weights = {name.removeprefix("w."): tensor.requires_grad_() for name, tensor in tensors.items()
                        if name.startswith(("w.", "tower."))}

    def field(self, tensors, name):
        """The rows of a field, (groups or impressions, values)."""
        lengths = tensors[f"{name}.offsets"].diff()
        if not (lengths == lengths[0]).all():
            sys.exit(f"{name}: some have {lengths.min()} values, some {lengths.max()}; expected as many each")
        return tensors[f"{name}.rows"].long().view(len(lengths), -1)

    def adam(self, parameters, rate="learning_rate", **settings):
        """The settings of an optimizer of torch, to call it with; its other constants are those of ams."""
        return {"params": parameters, "lr": self.numbers[rate], **settings}


def stacked(fields):
    """Neighboring fields with as many values each, together: (groups or impressions, fields, values)."""
    import itertools
    import torch
    return [torch.stack(list(together), 1) for _, together in itertools.groupby(fields, lambda field: field.shape[1])]


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
            [self.rows.at[together] for together in stacked(fields)]
            for fields in (step.group_fields, step.impression_fields))
        self.optimizer = torch.optim.Adam(**step.adam(list(self.w.values()), fused=True))
        # What torch.compile makes of PReLU is better than what can be made of it by hand.
        self.split = options.variant != "compile"
        self.loss = {"eager": self.grouped, "compile": self.grouped, "gathered": self.gathered}[options.variant]
        if options.variant == "compile":
            self.loss = torch.compile(self.grouped, dynamic=False)
        # Impressions of one group share its user and its history.
        of_group = torch.arange(step.groups).repeat_interleave(step.shown)
        if options.variant == "gathered":
            self.group_fields = [fields[of_group] for fields in self.group_fields]
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
        if self.options.matmul != "onednn":
            return self.linear(name, x)
        x = x[None, :, None].permute(0, 3, 1, 2)
        z = F.conv2d(x, self.w[f"{name}.weight"][:, :, None, None], self.w[f"{name}.bias"])
        return z.permute(0, 2, 3, 1).flatten(0, 2)

    def prelu(self, name, z):
        import torch
        import torch.nn.functional as F
        slope = self.w[f"{name}.slope"]
        if self.split:
            return torch.addcmul(slope * z, 1 - slope, F.relu(z))
        return F.prelu(z, slope)

    def tower(self, features):
        z = self.prelu("tower.0", self.wide_linear("tower.0", features))
        z = self.prelu("tower.1", self.linear("tower.1", z))
        return self.linear("tower.2", z)

    def read(self, fields):
        """(groups or impressions, fields, D); the values of a field are added."""
        import torch
        import torch.nn.functional as F
        sparse = isinstance(self.rows, SparseRows)
        read = [F.embedding(together, self.rows.leaf, sparse=sparse) for together in fields]
        read = [rows.squeeze(2) if rows.shape[2] == 1 else rows.sum(2) for rows in read]
        return torch.cat(read, 1) if len(read) > 1 else read[0]

    def head(self, z):
        """From what the first layer makes to the loss."""
        import torch.nn.functional as F
        z = self.prelu("mlp.1", self.linear("mlp.1", self.prelu("mlp.0", z)))
        return F.binary_cross_entropy_with_logits(self.linear("mlp.2", z).squeeze(1), self.step.labels)

    def upper_attention(self, name, z):
        """Weights of pairs, (pairs, 1), given what the first layer makes of them, (pairs, 64)."""
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
        keys = keys.view(step.groups, 1, step.history, -1)
        query = self.linear(f"{name}.0.query", query).view(step.groups, step.shown, 1, -1)
        weights = (self.split_attention if self.split else self.pairs)(name, keys, query)
        return torch.bmm(weights.view(step.groups, step.shown, step.history), histories).flatten(0, 1)

    def pairs(self, name, keys, query):
        return self.upper_attention(name, (keys + query).flatten(0, 2))

    def split_attention(self, name, keys, query):
        """The same, where PReLU is s z + (1 - s) relu(z). z is a sum of a key's part and of a query's, so that the next
        layer of s z is one too: no pair needs it. Of the pairs relu(z) remains, and slopes get their gradients
        through the small matrices."""
        import torch.nn.functional as F
        slope, weight = self.w[f"{name}.0.slope"], self.w[f"{name}.1.weight"]
        z = F.relu_(keys + query).flatten(0, 2) @ (weight * (1 - slope)).t()
        weight = weight * slope
        linear = F.linear(keys, weight) + F.linear(query, weight, self.w[f"{name}.1.bias"])
        z = z + linear.flatten(0, 2)
        slope, weight = self.w[f"{name}.1.slope"], self.w[f"{name}.2.weight"]
        return F.linear(z, weight * slope, self.w[f"{name}.2.bias"]) + F.relu(z) @ (weight * (1 - slope)).t()

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


def as_intel(folder):
    """A library that tells MKL, when preloaded, that it is on a processor by Intel."""
    library = folder.resolve() / "as-intel.so"
    if not library.exists():
        source = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
        try:
            subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"--matmul as-intel needs a C compiler: {error}")
    return str(library)


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
    parser.add_argument("--matmul", choices=["as-intel", "onednn", "mkl"], default="as-intel")
    parser.add_argument("--rows", choices=list(ROWS), help="dense, or lazy in a table of more rows, unless given")
    parser.add_argument("--table-rows", type=int, metavar="N")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", action="store_true", help="also ms of the parts")
    parser.add_argument("--profile", action="store_true", help="also what torch's profiler says")
    parser.add_argument("--losses", type=lambda text: list(map(float, text.split(","))), metavar="L,L,...",
                        help="of the first steps, by ams")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.variant == "compile" and options.rows == "sparse":
        parser.error("--variant compile --rows sparse: compiled gradients are not sparse")
    environment = dict(ENVIRONMENT)
    if options.matmul == "as-intel":
        environment["LD_PRELOAD"] = as_intel(options.step)
    if not all(os.environ.get(name) == value for name, value in environment.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment})
    import torch
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    twin = Twin(Step(options.step), options)
    expected = options.losses or []
    tolerance = SPARSE_TOLERANCE if options.rows == "sparse" else TOLERANCE
    begun = time.perf_counter()
    try:
        losses = [twin.train() for _ in range(max(WARMUP, len(expected)))]
    except Exception as error:
        if options.variant != "compile":
            raise
        sys.exit(f"torch.compile does not work here: {type(error).__name__}: {error}")
    for at, (loss, of_ams) in enumerate(zip(losses, expected)):
        if not abs(loss - of_ams) <= tolerance * abs(of_ams):
            sys.exit(f"{options.step}: the loss of step {at + 1} is {loss}, but {of_ams} by ams")
    warm = time.perf_counter() - begun
    times = timed(options.steps, twin.train)
    found = {"variant": options.variant, "matmul": options.matmul, "rows": type(twin.rows).__name__,
             "table_rows": options.table_rows or len(twin.step.rows), "threads": torch.get_num_threads(),
             "torch": torch.__version__, "losses": losses, "seconds_before": warm,
             "ms": statistics.median(times), "ms_range": [min(times), max(times)]}
    if options.parts:
        found["parts"] = parts(twin, options.steps)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['ms']:.1f} ms a step [{min(times):.1f}, {max(times):.1f}], "
              f"{warm:.0f} s before the first")
        for name, ms in found.get("parts", {}).items():
            print(f"{ms:8.1f} ms {name}")
    if options.profile:
        print(profile(twin), file=sys.stderr)


if __name__ == "__main__":
    main()
