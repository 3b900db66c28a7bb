"""The command of the wheel is the program."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ams
from conftest import Shop, program


def test_exit_codes_and_streams(tmp_path: Path) -> None:
    said = program("--version")
    assert said.returncode == 0 and said.stdout.startswith(f"ams {ams.__version__}\n") and "onnx" in said.stdout
    said = program("score", "--model", "nothing", "--sample", 1, cwd=tmp_path)
    assert said.returncode == 1 and said.stderr.startswith("error: ") and said.stdout == ""
    assert program("nonsense").returncode == 1
    assert program("--help").returncode == 0
    module = [sys.executable, "-m", "ams", "--version"]
    assert subprocess.run(module, capture_output=True, text=True, check=True).stdout == program("--version").stdout


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_is_the_programs(shop: Shop, tmp_path: Path) -> None:
    run = shop.run.path / "config.toml"
    command = [str(Path(sys.executable).with_name("ams")), "train", str(run), "--set", "train.epochs=500"]
    command += ["--set", f"runs={json.dumps(str(tmp_path))}"]
    training = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "joint" / "metrics.jsonl"
    end = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < end:
        time.sleep(0.05)
    training.send_signal(signal.SIGINT)
    _, said = training.communicate(timeout=60)
    assert training.returncode == 130 and "stopping after this step with a checkpoint" in said
    assert list((tmp_path / "joint" / "checkpoints").iterdir())
    # A command without anything to save ends at once, as programs do.
    waiting = subprocess.Popen([command[0], "score", "--model", str(shop.bundle), "--request", "-"], stdin=subprocess.PIPE)
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=10) == -signal.SIGINT
