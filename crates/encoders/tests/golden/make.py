#!/usr/bin/env python3
"""Small networks with what onnxruntime and PyTorch compute by them.

usage: crates/encoders/tests/golden/make.py [--check]

Needs onnx, onnxruntime, torch, safetensors, numpy and Pillow. Writes the files beside itself; --check compares golden.json
with what is computed now and writes nothing. The tests read the files and need none of these packages.
"""
import argparse
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save

HERE = pathlib.Path(__file__).resolve().parent
SIZE = 16
# Width and height of the pictures, drawn by the same formula in the tests.
PICTURES = [(40, 30), (16, 16), (1, 1), (9, 70)]
# Likewise, for VGG16: cut out, but not resized, so that nothing is rounded and the network alone is compared.
CUT = [(64, 64), (70, 64), (64, 81)]
BRACKETS = [[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]]


def picture(width, height):
    at = np.arange(width * height)
    x, y = at % width, at // width
    channels = [(x * 7 + y * 3) % 256, (x * x + 5 * y) % 256, (x * y + 90) % 256]
    return Image.fromarray(np.stack(channels, 1).astype(np.uint8).reshape(height, width, 3))


def centered(image, shorter, size, filter):
    """As torchvision's Resize and CenterCrop."""
    width, height = image.size
    if width <= height:
        to = (shorter, int(shorter * height / width))
    else:
        to = (int(shorter * width / height), shorter)
    image = image.resize(to, filter)
    left, top = (round((side - size) / 2) for side in to)
    return image.crop((left, top, left + size, top + size))


def whole(image, size, filter):
    return image.resize((size, size), filter)


def planes(image, mean, std, full):
    pixels = np.asarray(image, np.float32) / full
    return ((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[None].astype(np.float32)


def network(draw, dims, kind=TensorProto.FLOAT, nhwc=False, pairs=False):
    """A convolution, a depthwise one, a mean over the plane, and a matrix: the shape of networks for pictures."""
    numbers = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights = {"stem.weight": draw((4, 3, 3, 3)), "stem.bias": draw(4), "depth.weight": draw((4, 1, 3, 3)),
               "head.weight": draw((4, 3)), "head.bias": draw(3)}
    weights = [numpy_helper.from_array(value.astype(numbers), name) for name, value in weights.items()]
    nodes = []
    if nhwc:
        nodes.append(helper.make_node("Transpose", ["image"], ["planes"], "turn", perm=[0, 3, 1, 2]))
    nodes += [
        helper.make_node("Conv", ["planes" if nhwc else "image", "stem.weight", "stem.bias"], ["stem"], "stem-conv",
                         strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem"], ["stem.relu"], "stem-relu"),
        helper.make_node("Conv", ["stem.relu", "depth.weight"], ["depth"], "depth-conv", group=4, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["depth"], ["pooled"], "pool"),
    ]
    if pairs:
        weights.append(numpy_helper.from_array(np.array([2, 4]), "rows"))
        nodes.append(helper.make_node("Reshape", ["pooled", "rows"], ["features"], "flat"))
    else:
        nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], "flat"))
    nodes.append(helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], "head"))
    outputs = [helper.make_tensor_value_info("features", kind, [dims[0], 4]),
               helper.make_tensor_value_info("logits", kind, [dims[0], 3])]
    inputs = [helper.make_tensor_value_info("image", kind, dims)]
    return model(nodes, inputs, outputs, weights)


def model(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "small", inputs, outputs, list(weights))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="golden")
    made.ir_version = 8
    return made


def drawer(seed):
    generator = np.random.default_rng(seed)
    return lambda shape: generator.standard_normal(shape).astype(np.float32) * 0.5


def models():
    n = ["n", 3, SIZE, SIZE]
    small = network(drawer(1), n)
    outside = network(drawer(1), n)
    weights = b""
    for tensor in outside.graph.initializer:
        data = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in [("location", "outside.weights"), ("offset", str(len(weights))), ("length", str(len(data)))]:
            tensor.external_data.add(key=key, value=value)
        weights += data
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, n)
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, n)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, n)
    return {
        "small.onnx": small.SerializeToString(),
        "outside.onnx": outside.SerializeToString(),
        "outside.weights": weights,
        "nhwc.onnx": network(drawer(1), ["n", SIZE, SIZE, 3], nhwc=True).SerializeToString(),
        "half.onnx": network(drawer(1), n, TensorProto.FLOAT16).SerializeToString(),
        "half-inside.onnx": halved(drawer(1)).SerializeToString(),
        "bfloat.onnx": bfloats(drawer(1)).SerializeToString(),
        "towers.onnx": towers(drawer(1)).SerializeToString(),
        "tokens.onnx": tokens(drawer(2)).SerializeToString(),
        "strided.onnx": strided(drawer(3)).SerializeToString(),
        "pairs.onnx": network(drawer(1), [2, 3, SIZE, SIZE], pairs=True).SerializeToString(),
        "two-inputs.onnx": model([helper.make_node("Add", ["image", "mask"], ["out"], "add")], [image, mask],
                                 [out]).SerializeToString(),
        "unknown.onnx": model([helper.make_node("Relu", ["image"], ["calm"], "relu"),
                               helper.make_node("Bewilder", ["calm"], ["out"], "odd")], [image],
                              [out]).SerializeToString(),
    }


