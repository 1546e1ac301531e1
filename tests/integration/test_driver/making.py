"""A job that several files run."""

MAKE = """
def run(spark, env, config):
    df = spark.range(config["n"]).selectExpr("id", "id * 2 as twice")
    made = env.named_objects.update(config["name"], lambda: df)
    return [made.count(), env.named_objects.names().count(config["name"])]
"""
