"""What the three examples share: the options, the part of a user, the cuts of a log, the card.

The layout is docs/samples.md. The rules of the cuts are those of `ams prepare`. Nothing here knows
an engine, and nothing here sees more than one user at a time.
"""
import argparse
import bisect
import datetime
import functools
import json

import xxhash

PARTS, GROUP_SPAN, GROUP_MAX, MAX_BEHAVIORS = 64, 86_400, 64, 50
ROW_GROUP = 1_024
HALVES = ("train", "test")


def options(about):
    """The options of an example: those of `ams prepare`, as far as it knows them."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--events", required=True, help="user, item, label, time, fields; Parquet")
    parser.add_argument("--items", required=True, help="item, image, fields; CSV")
    parser.add_argument("--out", required=True, help="the folder to write",
                        type=lambda folder: folder.rstrip("/"))
    fields = functools.partial(parser.add_argument, type=lambda names: names.split(","), default=[])
    fields("--user-fields")
    fields("--item-fields")
    fields("--context-fields")
    day = datetime.datetime.fromisoformat
    parser.add_argument("--test-from", required=True, help="a day, UTC",
                        type=lambda text: int(day(f"{text}T00:00:00+00:00").timestamp()))
    return parser.parse_args()


@functools.lru_cache(maxsize=1 << 20)
def part_of(user):
    """The part of a user; rows of one user follow each other closely enough for a cache."""
    return (xxhash.xxh3_64_intdigest(b"user\0" + user.encode()) * PARTS) >> 64


def cuts(times, clicked, test_from):
    """The groups of one user. `times` of the impressions and `clicked`, of those with a click, are
    ascending. A group has the position of its first impression, their number, the number of clicks
    that its history leaves out because they are too old, and the number of those that it has.
    """
    test_begin = bisect.bisect_left(times, test_from)
    groups, begin = [], 0
    while begin < len(times):
        end = bisect.bisect_left(times, times[begin] + GROUP_SPAN, begin)
        end = min(end, begin + GROUP_MAX)
        if begin < test_begin:
            end = min(end, test_begin)
        earlier = bisect.bisect_left(clicked, times[begin])
        known = min(earlier, MAX_BEHAVIORS)
        groups.append(
            {"begin": begin, "shown": end - begin, "old": earlier - known, "known": known})
        begin = end
    return groups


def part_file(part):
    """The name of a part's file in `train` and in `test`."""
    return f"part-{part:02}.parquet"


def card(given, counts):
    """The text of dataset.json. `counts`: users, items, items_with_image, groups, impressions,
    clicks, behaviors (those of a group once for each of its impressions), train, test.
    """
    def fields(side, names):
        return [{"name": name, "side": side, "multi": False, "kind": "categorical"}
                for name in names]

    behaviors = counts.pop("behaviors")
    counts["behaviors_mean"] = behaviors / max(counts["impressions"], 1)
    described = {
        "format": "ams-dataset/1",
        "name": given.out.rpartition("/")[2],
        "parts": PARTS,
        "fields": [
            *fields("user", ["user", *given.user_fields]),
            *fields("behavior", ["item", *given.item_fields]),
            *fields("ad", ["item", *given.item_fields]),
            *fields("context", given.context_fields),
        ],
        "split": {"time": {"test_from": given.test_from}},
        "labels": "observed",
        "max_behaviors": MAX_BEHAVIORS,
        "counts": {name: counts[name] for name in (
            "users", "items", "items_with_image", "groups", "impressions", "clicks",
            "behaviors_mean", "train", "test")},
    }
    return json.dumps(described, indent=2) + "\n"
