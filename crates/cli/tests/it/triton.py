"""Scores a page view with Triton's own client, its tensors as JSON and as bytes; prints both answers as JSON.

Usage: triton.py ADDRESS MODEL PAGE.json
"""

import json
import sys

import numpy
import tritonclient.http as triton

address, model, path = sys.argv[1:]
page = json.load(open(path))
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
names = [tensor["name"] for tensor in client.get_model_metadata(model)["inputs"]]


def column(name, values, datatype="BYTES"):
    dtype = {"BYTES": numpy.object_, "INT64": numpy.int64, "FP64": numpy.float64}[datatype]
    assert name in names, f"{name} is not among {names}"
    return name, numpy.array(values, dtype=dtype), datatype


user = page["user"]
columns = [
    column("user.id", [user["id"]]),
    column("user.behaviors.item", user["behaviors"]["item"]),
    column("user.behaviors.time", user["behaviors"]["time"], "INT64"),
    column("candidates.item", page["candidates"]["item"]),
    column("candidates.bid", [1.0] * len(page["candidates"]["item"]), "FP64"),
]
columns += [column(f"user.features.{name}", [value]) for name, value in user["features"].items()]
columns += [column(f"context.{name}", [value]) for name, value in page["context"].items()]

answers = []
for binary in [False, True]:
    inputs = []
    for name, values, datatype in columns:
        tensor = triton.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    result = client.infer(model, inputs, request_id="7")
    assert result.get_response()["id"] == "7"
    answers.append({name: result.as_numpy(name).tolist() for name in ["ctr", "ecpm"]})
print(json.dumps(answers))

try:
    client.infer("absent", inputs)
    sys.exit("a model that is not there answers")
except triton.InferenceServerException as error:
    assert "no model" in str(error), error
