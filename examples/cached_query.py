"""Keeps a million rows under a name, and queries them from other jobs. Upload it under the name `cached_query`.

The amounts are random: who gets the same totals after a failover has the same rows, not rows made again.

    mainClass=cached_query:build   rows = 1000000    makes the named DataFrame, once
    mainClass=cached_query:query                     totals of each region
"""

from pyspark.sql import functions as f

NAME = "events"
REGIONS = ["north", "east", "south", "west"]


def build(spark, env, config):
    """Makes the rows unless they are there; durable when this returns."""
    rows = config.get("rows", 1_000_000)
    frame = env.named_objects.get_or_create(
        NAME, lambda: make_events(spark, rows), durability="sync", strategy="materialize"
    )
    return totals(frame)


def query(spark, env, config):
    """Totals of the named rows."""
    frame = env.named_objects.get(NAME)
    if frame is None:
        raise LookupError(f"there is no named object '{NAME}': run cached_query:build first")
    return totals(frame)


def make_events(spark, rows):
    """Rows of an id, a region and a random whole amount."""
    region = f.array([f.lit(name) for name in REGIONS])[(f.col("id") % len(REGIONS)).cast("int")]
    amount = (f.rand() * 1000).cast("int")
    return spark.range(rows).select("id", region.alias("region"), amount.alias("amount"))


def totals(frame):
    """Rows and sum of amounts of each region. Whole numbers: their sum does not depend on its order."""
    groups = frame.groupBy("region").agg(f.count("*").alias("rows"), f.sum("amount").alias("amount"))
    return {row["region"]: {"rows": row["rows"], "amount": row["amount"]} for row in groups.collect()}
