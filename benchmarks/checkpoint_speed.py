"""Writing a named DataFrame under `sync`, against `df.write.parquet` of the same rows to the same place, in turns."""

from __future__ import annotations

from benchmarks.cluster import cluster
from benchmarks.measure import Against, Effort, Goal, Section, Series

CONTEXT = "bench"
MEGABYTES = {1: 10, 100: 5, 1000: 3}
"""Sizes, and how often each is written both ways."""
AS_QUICK = Goal(0.5, 1 / 0.9, Against.RATIO)


def run(effort: Effort) -> Section:
    """Two series for each size, in a directory and in HDFS."""
    shown: list[Series] = []
    for place, hdfs in (("directory", False), ("HDFS", True)):
        with cluster(1, "cold", hdfs=hdfs) as bench:
            bench.create_context(CONTEXT)
            folder = f"{bench.checkpoint_root}/plain"
            bench.run(CONTEXT, "write_twice", {"megabytes": 1, "folder": folder})  # the first of each is slow
            for size, rounds in list(MEGABYTES.items())[: 1 if effort.quick else None]:
                plain = Series(f"{size} MB to the {place}, df.write.parquet")
                ours = Series(f"{size} MB to the {place}, named object", goals=(AS_QUICK,), baseline=plain)
                for _ in range(effort.rounds_of(rounds)):
                    seconds = bench.run(CONTEXT, "write_twice", {"megabytes": size, "folder": folder})
                    plain.values.append(seconds[0])
                    ours.values.append(seconds[1])
                shown += [plain, ours]
    return Section(
        "Checkpoints of DataFrames",
        "Seconds until random numbers of this size are written as Parquet; a named object is sealed, too, and read back.",
        shown,
    )
