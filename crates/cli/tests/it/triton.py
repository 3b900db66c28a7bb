"""Scores a page view with Triton's own clients, over HTTP with tensors as JSON and as bytes, and over gRPC; prints the answers as JSON.

Usage: triton.py ADDRESS MODEL PAGE.json
"""

import json
import sys

import numpy
import tritonclient.grpc
import tritonclient.http

address, model, path = sys.argv[1:]
page = json.load(open(path))


def columns(names, bids="FP64", padding=0, batch=False):
    """Name, values and type of every tensor of the page view."""

    def column(name, values, datatype="BYTES"):
        dtype = {"BYTES": numpy.object_, "INT64": numpy.int64, "FP64": numpy.float64, "FP16": numpy.float16}[datatype]
        assert name in names, f"{name} is not among {names}"
        values = numpy.array(values, dtype=dtype)
        return name, values[None] if batch else values, datatype

    user = page["user"]
    yield column("user.id", [user["id"]])
    yield column("user.behaviors.item", user["behaviors"]["item"] + [""] * padding)
    yield column("user.behaviors.time", user["behaviors"]["time"] + [0] * padding, "INT64")
    yield column("candidates.item", page["candidates"]["item"])
    yield column("candidates.bid", [1] * len(page["candidates"]["item"]), bids)
    for name, value in user["features"].items():
        yield column(f"user.features.{name}", [value])
    for name, value in page["context"].items():
        yield column(f"context.{name}", [value])


def answer(triton, compression, **how):
    """The outputs of one client."""
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    described = client.get_model_metadata(model)
    tensors = described["inputs"] if isinstance(described, dict) else described.inputs
    names = [tensor["name"] if isinstance(tensor, dict) else tensor.name for tensor in tensors]

    def tensors_of(**spelled):
        for name, values, datatype in columns(names, **spelled):
            tensor = triton.InferInput(name, list(values.shape), datatype)
            tensor.set_data_from_numpy(values, **how)
            yield tensor

    inputs = list(tensors_of())
    result = client.infer(model, inputs, request_id="7")
    response = result.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "7"
    only = client.infer(model, inputs, outputs=[triton.InferRequestedOutput("ecpm")])
    assert only.as_numpy("ctr") is None
    outputs = {name: result.as_numpy(name).tolist() for name in ["ctr", "ecpm"]}
    assert only.as_numpy("ecpm").tolist() == outputs["ecpm"]
    half = [] if how.get("binary_data") is False else [{"bids": "FP16"}]
    for spelled in [{"bids": "INT64"}, {"padding": 3}, {"batch": True}, *half]:
        other = client.infer(model, list(tensors_of(**spelled)), **compression)
        assert other.as_numpy("ctr").flatten().tolist() == outputs["ctr"], spelled
        assert other.as_numpy("ecpm").flatten().tolist() == outputs["ecpm"], spelled
    try:
        client.infer("absent", inputs)
        sys.exit("a model that is not there answers")
    except tritonclient.utils.InferenceServerException as error:
        assert "no model" in str(error), error
    return outputs


http, grpc = tritonclient.http, tritonclient.grpc
gzip = {"request_compression_algorithm": "gzip"}
answers = [answer(http, gzip, binary_data=False), answer(http, gzip, binary_data=True), answer(grpc, {"compression_algorithm": "gzip"})]
print(json.dumps(answers))
