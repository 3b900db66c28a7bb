"""A dataset of docs/samples.md, written by DuckDB from a log that need not fit into memory.

The log is read once and set aside by the parts of the users. Then one part after the other is in
memory. Parts are independent: several machines may take some each.
"""
import pathlib
import shutil

import duckdb

import layout


def texts(names, of=""):
    """Columns as texts."""
    return "".join(f', {of}"{name}"::VARCHAR AS "{name}"' for name in names)


def set_aside(con, given, scratch):
    """The rows of every part in a folder of their own."""
    con.execute(f"""
        COPY (SELECT user::VARCHAR AS user, item::VARCHAR AS item, time::BIGINT AS time,
                     label::UTINYINT AS label
                     {texts(given.user_fields)} {texts(given.context_fields)},
                     part_of(user::VARCHAR) AS part
              FROM read_parquet($1)
              WHERE user IS NOT NULL AND item IS NOT NULL AND time IS NOT NULL)
        TO '{scratch}' (FORMAT parquet, PARTITION_BY (part))""", [given.events])


def catalogue(con, given):
    """The items table, and the items that only the log knows, by their names."""
    fields = "".join(f', "{name}"' for name in given.item_fields)
    con.execute(f"""
        CREATE TABLE items AS
        WITH described AS (SELECT item, image {fields} FROM read_csv($1, all_varchar = true))
        SELECT * FROM described UNION ALL BY NAME
        SELECT DISTINCT item::VARCHAR AS item FROM read_parquet($2)
        WHERE item IS NOT NULL AND item::VARCHAR NOT IN (SELECT item FROM described)""",
                [given.items, given.events])
    con.execute(f"COPY (FROM items ORDER BY item) TO '{given.out}/items.parquet' (FORMAT parquet)")


def groups(con, given, log):
    """The groups of a part as the table `made`, ordered by user and time."""
    of_item = "".join(f', "{name}" := "{name}"' for name in given.item_fields)
    shown = "".join(f', "{name}" := "{name}"' for name in given.context_fields)
    firsts = "".join(f', list("{name}" ORDER BY time, item, label) AS "{name}"'
                     for name in given.user_fields)
    first = "".join(f', "{name}"[g.begin + 1] AS "{name}"' for name in given.user_fields)
    # Of rows that are the same but for their fields, the one with the least texts counts.
    ties = [f"strlen(coalesce(\"{name}\", '')), coalesce(\"{name}\", '')"
            for name in (*given.user_fields, *given.context_fields)] or ["user"]
    con.execute(f"""
        CREATE OR REPLACE TABLE made AS
        WITH log AS (
            SELECT * FROM ({log})
            QUALIFY row_number() OVER (
                PARTITION BY user, item, time, label ORDER BY {', '.join(ties)}) = 1),
        users AS (
            SELECT user, list(time ORDER BY time) AS times,
                   coalesce(list(time ORDER BY time) FILTER (label = 1), []) AS clicked,
                   list(struct_pack(item := item, image := image, label := label, time := time
                                    {of_item} {shown}) ORDER BY time, item, label) AS impressions,
                   list(struct_pack(item := item, image := image, time := time {of_item})
                        ORDER BY time, item) FILTER (label = 1) AS behaviors
                   {firsts}
            FROM log LEFT JOIN items USING (item) GROUP BY user),
        groups AS (
            SELECT *, unnest(cuts(times, clicked)) AS g FROM users)
        SELECT user {first},
               coalesce(list_reverse(behaviors[g.old + 1 : g.old + g.known]), []) AS behaviors,
               impressions[g.begin + 1 : g.begin + g.shown] AS impressions,
               times[g.begin + 1] AS first
        FROM groups""")


def count(con, given):
    """What the groups of a part add to the counts of the card."""
    train, test = f"first < {given.test_from}", f"first >= {given.test_from}"
    con.execute(f"""
        SELECT count(DISTINCT user) AS users, count(*) AS groups,
               coalesce(sum(len(impressions)), 0)::BIGINT AS impressions,
               coalesce(sum(list_sum([shown.label FOR shown IN impressions])), 0)::BIGINT AS clicks,
               coalesce(sum(len(impressions) * len(behaviors)), 0)::BIGINT AS behaviors,
               coalesce(sum(len(impressions)) FILTER ({train}), 0)::BIGINT AS train,
               coalesce(sum(len(impressions)) FILTER ({test}), 0)::BIGINT AS test
        FROM made""")
    return dict(zip([column[0] for column in con.description], con.fetchone()))


def main():
    given = layout.options(__doc__)
    out = pathlib.Path(given.out)
    scratch = out / "scratch"
    for folder in (scratch, *(out / half for half in layout.HALVES)):
        folder.mkdir(parents=True)
    con = duckdb.connect(str(scratch / "duck.db"))
    con.create_function("part_of", layout.part_of, ["VARCHAR"], "INTEGER")
    con.create_function("cuts", lambda times, clicked: layout.cuts(times, clicked, given.test_from),
                        ["BIGINT[]", "BIGINT[]"],
                        'STRUCT("begin" BIGINT, shown BIGINT, old BIGINT, known BIGINT)[]')
    set_aside(con, given, scratch / "parts")
    catalogue(con, given)
    con.execute("SELECT count(*), count(image) FROM items")
    counts = dict(zip(("items", "items_with_image"), con.fetchone()))
    every = f"FROM read_parquet('{scratch}/parts/*/*.parquet', hive_partitioning = false)"
    for part in range(layout.PARTS):
        folder = scratch / "parts" / f"part={part}"
        log = f"FROM read_parquet('{folder}/*.parquet', hive_partitioning = false)"
        groups(con, given, log if folder.exists() else f"{every} LIMIT 0")
        for name, number in count(con, given).items():
            counts[name] = counts.get(name, 0) + number
        for half, which in zip(layout.HALVES, ("<", ">=")):
            con.execute(f"""
                COPY (SELECT * EXCLUDE first FROM made WHERE first {which} {given.test_from}
                      ORDER BY user, first)
                TO '{out / half / layout.part_file(part)}'
                (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {layout.ROW_GROUP})""")
    con.close()
    shutil.rmtree(scratch)
    # The card is last: it makes the folder a dataset.
    (out / "dataset.json").write_text(layout.card(given, counts))
    print(f"{out}: {counts['groups']} groups, {counts['impressions']} impressions")


if __name__ == "__main__":
    main()
