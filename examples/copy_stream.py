"""Copies JSON lines to Parquet as a stream, each row exactly once, however often its driver dies. Upload it as `copy_stream`.

    mainClass=copy_stream:copy   input = a folder, output = a folder, query = copy     ends when all files are copied

Where the query stands is kept by Spark below `env.streaming_checkpoint`, which every attempt of the job finds again.
"""


def copy(spark, env, config):
    """Rows of the output so far."""
    rows = (
        spark.readStream.schema("id long, text string").option("maxFilesPerTrigger", 1).json(config["input"])
    )

    def start(location):
        writer = rows.writeStream.format("parquet").option("path", config["output"])
        return writer.option("checkpointLocation", location).trigger(availableNow=True).start()

    env.run_stream(config.get("query", "copy"), start)
    return spark.read.parquet(config["output"]).count()