def halved(draw):
    """The small network with halfs inside only: casts, halfs kept as integers, a constant and an epsilon beside it."""
    made = network(draw, ["n", 3, SIZE, SIZE])
    graph = made.graph
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT16, values.shape, values.flatten())
                        if tensor.name.endswith("bias")
                        else numpy_helper.from_array(values, tensor.name))
    one = numpy_helper.from_array(np.ones(1, np.float16))
    for node in graph.node:
        node.input[:] = ["inside" if name == "image" else name for name in node.input]
        node.output[:] = ["sum" if name == "features" else name for name in node.output]
        node.input[:] = ["sum" if name == "features" else name for name in node.input]
    graph.node.insert(0, helper.make_node("Cast", ["image"], ["inside"], "in", to=TensorProto.FLOAT16))
    graph.node.append(helper.make_node("Constant", [], ["one"], "constant", value=one))
    graph.node.append(helper.make_node("Mul", ["sum", "one"], ["product"], "times-one"))
    graph.node.append(helper.make_node("Cast", ["product"], ["features"], "out", to=TensorProto.FLOAT))
    del graph.output[1]
    return made


def bfloats(draw):
    """The small network with weights as bfloats."""
    made = network(draw, ["n", 3, SIZE, SIZE])
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.BFLOAT16, values.shape, bits.tobytes(), raw=True))
    for value in [*made.graph.input, *made.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    return made


def towers(draw):
    """Text and picture with a similarity, as CLIP is exported: dimensions by name, three inputs, a weight listed as one."""
    made = network(draw, ["image_batch", 3, "height", "width"])
    graph = made.graph
    del graph.output[:], graph.node[-1]
    graph.node.append(helper.make_node("Identity", ["features"], ["image_embeds"], "visual"))
    words = np.arange(40, dtype=np.float32).reshape(10, 4)
    graph.initializer.append(numpy_helper.from_array(words, "words"))
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "axis"))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["text_batch", "length"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["text_batch", "length"])
    listed = helper.make_tensor_value_info("stem.bias", TensorProto.FLOAT, [4])
    graph.input.insert(0, ids)
    graph.input.extend([mask, listed])
    graph.node.extend([
        helper.make_node("Gather", ["words", "input_ids"], ["spoken"], "look-up"),
        helper.make_node("Cast", ["attention_mask"], ["weights"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "axis"], ["column"], "column"),
        helper.make_node("Mul", ["spoken", "column"], ["heard"], "mask"),
        helper.make_node("ReduceMean", ["heard"], ["text_embeds"], "text", axes=[1], keepdims=0),
        helper.make_node("Transpose", ["text_embeds"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["image_embeds", "turned"], ["logits_per_image"], "similarity"),
    ])
    for name, dims in [("logits_per_image", ["image_batch", "text_batch"]), ("text_embeds", ["text_batch", 4]),
                       ("image_embeds", ["image_batch", 4])]:
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    return made


def tokens(draw):
    """A class token before one for every patch of 4 x 4, as vision transformers give them."""
    weights = [numpy_helper.from_array(draw((6, 3, 4, 4)), "patch.weight"),
               numpy_helper.from_array(draw((1, 1, 6)), "class"),
               numpy_helper.from_array(np.array([0, 6, -1]), "sizes"),
               numpy_helper.from_array(np.array([1, 1, 1]), "ones")]
    nodes = [
        helper.make_node("Conv", ["image", "patch.weight"], ["patches"], "patch", strides=[4, 4]),
        helper.make_node("Reshape", ["patches", "sizes"], ["flat"], "flat"),
        helper.make_node("Transpose", ["flat"], ["turned"], "turn", perm=[0, 2, 1]),
        helper.make_node("Expand", ["class", "ones"], ["first"], "expand"),
        helper.make_node("ReduceMean", ["turned"], ["mean"], "mean", axes=[1], keepdims=1),
        helper.make_node("Add", ["first", "mean"], ["cls"], "add"),
        helper.make_node("Concat", ["cls", "turned"], ["last_hidden_state"], "tokens", axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", 17, 6])
    return model(nodes, [image], [out], weights)


def strided(draw):
    """Every second row from the second one on, as Swin transformers merge patches."""
    weights = [numpy_helper.from_array(draw((4, 3, 3, 3)), "stem.weight"),
               *(numpy_helper.from_array(np.array([value]), name)
                 for name, value in [("first", 1), ("end", 8), ("axis", 2), ("step", 2)])]
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["stem"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Slice", ["stem", "first", "end", "axis", "step"], ["odd"], "odd"),
        helper.make_node("GlobalAveragePool", ["odd"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], "flat"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
    return model(nodes, [image], [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4])], weights)


class Vgg(torch.nn.Module):
    """VGG16 as torchvision builds it, with few channels, for pictures of 64 x 64."""

    def __init__(self, channels, full):
        super().__init__()
        layers, before = [], 3
        for bracket, width in zip(BRACKETS, channels):
            for _ in bracket:
                layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
                before = width
            layers.append(torch.nn.MaxPool2d(2, 2))
        self.features = torch.nn.Sequential(*layers)
        fc6, fc7, fc8 = full
        self.classifier = torch.nn.Sequential(
            torch.nn.Linear(before * 4, fc6), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(fc6, fc7),
            torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(fc7, fc8))

    def forward(self, image):
        fc6 = self.classifier[0](torch.flatten(self.features(image), 1))
        return {"fc6-raw": fc6, "fc6": torch.relu(fc6), "fc8": self.classifier[1:](fc6)}


def vgg():
    torch.manual_seed(5)
    network = Vgg([2, 3, 4, 5, 6], [7, 5, 3]).eval()
    for parameter in network.parameters():
        # Larger than PyTorch's own, so that something of the picture arrives at the end.
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return network


def timm(state):
    """The same weights under timm's names and in its shapes."""
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    out = {}
    for name, value in state.items():
        layer, kind = name.rsplit(".", 1)
        if kind == "weight" and layer in ("classifier.0", "classifier.3"):
            side = 2 if layer == "classifier.0" else 1
            value = value.reshape(value.shape[0], -1, side, side)
        out[f"{names.get(layer, layer)}.{kind}"] = value.contiguous()
    return out


def golden(files, network):
    def rows(name, prepare, output, pool=lambda row: row):
        made = onnx.load_from_string(files[name])
        if output not in [value.name for value in made.graph.output]:
            made.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
        session = onnxruntime.InferenceSession(made.SerializeToString())
        run = lambda size: session.run([output], {"image": prepare(picture(*size))})[0].astype(float)[0]
        return [pool(run(size)).tolist() for size in PICTURES]

    imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torchvision = lambda image: planes(centered(image, 20, SIZE, Image.BILINEAR), *imagenet, 255)
    lite = lambda image: planes(whole(image, SIZE, Image.BICUBIC), 127, 128, 1)
    seen = [planes(centered(picture(*size), 64, 64, Image.BILINEAR), *imagenet, 255) for size in CUT]
    with torch.no_grad():
        made = [network(torch.from_numpy(image)) for image in seen]
    return {
        "small.onnx features, imagenet": rows("small.onnx", torchvision, "features"),
        "small.onnx features, whole": rows("small.onnx", lite, "features"),
        "small.onnx logits, whole": rows("small.onnx", lite, "logits"),
        "small.onnx stem, mean": rows("small.onnx", lite, "stem.relu", lambda maps: maps.mean((1, 2))),
        "tokens.onnx first": rows("tokens.onnx", lite, "last_hidden_state", lambda tokens: tokens[0]),
        "tokens.onnx mean": rows("tokens.onnx", lite, "last_hidden_state", lambda tokens: tokens.mean(0)),
        "strided.onnx": rows("strided.onnx", lite, "features"),
        **{f"vgg16 {output}": [rows[output][0].tolist() for rows in made] for output in ("fc6-raw", "fc6", "fc8")},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    files, network = models(), vgg()
    values = golden(files, network)
    if options.check:
        kept = json.loads((HERE / "golden.json").read_text())
        for name, rows in values.items():
            if not np.allclose(rows, kept[name], rtol=1e-4, atol=1e-5):
                sys.exit(f"{name}: computed {rows}, kept {kept[name]}")
        print(f"{len(values)} golden values are as computed now")
        return
    for name, data in files.items():
        (HERE / name).write_bytes(data)
    state = {name: value.detach() for name, value in network.state_dict().items()}
    (HERE / "vgg16.safetensors").write_bytes(save(state))
    (HERE / "vgg16-timm.safetensors").write_bytes(save(timm(state)))
    (HERE / "golden.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
