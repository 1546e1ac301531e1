"""The work that is measured. The same functions run as jobs of a context and, unchanged, in a plain pyspark process."""

import time

from pyspark.sql import functions as f

NAME = "bench_rows"
ROWS = 1_000_000


def answer(spark, env, config):
    """A Python job that asks nothing of Spark."""
    return 42


def hold(spark, env, config):
    """Keeps its slot until it is killed: what comes after it waits."""
    time.sleep(3600)


def select_one(spark, env, config):
    """The smallest query."""
    return spark.sql("select 1 as one").collect()[0]["one"]


def python_task(spark, env, config):
    """Needs Python workers: what a first Python job waits for."""
    return spark.sparkContext.parallelize(range(2), 2).map(lambda number: number + 1).sum()


def build(spark, env, config):
    """Makes the named rows; random, so that only the very same rows have the same totals, unless a seed is given."""
    seed = config.get("seed", None)
    frame = env.named_objects.get_or_create(
        NAME, lambda: _make_rows(spark, seed), durability="sync", strategy="materialize"
    )
    return frame.count()


def _make_rows(spark, seed):
    amount = (f.rand(seed) * 1000).cast("int")
    return spark.range(ROWS).select("id", (f.col("id") % 4).alias("region"), amount.alias("amount"))


def point(spark, env, config):
    """One row of the named rows by its id."""
    found = env.named_objects.get(NAME).where(f.col("id") == config["id"]).select("id", "region").collect()
    return [list(row) for row in found]


def totals(spark, env, config):
    """Rows and sum of amounts of each region."""
    groups = env.named_objects.get(NAME).groupBy("region").agg(f.count("*"), f.sum("amount"))
    return sorted(list(row) for row in groups.collect())


def build_size(spark, env, config):
    """Named rows of random numbers that take so many megabytes as files."""
    columns = 16
    rows = config["megabytes"] * 1_000_000 // (8 * columns)
    frame = env.named_objects.get_or_create(
        "sized",
        lambda: spark.range(rows).select("id", *[f.rand().alias(f"c{n}") for n in range(columns)]),
        timeout=600,
        durability="sync",
        strategy="materialize",
        force_computation=False,
    )
    return frame.count()


def row_of_size(spark, env, config):
    """One row, from the first partition: what is read does not depend on how many there are."""
    return [list(row) for row in env.named_objects.get("sized").where("id = 5").head(1)]


def build_values(spark, env, config):
    """Named numbers, all sealed in one step."""
    env.commit(None, {f"value{n}": lambda n=n: n for n in range(config["count"])})


def write_plain(spark, env, config):
    """Seconds to write rows of so many megabytes as Parquet."""
    began = time.perf_counter()
    _sized(spark, config["megabytes"]).write.mode("overwrite").parquet(config["folder"])
    return time.perf_counter() - began


def write_named(spark, env, config):
    """Seconds until the same rows are a named DataFrame that is there after a failover."""
    began = time.perf_counter()
    env.named_objects.update(
        "written",
        lambda: _sized(spark, config["megabytes"]),
        timeout=600,
        durability="sync",
        strategy="materialize",
        storage_level="NONE",
        force_computation=False,
    )
    return time.perf_counter() - began


def _sized(spark, megabytes):
    """Hashes, which nothing compresses and which cost little to make."""
    columns = 16
    rows = megabytes * 1_000_000 // (8 * columns)
    return spark.range(rows).select(
        "id", *[f.xxhash64("id", f.lit(n)).alias(f"c{n}") for n in range(columns)]
    )
