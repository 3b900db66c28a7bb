#!/usr/bin/env python3
"""Features of `ams encode` beside those of onnxruntime and Pillow: 50 real posters, and pictures of every odd kind.

usage: crates/encoders/tests/agreement.py DATA WORK AMS

DATA  folder with encoders/efficientnet_lite0.onnx and ml1m-posters/images
WORK  folder for pictures, datasets and a Python environment, if this Python has not got what is needed
AMS   the program

The network is computed by tract; then 500 posters by tract and by ams with that onnxruntime: these rows have to be the
same to a cosine of 0.9999 and to 1e-3 of a row's largest value (stores keep halves, which round by half of that).

Both sides decode, resize, crop and compute on their own. The cosines of the two features of each picture, with two ways
to prepare pictures, have to be 0.999 in the median and 0.99 everywhere. They are not 1 because this network is sensitive:
one pixel value in fifty changed by 1 of 255 takes a poster's cosine to 0.9999, one in ten to 0.9985 (of a picture
enlarged from 20 x 30, to 0.995). Decoders of JPEG round differently by that much, and so do resizers now and then.
"""
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bench"))
from peers.packages import with_packages
from peers.store import rows_by_key

NEEDS = {"numpy": "numpy", "onnxruntime": "onnxruntime", "PIL": "pillow", "blake3": "blake3", "safetensors": "safetensors"}
MEDIAN, LEAST = 0.999, 0.99
POSTERS = 50
BY_BOTH, COSINE, RELATIVE = 500, 0.9999, 1e-3
PREPARE = {
    "whole": ["--preprocess", "custom", "--size", "224", "--resize", "whole", "--filter", "bicubic", "--pixels", "0..255",
              "--mean", "127", "--std", "128"],
    "imagenet": ["--preprocess", "imagenet"],
}


def odd(poster, folder):
    """One picture of every kind that decoders disagree about, all of the same poster."""
    from PIL import Image
    import numpy as np

    image = Image.open(poster).convert("RGB")
    big = image.resize((360, 540), Image.BICUBIC)

    def save(name, picture, **options):
        picture.save(folder / name, **options)

    save("grey.jpg", big.convert("L"), quality=90)
    save("grey.png", big.convert("L"))
    save("cmyk.jpg", big.convert("CMYK"), quality=90)
    save("progressive.jpg", big, quality=80, progressive=True)
    save("full-color.jpg", big, quality=95, subsampling=0)
    save("half-color.jpg", big, quality=75, subsampling=1)
    save("quarter-color.jpg", big, quality=75, subsampling=2)
    save("palette.png", big.quantize(64))
    save("still.gif", big.quantize(200))
    save("lossy.webp", big, quality=80)
    save("lossless.webp", big, lossless=True)
    save("rows.bmp", big)
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 360).astype(np.uint8), (540, 1)))
    clear = big.copy()
    clear.putalpha(alpha)
    save("alpha.png", clear)
    save("alpha.webp", clear, lossless=True)
    grey = big.convert("L")
    grey.putalpha(alpha)
    save("grey-alpha.png", grey)
    spot = big.quantize(64)
    save("palette-hole.png", spot, transparency=3)
    save("bits.png", big.convert("1"))
    deep = np.asarray(big.convert("L")).astype(np.uint16) * 257
    save("deep.png", Image.fromarray(deep))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        save(f"turned-{turn}.jpg", big, quality=92, exif=exif)
    save("one.png", Image.new("RGB", (1, 1), (200, 90, 30)))
    save("one.jpg", Image.new("RGB", (1, 1), (20, 90, 230)))
    save("line.png", big.resize((3, 900)))
    save("strip.jpg", big.resize((2000, 20)), quality=90)
    save("huge.jpg", image.resize((4000, 6000), Image.BICUBIC), quality=85)
    save("tiny.jpg", image.resize((20, 30), Image.BICUBIC), quality=90)


def rgb(path):
    """The picture as a shop's page shows it: turned, over white."""
    from PIL import Image, ImageOps
    import numpy as np

    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def prepared(image, how):
    """What the network sees, as Pillow and torchvision compute it."""
    from PIL import Image
    import numpy as np

    if how == "whole":
        pixels = np.asarray(image.resize((224, 224), Image.BICUBIC), np.float32)
        return ((pixels - 127) / 128).transpose(2, 0, 1)
    width, height = image.size
    to = (256, int(256 * height / width)) if width <= height else (int(256 * width / height), 256)
    left, top = (round((side - 224) / 2) for side in to)
    # The part that is cut out alone is computed: of a line one pixel wide the whole would not fit in memory.
    box = [left * width / to[0], top * height / to[1], (left + 224) * width / to[0], (top + 224) * height / to[1]]
    image = image.resize((224, 224), Image.BILINEAR, box=box)
    pixels = np.asarray(image, np.float32) / 255
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((pixels - mean) / std).transpose(2, 0, 1)


