"""A dataset of docs/samples.md, written by Spark: as many machines as the session has.

No row is collected to the driver. A shuffle by user makes the groups, a second one by part brings
the groups of a part to one task, which writes one file. At the end the driver gives the files
their names, which is the rename of 128 files, by the file system of Hadoop.
"""
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

import layout

CUTS = T.ArrayType(T.StructType([T.StructField(name, T.IntegerType())
                                 for name in ("begin", "shown", "old", "known")]))


def read_log(spark, given):
    """The log, each event once."""
    fields = [*given.user_fields, *given.context_fields]
    log = spark.read.parquet(given.events).dropna(subset=["user", "item", "time"]).select(
        *(F.col(name).cast("string") for name in ("user", "item", *fields)),
        F.col("time").cast("long"), F.col("label").cast("tinyint"))
    if not fields:
        return log.distinct()
    # Of rows that are the same but for their fields, the one with the least texts counts.
    texts = [F.coalesce(name, F.lit("")) for name in fields]
    order = F.struct(*(key for text in texts for key in (F.octet_length(text), text)))
    log = log.groupBy("user", "item", "time", "label").agg(
        F.min_by(F.struct(*fields), order).alias("fields"))
    return log.select("user", "item", "time", "label", "fields.*")


def catalogue(spark, given):
    """The items table, and the items that only the log knows."""
    described = spark.read.csv(given.items, header=True).select("item", "image", *given.item_fields)
    shown = spark.read.parquet(given.events).select(F.col("item").cast("string"))
    others = shown.dropna().distinct().join(described, on="item", how="left_anti")
    return described.unionByName(others, allowMissingColumns=True)


def groups(given, log, items):
    """The groups of all users, with their part and half."""
    part_of = F.udf(layout.part_of, "int")
    cuts = F.udf(lambda times, clicked: layout.cuts(times, clicked, given.test_from), CUTS)
    event = F.struct("time", "item", "label", "image", *given.item_fields, *given.context_fields,
                     *given.user_fields)
    users = log.join(items, on="item", how="left").groupBy("user").agg(
        F.sort_array(F.collect_list(event)).alias("events"))
    users = users.withColumn("clicks", F.filter("events", lambda event: event.label == 1))
    cut = users.withColumn("cut", F.explode(cuts("events.time", "clicks.time")))

    def only(names):
        return lambda event: F.struct(*(event[name].alias(name) for name in names))

    shown = ("item", "image", "label", "time", *given.item_fields, *given.context_fields)
    known = ("item", "image", "time", *given.item_fields)
    begin = F.col("cut.begin")
    first = F.col("events")[begin]
    return cut.select(
        "user",
        *(first[name].alias(name) for name in given.user_fields),
        F.reverse(F.transform(F.slice("clicks", F.col("cut.old") + 1, F.col("cut.known")),
                              only(known))).alias("behaviors"),
        F.transform(F.slice("events", begin + 1, F.col("cut.shown")), only(shown))
        .alias("impressions"),
        first.time.alias("first"),
        F.when(first.time < given.test_from, "train").otherwise("test").alias("half"),
        part_of("user").alias("part"),
    )


def finish(spark, given, written, empty, counts):
    """Gives the files of Spark the names of the layout; a part without rows gets `empty`.
    Writes the card.
    """
    hadoop = spark.sparkContext._jvm.org.apache.hadoop.fs
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    path = hadoop.Path
    system = path(given.out).getFileSystem(configuration)

    def the_file(folder):
        files = system.globStatus(path(f"{folder}/*.parquet"))
        if len(files) > 1:
            raise SystemExit(f"{folder}: {len(files)} files, expected one")
        return files[0].getPath() if len(files) else None

    for half in layout.HALVES:
        system.mkdirs(path(f"{given.out}/{half}"))
        for part in range(layout.PARTS):
            to = path(f"{given.out}/{half}/{layout.part_file(part)}")
            if file := the_file(f"{written}/half={half}/part={part}"):
                system.rename(file, to)
            else:
                hadoop.FileUtil.copy(system, the_file(empty), system, to, False, configuration)
    system.rename(the_file(f"{given.out}/scratch/items"), path(f"{given.out}/items.parquet"))
    system.delete(path(f"{given.out}/scratch"), True)
    # The card is last: it makes the folder a dataset.
    card = system.create(path(f"{given.out}/dataset.json"))
    card.write(bytearray(layout.card(given, counts).encode()))
    card.close()


def count(made, items):
    """The counts of the card."""
    shown, known = F.size("impressions"), F.size("behaviors")
    of = lambda half: F.coalesce(F.sum(F.when(F.col("half") == half, shown)), F.lit(0))
    clicks = F.size(F.filter("impressions", lambda shown: shown.label == 1))
    counts = made.agg(
        F.countDistinct("user").alias("users"), F.count("*").alias("groups"),
        F.sum(shown).alias("impressions"), F.sum(clicks).alias("clicks"),
        F.sum(shown * known).alias("behaviors"), of("train").alias("train"),
        of("test").alias("test"))
    of_items = items.agg(F.count("*").alias("items"), F.count("image").alias("items_with_image"))
    return counts.first().asDict() | of_items.first().asDict()


def main():
    given = layout.options(__doc__)
    spark = SparkSession.builder.appName("samples").getOrCreate()
    spark.sparkContext.addPyFile(layout.__file__)
    scratch = f"{given.out}/scratch"
    items = catalogue(spark, given)
    items.repartition(1).sortWithinPartitions("item").write.parquet(f"{scratch}/items")
    made = groups(given, read_log(spark, given), items)
    # No number of tasks is given, so that small parts share one; a part is never cut over two.
    ordered = made.repartition("part").sortWithinPartitions("half", "part", "user", "first")
    ordered.drop("first").write.option("parquet.block.row.count.limit", layout.ROW_GROUP) \
        .partitionBy("half", "part").parquet(f"{scratch}/made")
    counts = count(spark.read.parquet(f"{scratch}/made"), spark.read.parquet(f"{scratch}/items"))
    shape = made.drop("first", "half", "part").schema
    spark.createDataFrame([], shape).repartition(1).write.parquet(f"{scratch}/empty")
    finish(spark, given, f"{scratch}/made", f"{scratch}/empty", counts)
    print(f"{given.out}: {counts['groups']} groups, {counts['impressions']} impressions")
    spark.stop()


if __name__ == "__main__":
    main()
