#!/usr/bin/env python3
"""100,000 synthetic pictures: encode them, kill the encoding at random moments, go on, and compare with a run that was never
disturbed: the same files, no picture encoded twice beyond the last chunks, memory bounded.

    python3 bench/pictures.py target/release/ams --pictures 100000 --kills 20 --work DIR

Pictures are of 64 x 64 pixels and all different; the builtin encoder makes 64 numbers of each, so that files and not
arithmetic are what is measured. Prints one JSON object.
"""
import argparse
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path


def png(number: int) -> bytes:
    """A picture of 64 x 64 pixels whose colors tell its number."""
    noise = random.Random(number)
    rows = [bytes([0]) + bytes(noise.randrange(256) for _ in range(12)) * 16 for _ in range(4)]
    raw = b"".join(row for row in rows for _ in range(16))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b"")


def draw(folder: Path, count: int) -> None:
    if (folder / "complete").exists():
        return
    for number in range(count):
        path = folder / f"{number % 1000:03}" / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    (folder / "complete").write_text(str(count))


def command(ams: str, pictures: Path, out: Path, chunk: int) -> list[str]:
    return [ams, "encode", "--images", str(pictures), "--out", str(out), "--dim", "64", "--chunk", str(chunk), "--json"]


def watched(words: list[str], kill_after: float | None) -> tuple[dict | None, float, float]:
    """Runs it, or kills it after so many seconds: its report, seconds, largest resident memory in MB."""
    begin = time.time()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0.0
    while process.poll() is None:
        if kill_after is not None and time.time() - begin > kill_after:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None, time.time() - begin, peak
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak] + [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")])
        except OSError:
            pass
        time.sleep(0.01)
    out, err = process.communicate()
    if process.returncode != 0:
        sys.exit(err)
    return json.loads(out), time.time() - begin, peak


def journaled(out: Path) -> int:
    """Rows in the journal; fails if one is there twice."""
    keys: list[int] = []
    for chunk in Path(f"{out}.partial").glob("chunk-*.safetensors"):
        bytes_ = chunk.read_bytes()
        (length,) = struct.unpack("<Q", bytes_[:8])
        start, end = json.loads(bytes_[8 : 8 + length])["keys"]["data_offsets"]
        keys += struct.unpack(f"<{(end - start) // 8}Q", bytes_[8 + length + start : 8 + length + end])
    assert len(set(keys)) == len(keys), "a picture was encoded twice and kept twice"
    return len(keys)


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ams")
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("target/pictures"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pictures, whole, store = (options.work / name for name in ("pictures", "whole", "store"))
    draw(pictures, options.pictures)
    for old in (whole, store, Path(f"{store}.partial"), Path(f"{whole}.partial")):
        shutil.rmtree(old, ignore_errors=True)
    undisturbed, seconds, peak = watched(command(options.ams, pictures, whole, options.chunk), None)
    moments = random.Random(options.seed)
    kept, kills = [0], 0
    for _ in range(options.kills):
        patience = moments.uniform(0, 2 * seconds / options.kills)
        report, _, _ = watched(command(options.ams, pictures, store, options.chunk), patience)
        if report is not None:
            break
        kills += 1
        if store.exists():
            break
        kept.append(journaled(store))
        assert kept[-1] >= kept[-2], "what was kept is lost"
    last, _, peak_after = watched(command(options.ams, pictures, store, options.chunk), None)
    assert last["reused"] >= kept[-1], "what was kept was encoded again"
    same = files(whole) == files(store)
    print(json.dumps({
        "pictures": undisturbed["images"], "seconds": round(seconds, 1), "pictures_per_second": round(undisturbed["images"] / seconds),
        "peak_mb": round(peak), "peak_mb_after_kills": round(peak_after), "kills": kills, "kept_after_each": kept[1:],
        "reused_by_the_last": last["reused"], "encoded_by_the_last": last["encoded"], "same_files": same,
        "store_mb": round(sum(len(content) for content in files(store).values()) / 1e6, 1),
    }))
    assert same


if __name__ == "__main__":
    main()
