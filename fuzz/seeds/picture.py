#!/usr/bin/env python3
"""Small pictures of every format and kind of pixel, and some that are none: what the fuzzer begins with.

usage: fuzz/seeds/picture.py

Writes fuzz/seeds/picture/. Needs numpy and Pillow.
"""
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parent / "picture"
WIDTH, HEIGHT = 20, 14


def drawn():
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return Image.fromarray(np.stack([x * 12, y * 18, (x * y) % 256], 2).astype(np.uint8))


def bomb():
    """60,000 x 60,000 pixels are promised; what follows is empty."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT", b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)


def main():
    OUT.mkdir(exist_ok=True)
    image = drawn()

    def save(name, picture=image, **options):
        picture.save(OUT / name, **options)

    grey, alpha = image.convert("L"), image.convert("RGBA")
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("baseline.jpg", quality=80)
    save("progressive.jpg", quality=80, progressive=True)
    save("full-color.jpg", quality=90, subsampling=0)
    save("restart.jpg", quality=80, restart_marker_rows=1)
    save("grey.jpg", grey)
    save("cmyk.jpg", image.convert("CMYK"))
    save("turned.jpg", exif=exif)
    save("rgb.png")
    save("grey.png", grey)
    save("alpha.png", alpha)
    save("grey-alpha.png", alpha.convert("LA"))
    save("palette.png", image.quantize(16))
    save("palette-hole.png", image.quantize(16), transparency=2)
    save("bits.png", image.convert("1"))
    save("deep.png", Image.fromarray(np.asarray(grey).astype(np.uint16) * 257))
    save("still.gif", image.quantize(16))
    frames = [image.quantize(8), image.rotate(90).quantize(8)]
    save("moving.gif", frames[0], save_all=True, append_images=frames[1:])
    save("rows.bmp")
    save("palette.bmp", image.quantize(16))
    save("lossy.webp", quality=70)
    save("lossless.webp", lossless=True)
    save("alpha.webp", alpha)
    save("one.png", Image.new("RGB", (1, 1)))
    save("line.png", image.resize((1, 300)))
    for name, data in {"bomb.png": bomb(), "text.txt": b"not a picture", "page.html": b"<html></html>"}.items():
        (OUT / name).write_bytes(data)
    jpeg = (OUT / "baseline.jpg").read_bytes()
    half, film = jpeg[: len(jpeg) // 2], b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(range(256))
    frame = jpeg.index(b"\xff\xc0")
    save("strips.tif", compression="tiff_lzw")
    for name, data in {
            "truncated.jpg": half, "motion.jpg": jpeg + film, "cut-with-film.jpg": half + film,
            "deep.jpg": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5:],
            "arithmetic.jpg": jpeg[: frame + 1] + b"\xc9" + jpeg[frame + 2:],
            "head.avif": b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + bytes(16)}.items():
        (OUT / name).write_bytes(data)


if __name__ == "__main__":
    main()