def dataset(work, names, ams):
    """A dataset whose items are these pictures."""
    items = "item_id,image\n" + "".join(f"{name},{name}\n" for name in names)
    (work / "items.csv").write_text(items)
    clicks = [f"u{at % 7},{name},{at % 2},{1_700_000_000 + at}\n" for at, name in enumerate(names * 3)]
    (work / "events.csv").write_text("user_id,item_id,click,timestamp\n" + "".join(clicks))
    out = work / "data"
    run([ams, "prepare", "--events", work / "events.csv", "--items", work / "items.csv", "--out", out, "--replace"])
    return out


def run(command):
    """Runs a program and returns the object it prints."""
    done = subprocess.run([*map(str, command), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)


def runtimes(data, work, ams):
    """Whether tract and onnxruntime give the same rows."""
    import numpy as np
    import onnxruntime

    folder = data / "ml1m-posters/images"
    names = [path.name for path in sorted(folder.glob("*.jpg"))[:: 6][:BY_BOTH]]
    out = dataset(work, names, ams)
    rows, ids = {}, set()
    for runtime in ("tract", "onnxruntime"):
        store = work / f"images-{runtime}"
        shutil.rmtree(store, ignore_errors=True)
        more = ["--onnxruntime", pathlib.Path(onnxruntime.__file__).parent / "capi"] if runtime != "tract" else []
        report = run([ams, "encode", out, "--images", folder, "--out", store, "--encoder",
                      data / "encoders/efficientnet_lite0.onnx", "--output-node", "features", "--rows", "f16", "--runtime",
                      runtime, *more, *PREPARE["whole"]])
        if not report["runtime"].startswith(runtime):
            sys.exit(f"asked for {runtime}, computed by {report['runtime']}")
        rows[runtime] = rows_by_key(store)
        ids.add(json.loads((store / "images.json").read_text())["encoder_hash"])
    cosines, off = [], 0.0
    for key, tract in rows["tract"].items():
        other = rows["onnxruntime"][key]
        cosines.append(float(tract @ other / np.linalg.norm(tract) / np.linalg.norm(other)))
        off = max(off, float(np.abs(tract - other).max() / np.abs(tract).max()))
    print(f"tract and onnxruntime {onnxruntime.__version__}, {len(cosines)} posters: cosine at least {min(cosines):.7f}, "
          f"largest difference {off:.1e} of the row's largest value")
    if min(cosines) < COSINE or off > RELATIVE or len(ids) != 1:
        sys.exit(f"expected a cosine of {COSINE}, a difference of {RELATIVE}, and one encoder: {ids}")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    data, work, ams = map(pathlib.Path, sys.argv[1:])
    work.mkdir(parents=True, exist_ok=True)
    with_packages(work / "venv", NEEDS)
    import numpy as np
    import onnxruntime
    from blake3 import blake3

    network = data / "encoders/efficientnet_lite0.onnx"
    posters = sorted((data / "ml1m-posters/images").glob("*.jpg"))[::60][:POSTERS]
    pictures = work / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    for poster in posters:
        shutil.copy(poster, pictures / poster.name)
    odd(posters[7], pictures)
    names = sorted(path.name for path in pictures.iterdir())
    out = dataset(work, names, ams)
    session = onnxruntime.InferenceSession(network)
    failed = False
    for how, flags in PREPARE.items():
        store = work / f"images-{how}"
        shutil.rmtree(store, ignore_errors=True)
        report = run([ams, "encode", out, "--images", pictures, "--out", store, "--encoder", network, "--output-node",
                      "features", "--runtime", "tract", *flags])
        if report["failed"]:
            sys.exit(f"{how}: pictures without a feature: {report['failed']}")
        rows, cosines = rows_by_key(store), {}
        for name in names:
            path = pictures / name
            ours = rows[int.from_bytes(blake3(path.read_bytes()).digest()[:8], "little")]
            theirs = session.run(["features"], {"image": prepared(rgb(path), how)[None]})[0][0]
            cosines[name] = float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        of_posters = [cosines[poster.name] for poster in posters]
        others = {name: cosine for name, cosine in cosines.items() if not (data / "ml1m-posters/images" / name).exists()}
        worst = sorted(others, key=others.get)[:3]
        print(f"{how}: cosine of {len(posters)} posters at least {min(of_posters):.6f}, median "
              f"{np.median(of_posters):.6f}; of {len(others)} odd pictures at least {others[worst[0]]:.6f} "
              f"({', '.join(f'{name} {others[name]:.6f}' for name in worst)})")
        failed |= min(cosines.values()) < LEAST or np.median(list(cosines.values())) < MEDIAN
    if failed:
        sys.exit(f"expected a cosine of {LEAST} for every picture, and {MEDIAN} in the median")
    runtimes(data, work, ams)


if __name__ == "__main__":
    main()
