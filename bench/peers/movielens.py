"""The samples of MovieLens that models are compared on: explicit, a rating of 4 or 5 is a click."""
import json

from peers.program import ams

USER = ["user", "gender", "age", "occupation", "zip"]
ITEM = ["item", "genres", "year"]
BEHAVIORS = 32


def imported(program, out, data):
    """Makes the samples unless they are there; their counts."""
    if not (out / "dataset.json").exists():
        ams(program, "import", "movielens", data, "--out", out, "--max-behaviors", BEHAVIORS)
    return json.loads((out / "dataset.json").read_text())["counts"]


def with_posters(program, out, data):
    """Gives the samples their posters' features, unless they have them."""
    if not (out / "images/images.json").exists():
        features = data / "features"
        ams(program, "encode", out, "--features", features / "effnet_lite0_1280.f16.npy",
            "--keys", features / "image_ids.txt")
