#!/usr/bin/env python3
"""What a network makes of a JPEG picture that is decoded at a reduced size, beside the whole one.

usage: bench/reduced_jpeg.py NETWORK OUTPUT WORK OUT

NETWORK  encoders/efficientnet_lite0.onnx of the data; OUTPUT is its node of features
WORK     folder for a Python environment if this Python has not got what is needed
OUT      folder for results.jsonl and table.md

Pictures are the photographs that scikit-image and scikit-learn bring along, as they are and three times as wide and
high, as JPEG of quality 90. libjpeg decodes them whole, and at the least half, quarter or eighth that is so many times
the network's 224 pixels; Pillow's bicubic filter makes 224 x 224 of both.
"""
import argparse
import io
import json
import pathlib
import statistics
import time

from peers.packages import with_packages

NEEDS = {"numpy": "numpy", "onnxruntime": "onnxruntime", "PIL": "pillow", "skimage": "scikit-image",
         "sklearn": "scikit-learn"}
SIDE, ENLARGED, TIMES, TOLERANCE = 224, (1, 3), (1, 2), 0.9999


def photographs():
    import skimage
    import sklearn

    for package in (skimage, sklearn):
        for path in sorted(pathlib.Path(package.__file__).parent.rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png") and "data" in path.parts[-2] + path.parts[-3]:
                yield path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("output")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with_packages(options.work / "venv", NEEDS)
    import numpy as np
    import onnxruntime
    from PIL import Image

    session = onnxruntime.InferenceSession(options.network, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def decoded(jpeg, times=None):
        """224 x 224 pixels, the size they were decoded at, and the seconds that both took."""
        begin = time.perf_counter()
        image = Image.open(io.BytesIO(jpeg))
        if times:
            image.draft("RGB", (times * SIDE, times * SIDE))
        size = image.size
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BICUBIC), np.float32)
        return pixels, size, time.perf_counter() - begin

    def row(pixels):
        return session.run([options.output], {name: ((pixels - 127) / 128).transpose(2, 0, 1)[None]})[0][0]

    results = []
    for path in photographs():
        image = Image.open(path)
        if min(image.size) < SIDE:
            continue
        image = image.convert("RGB")
        for enlarged in ENLARGED:
            larger = image.resize([side * enlarged for side in image.size], Image.LANCZOS) if enlarged > 1 else image
            file = io.BytesIO()
            larger.save(file, "JPEG", quality=90)
            pixels, whole_size, seconds = decoded(file.getvalue())
            whole = row(pixels)
            for times in TIMES:
                pixels, size, reduced_seconds = decoded(file.getvalue(), times)
                if size != whole_size:
                    reduced = row(pixels)
                    cosine = float(reduced @ whole / np.linalg.norm(reduced) / np.linalg.norm(whole))
                    results.append({"picture": path.name, "size": whole_size, "decoded": size, "times": times,
                                    "cosine": cosine, "seconds": seconds, "reduced_seconds": reduced_seconds})
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.jsonl").write_text("".join(json.dumps(result) + "\n" for result in results))
    lines = ["| decoded at least | pictures | cosine, median | least | at least .9999 | whole, ms | reduced, ms |",
             "|---|---|---|---|---|---|---|"]
    for times in TIMES:
        some = [result for result in results if result["times"] == times]
        cosines = [result["cosine"] for result in some]
        ms = [1e3 * statistics.median(result[key] for result in some) for key in ("seconds", "reduced_seconds")]
        lines.append(f"| {times * SIDE} x {times * SIDE} | {len(some)} | {statistics.median(cosines):.5f} | {min(cosines):.5f} "
                     f"| {sum(cosine >= TOLERANCE for cosine in cosines)} | {ms[0]:.1f} | {ms[1]:.1f} |")
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
