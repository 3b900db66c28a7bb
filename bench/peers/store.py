"""The rows of a feature store, read by its card; the files are as crates/image/src/store.rs says."""
import json


def card(store):
    """The store's card."""
    return json.loads((store / "images.json").read_text())


def rows_by_key(store):
    """f16 rows as floats, by image key."""
    from safetensors.numpy import load_file

    rows = {}
    for part in (name for name in sorted(card(store)["files"]) if name.startswith("part-")):
        tensors = load_file(store / part)
        rows.update(zip(tensors["keys"].tolist(), tensors["rows"].astype("float32")))
    return rows


def rows_by_name(store):
    """The same by the hash of a picture's name, one for every name."""
    from safetensors.numpy import load_file

    rows = rows_by_key(store)
    table = next(name for name in card(store)["files"] if name.startswith("names-"))
    names = load_file(store / table)
    return {name: rows[key] for name, key in zip(names["name"].tolist(), names["key"].tolist())}
