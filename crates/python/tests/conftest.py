"""A tiny shop on the way to a model, made once."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ams

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Settings of a small training of the shop.
SMALL: dict[str, Any] = {"model": {"tower": [16, 12]}, "train": {"batch": 64, "log_every": 1}}
FIELDS: dict[str, Any] = {"user_fields": ["gender", "age"], "item_fields": ["category", "brand"], "context_fields": ["hour", "position"]}


def program(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command of the wheel."""
    command = [str(Path(sys.executable).with_name("ams")), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


class Shop:
    """A shop, its dataset with features, a published model `joint` and a pre-rank one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shop, self.data, self.models = root / "shop", root / "data", root / "models"
        ams.synth(self.shop, size="tiny")
        ams.prepare(self.shop / "events.parquet", self.shop / "items.csv", out=self.data, **FIELDS)
        ams.encode(self.shop, dataset=self.data, dim=64)
        self.run = ams.train(self.config("joint"))
        self.published = self.run.publish(self.models)
        early = self.config("early")
        early["model"] = {**early["model"], "base": "pre-rank", "aggregator": "sum"}
        ams.train(early).publish(self.models)
        self.bundle = self.models / "joint"
        self.model = ams.load(self.bundle)
        self.early = ams.load(self.models / "early")
        samples = json.loads((self.bundle / "1" / "samples.json").read_text())
        self.pages: list[dict[str, Any]] = samples

    def config(self, name: str, **changes: Any) -> dict[str, Any]:
        """The configuration of a small training."""
        return {"name": name, "runs": self.root / "runs", "data": {"samples": self.data}, **SMALL, **changes}

    def flat(self) -> dict[str, list[Any]]:
        """The example requests as a flat table: a row for each candidate."""
        columns: dict[str, list[Any]] = {}
        for page in self.pages:
            user, past = page["user"], page["user"]["behaviors"]
            for item in page["candidates"]["item"]:
                row = {
                    "user": user["id"],
                    **user["features"],
                    **page["context"],
                    "behaviors.item": past["item"],
                    "behaviors.time": past["time"],
                    "item": item,
                }
                for name, value in row.items():
                    columns.setdefault(name, []).append(value)
        return columns

    def rates(self) -> list[float]:
        """The rates of the rows of `flat` by the program, in JSON's decimals."""
        rates = []
        for number, page in enumerate(self.pages, 1):
            answer = json.loads(program("score", "--json", "--model", self.bundle, "--sample", number).stdout)
            of = dict(zip(answer["items"], answer["ctr"]))
            rates += [of[item] for item in page["candidates"]["item"]]
        return rates


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))
