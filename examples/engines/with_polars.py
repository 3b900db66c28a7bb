"""A dataset of docs/samples.md, written by Polars from a log that need not fit into memory.

The log is read once, in a stream, and set aside by the parts of the users. Then one part after the
other is in memory. Parts are independent: several machines may take some each.
"""
import pathlib
import shutil

import polars as pl

import layout


def set_aside(given, scratch):
    """The rows of every part in a folder of their own."""
    fields = [*given.user_fields, *given.context_fields]
    part = pl.col("user").map_batches(
        lambda users: pl.Series([layout.part_of(user) for user in users], dtype=pl.Int32),
        return_dtype=pl.Int32, is_elementwise=True)
    log = pl.scan_parquet(given.events).drop_nulls(["user", "item", "time"]).select(
        pl.col("user", "item").cast(pl.String), pl.col("time").cast(pl.Int64),
        pl.col("label").cast(pl.UInt8), pl.col(fields).cast(pl.String), part=part)
    log.sink_parquet(pl.PartitionBy(scratch, key="part"), mkdir=True)


def catalogue(given):
    """The items table, and the items that only the log knows, by their names."""
    described = pl.read_csv(given.items, infer_schema=False)
    described = described.select("item", "image", *given.item_fields)
    shown = pl.scan_parquet(given.events).select(pl.col("item").cast(pl.String))
    others = shown.drop_nulls().unique().collect(engine="streaming").join(described, on="item", how="anti")
    return pl.concat([described, others], how="diagonal").sort("item")


def groups(given, log, items):
    """The groups of some users, ordered by user and time."""
    fields = [*given.user_fields, *given.context_fields]
    # Of rows that are the same but for their fields, the one with the least texts counts.
    ties = [order for name in fields
            for order in (pl.col(name).fill_null("").str.len_bytes(), pl.col(name).fill_null(""))]
    log = log.sort("user", "time", "item", "label", *ties).unique(
        ["user", "item", "time", "label"], keep="first", maintain_order=True)
    log = log.join(items, on="item", how="left", maintain_order="left")
    clicked = pl.col("label") == 1
    users = log.group_by("user", maintain_order=True).agg(
        pl.struct("item", "image", "label", "time", *given.item_fields, *given.context_fields)
        .alias("impressions"),
        pl.struct("item", "image", "time", *given.item_fields).filter(clicked).alias("behaviors"),
        pl.col("time").alias("times"),
        pl.col("time").filter(clicked).alias("clicked"),
        *given.user_fields,
    )
    of = pl.Struct({name: pl.Int64 for name in ("begin", "shown", "old", "known")})
    cut = pl.struct("times", "clicked").map_elements(
        lambda user: layout.cuts(user["times"], user["clicked"], given.test_from),
        return_dtype=pl.List(of))
    cut = users.with_columns(cut=cut).explode("cut").unnest("cut")
    return cut.select(
        "user",
        *(pl.col(name).list.get(pl.col("begin")) for name in given.user_fields),
        pl.col("behaviors").list.slice("old", "known").list.reverse(),
        pl.col("impressions").list.slice("begin", "shown"),
        test=pl.col("times").list.get(pl.col("begin")) >= given.test_from,
    )


def count(made):
    """What some groups add to the counts of the card."""
    shown, known = pl.col("impressions").list.len(), pl.col("behaviors").list.len()
    clicks = pl.col("impressions").list.eval(pl.element().struct.field("label")).list.sum()
    return made.select(
        users=pl.col("user").n_unique(), groups=pl.len(), impressions=shown.sum(),
        clicks=clicks.sum(), behaviors=(known * shown).sum(),
        train=shown.filter(~pl.col("test")).sum(), test=shown.filter("test").sum(),
    ).cast(pl.Int64).row(0, named=True)


def main():
    given = layout.options(__doc__)
    out = pathlib.Path(given.out)
    scratch = out / "scratch"
    set_aside(given, scratch)
    items = catalogue(given)
    items.write_parquet(out / "items.parquet")
    counts = {"items": len(items), "items_with_image": len(items) - items["image"].null_count()}
    empty = pl.scan_parquet(scratch).drop("part", strict=False).head(0).collect()
    for half in layout.HALVES:
        (out / half).mkdir()
    for part in range(layout.PARTS):
        folder = scratch / f"part={part}"
        log = pl.read_parquet(folder, hive_partitioning=False) if folder.exists() else empty
        made = groups(given, log, items)
        for name, number in count(made).items():
            counts[name] = counts.get(name, 0) + number
        for half in layout.HALVES:
            rows = made.filter(pl.col("test") == (half == "test")).drop("test")
            file = out / half / layout.part_file(part)
            rows.write_parquet(file, row_group_size=layout.ROW_GROUP)
    shutil.rmtree(scratch)
    # The card is last: it makes the folder a dataset.
    (out / "dataset.json").write_text(layout.card(given, counts))
    print(f"{out}: {counts['groups']} groups, {counts['impressions']} impressions")


if __name__ == "__main__":
    main()
