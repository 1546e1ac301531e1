"""Writing a named DataFrame under `sync`, against `df.write.parquet` of the same rows to the same place, in turns."""

from __future__ import annotations

from benchmarks.cluster import cluster
from benchmarks.measure import Against, Effort, Goal, Section, Series

CONTEXT = "bench"
MEGABYTES = {1: 15, 100: 3, 1000: 1}
"""Sizes, and how often each is written both ways."""
FUNCTIONS = ("write_plain", "write_named")
LIMIT = 600.0
"""Seconds that one write may take; a gigabyte takes half a minute on two cores that nobody else uses."""
AS_QUICK = Goal(0.5, 1 / 0.9, Against.RATIO)


def run(effort: Effort) -> Section:
    """Two series for each size, in a directory and in HDFS."""
    shown: list[Series] = []
    for place, hdfs in (("directory", False), ("HDFS", True)):
        with cluster(1, "cold", hdfs=hdfs) as bench:
            bench.create_context(CONTEXT)
            folder = f"{bench.checkpoint_root}/plain"
            for function in FUNCTIONS:  # the first of each is slow
                bench.run(CONTEXT, function, {"megabytes": 1, "folder": folder})
            for size, rounds in list(MEGABYTES.items())[: 1 if effort.quick else None]:
                plain = Series(f"{size} MB to the {place}, df.write.parquet")
                ours = Series(f"{size} MB to the {place}, named object", goals=(AS_QUICK,), baseline=plain)
                pairs = list(zip(FUNCTIONS, (plain, ours), strict=True))
                for number in range(effort.rounds_of(rounds)):
                    for function, series in pairs if number % 2 else reversed(pairs):
                        config = {"megabytes": size, "folder": folder}
                        series.values.append(bench.run(CONTEXT, function, config, limit=LIMIT))
                shown += [plain, ours]
    return Section(
        "Checkpoints of DataFrames",
        "Seconds until numbers that nothing compresses are written as Parquet of this size, in turns; a named object is "
        "durable and sealed, too, and read back from there.",
        shown,
    )
