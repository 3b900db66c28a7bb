#!/usr/bin/env python3
"""Image features by onnxruntime and Pillow: the peer of `ams encode` with an ONNX network.

usage: bench/peers/encode.py NETWORK OUTPUT FOLDER --processes N --threads N --batch N

Prints one JSON object: pictures, seconds from the network's loading to the last row, and the sum of all features. Each
process decodes and computes its own part of the pictures, with so many threads of onnxruntime.
"""
import argparse
import json
import multiprocessing
import pathlib
import time

import numpy as np
import onnxruntime
from PIL import Image


def prepared(path):
    image = Image.open(path).convert("RGB").resize((224, 224), Image.BICUBIC)
    return ((np.asarray(image, np.float32) - 127) / 128).transpose(2, 0, 1)


def encode(network, output, paths, threads, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    name, total = session.get_inputs()[0].name, 0.0
    for first in range(0, len(paths), batch):
        pictures = np.stack([prepared(path) for path in paths[first : first + batch]])
        total += float(session.run([output], {name: pictures})[0].astype(np.float16).sum(dtype=np.float64))
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("output")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    paths = sorted(options.folder.iterdir())
    parts = [paths[at :: options.processes] for at in range(options.processes)]
    jobs = [(options.network, options.output, part, options.threads, options.batch) for part in parts]
    with multiprocessing.Pool(options.processes) as pool:
        pool.map(abs, range(options.processes))
        begin = time.perf_counter()
        total = sum(pool.starmap(encode, jobs, chunksize=1))
        seconds = time.perf_counter() - begin
    print(json.dumps({"pictures": len(paths), "seconds": seconds, "sum": total}))


if __name__ == "__main__":
    main()
