"""The scores of a published model by a plain Python server: PyTorch, or ONNX Runtime with the same network exported.

    serve.py MODEL_VERSION ITEMS_CSV --engine torch|onnx --port 8700 [--workers 2] [--check REQUESTS]

Written as a good user would: the user's part once per page view, attention's first layer split into a part per behavior and
a part per candidate, rows and embeddings gathered from one table, items resolved by a dictionary, orjson, uvicorn with uvloop
and httptools, one thread per worker. It answers `POST /v1/models/{model}/score` of `ams serve`, for networks with both
images, attention and single-valued fields. `--check` prints the sum of the rates of the requests in a file, and ends.
"""
import argparse
import csv
import json
import os
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from safetensors.numpy import load_file

torch.set_grad_enabled(False)


def hashed(field, text):
    """As crates/data/src/id.rs."""
    return xxhash.xxh3_64_intdigest(field.encode() + b"\0" + text.encode())


class Bundle:
    """A bundle's files, and what a request needs of them."""

    def __init__(self, folder, items_csv):
        self.spec = json.loads((folder / "MANIFEST.json").read_text())["meta"]["spec"]
        files = {name: load_file(folder / f"{name}.safetensors")
                 for name in ("dense", "ids", "image_table", "pictures", "items")}
        self.dense = {name: torch.from_numpy(values) for name, values in files["dense"].items()}
        ids, rows = files["ids"]["ids"], files["ids"]["rows"].astype("float32")
        # The last row is of what nobody knows.
        self.rows = torch.from_numpy(np.vstack([rows, np.zeros((1, rows.shape[1]), "float32")]))
        self.ids, self.unknown = ids, len(ids)
        fields = self.spec["fields"]
        used = [field for field in fields if field["name"] not in self.spec["exclude_fields"]]
        self.side = {side: [field["name"] for field in used if field["side"] == side]
                     for side in ("user", "behavior", "ad", "context")}
        table = files["image_table"]
        self.tables = {}
        for side in ("ad", "behavior"):
            embeddings = table[side] if side in table else table["image"]
            none = self.dense[f"rank.{side}.no_image"].numpy()[None]
            self.tables[side] = torch.from_numpy(np.vstack([embeddings, none]))
        self.items(files, table["keys"], items_csv)

    def row(self, ids):
        """Places of ids among the rows."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, self.unknown)

    def items(self, files, image_keys, items_csv):
        with open(items_csv, newline="") as file:
            texts = [line["item"] for line in csv.DictReader(file)]
        items, pictures = files["items"], files["pictures"]
        known = {item: place for place, item in enumerate(items["items"].tolist())}
        places = np.array([known[hashed("item", text)] for text in texts])
        names = {name: key for name, key in zip(pictures["names"].tolist(), pictures["keys"].tolist())}
        keys = np.array([names.get(items["pictures"][place].item(), 0) for place in places], "uint64")
        at = np.minimum(np.searchsorted(image_keys, keys), len(image_keys) - 1)
        self.image = np.append(np.where(image_keys[at] == keys, at, len(image_keys)), len(image_keys))
        columns = {"item": np.array([hashed("item", text) for text in texts], "uint64")}
        for name in set(self.side["ad"]) - {"item"}:
            lengths, values = items[f"field.{name}.lengths"], items[f"field.{name}.ids"]
            assert lengths.max() <= 1, f"{name} has several values"
            column = np.zeros(len(lengths), "uint64")
            column[lengths == 1] = values
            columns[name] = column[places]
        image_ids = np.array([xxhash.xxh3_64_intdigest(b"image\0" + key.tobytes()) for key in keys], "uint64")
        columns["image"] = np.where(keys == 0, 0, image_ids)
        # Places of rows by item and field; the last item is one that nobody knows.
        self.place = {text: place for place, text in enumerate(texts)}
        self.item_rows = {name: np.append(self.row(column), self.unknown) for name, column in columns.items()}

    def inputs(self, page):
        """Arrays of one page view: rows of the user's fields and of the candidates', images of both sides."""
        user, candidates = page.get("user", {}), page["candidates"]["item"]
        nobody = len(self.place)
        find = lambda items: np.array([self.place.get(str(item), nobody) for item in items], "int64")
        shown = find(candidates)
        past = find(user.get("behaviors", {}).get("item", [])[: self.spec["max_behaviors"]])
        one = lambda field, value: self.row(np.array([hashed(field, str(value))], "uint64"))
        features, context = user.get("features", {}), page.get("context", {})
        group = [one("user", user["id"]) if name == "user" else one(name, features.get(name, "")) for name in self.side["user"]]
        group += [self.item_rows[name][past] for name in [*self.side["behavior"], "image"]]
        length = max(len(past), 1)
        group = np.stack([np.pad(rows, (0, length - len(rows)), constant_values=self.unknown) for rows in group])
        # DESIGN's order: the ad's fields, the context's, the image's id.
        impression = [self.item_rows[name][shown] for name in self.side["ad"]]
        impression += [np.repeat(one(name, context.get(name, "")), len(shown)) for name in self.side["context"]]
        impression += [self.item_rows["image"][shown]]
        return group.astype("int64"), np.stack(impression, 1).astype("int64"), self.image[shown], self.image[past]


class Network(torch.nn.Module):
    """Both images, with one query or two."""

    def __init__(self, bundle):
        super().__init__()
        spec = bundle.spec
        assert spec["images"] == "joint" and spec["aggregator"] in ("attentive", "multi-query-attentive"), spec
        self.w = {name.removeprefix("rank."): values for name, values in bundle.dense.items() if name.startswith("rank.")}
        self.rows, self.ads, self.behaviors = bundle.rows, bundle.tables["ad"], bundle.tables["behavior"]
        self.channels = ["image", "fields"] if spec["aggregator"].startswith("multi") else ["image"]
        self.query = [bundle.side["ad"].index(name) for name in spec["query_fields"]]
        self.layers = len(spec["mlp"])

    def attend(self, channel, e, query):
        w = lambda name: self.w[f"attention.{channel}.{name}"]
        x = (e @ w("0.key.weight").T)[None] + F.linear(query, w("0.query.weight"), w("0.query.bias"))[:, None]
        x = F.linear(self.prelu(x, w("0.slope")), w("1.weight"), w("1.bias"))
        x = F.linear(self.prelu(x, w("1.slope")), w("2.weight"), w("2.bias"))
        return x[..., 0] @ e

    @staticmethod
    def prelu(x, slope):
        return torch.where(x >= 0, x, slope * x)

    def forward(self, group, impression, ad_images, behavior_images):
        u = self.rows[group].sum(1).flatten()
        fields = self.rows[impression]
        image, e = self.ads[ad_images], self.behaviors[behavior_images]
        queries = {"image": image, "fields": fields[:, self.query].flatten(1)}
        parts = [fields.flatten(1), image] + [self.attend(channel, e, queries[channel]) for channel in self.channels]
        x = F.linear(torch.cat(parts, 1), self.w["mlp.0.impression.weight"])
        x = x + F.linear(u, self.w["mlp.0.group.weight"], self.w["mlp.0.group.bias"])
        for layer in range(1, self.layers + 1):
            x = self.prelu(x, self.w[f"mlp.{layer - 1}.slope"])
            x = F.linear(x, self.w[f"mlp.{layer}.weight"], self.w[f"mlp.{layer}.bias"])
        return torch.sigmoid(x[:, 0])


def engine(name, bundle):
    """From the arrays of a page view to its rates."""
    network = Network(bundle).eval()
    if name == "torch":
        return lambda arrays: network(*map(torch.from_numpy, arrays)).numpy()
    import onnxruntime

    path = pathlib.Path(os.environ["AMS_PEER_ONNX"])
    if not path.exists():
        example = bundle.inputs({"candidates": {"item": list(bundle.place)[:5]},
                                 "user": {"id": "0", "behaviors": {"item": list(bundle.place)[:3]}}})
        names = ["group", "impression", "ad_images", "behavior_images"]
        size = torch.export.Dim.DYNAMIC
        shapes = ({1: size}, {0: size}, {0: size}, {0: size})
        torch.onnx.export(network, tuple(map(torch.from_numpy, example)), path, input_names=names, output_names=["ctr"],
                          dynamic_shapes=shapes, dynamo=True, external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays)))[0]


class Server:
    """An ASGI application."""

    def __init__(self):
        import orjson

        torch.set_num_threads(1)
        options = json.loads(os.environ["AMS_PEER"])
        self.json = orjson
        self.bundle = Bundle(pathlib.Path(options["model"]), options["items"])
        self.rates = engine(options["engine"], self.bundle)

    def answer(self, body):
        page = self.json.loads(body)
        ctr = self.rates(self.bundle.inputs(page)).astype("float64")
        items, bids = page["candidates"]["item"], page["candidates"].get("bid")
        ecpm = ctr * np.array(bids) if bids else ctr
        order = np.argsort(-ecpm, kind="stable")
        return self.json.dumps({"items": [items[at] for at in order], "ctr": ctr[order].tolist(), "ecpm": ecpm[order].tolist()})

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = self.answer(body) if scope["method"] == "POST" else b"ready"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})


def app():
    return Server()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("items", type=pathlib.Path)
    parser.add_argument("--engine", choices=["torch", "onnx"], default="torch")
    parser.add_argument("--port", type=int, default=8700)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--check", type=pathlib.Path)
    options = parser.parse_args()
    os.environ["AMS_PEER"] = json.dumps({"model": str(options.model.resolve()), "items": str(options.items.resolve()),
                                         "engine": options.engine})
    os.environ.setdefault("AMS_PEER_ONNX", str(pathlib.Path.cwd() / "peer.onnx"))
    if options.check or options.engine == "onnx":
        # Exports once, before workers start.
        server = Server()
        if options.check:
            pages = [json.loads(line) for line in options.check.read_text().splitlines()]
            print(sum(float(server.rates(server.bundle.inputs(page)).astype("float64").sum()) for page in pages))
            return
    import uvicorn

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    uvicorn.run("serve:app", factory=True, port=options.port, workers=options.workers, log_level="warning")


if __name__ == "__main__":
    main()
