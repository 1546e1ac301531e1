"""Whether a failover takes longer the more named data there is: the driver is killed, and one row of the data is asked for."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from benchmarks.cluster import cluster
from benchmarks.failover import asked_until_answered, failover_after, running_context
from benchmarks.measure import Against, Effort, Goal, Section, Series

MEGABYTES = (1, 100, 2000)
"""Sizes of the named DataFrame: random numbers, which nothing compresses, in files of the checkpoint."""


def run(effort: Effort) -> Section:
    """For each size: from the kill to the first right answer, and the takeover by its record."""
    sizes = MEGABYTES[:2] if effort.quick else MEGABYTES
    whole: dict[int, Series] = {}
    takeover: dict[int, Series] = {}
    for size in sizes:
        smallest = whole.get(sizes[0])
        goals = () if smallest is None else (Goal(0.5, 1.2, Against.RATIO),)
        whole[size] = Series(f"{size} MB: killed to answered", goals=goals, baseline=smallest)
        takeover[size] = Series(f"{size} MB: takeover", baseline=takeover.get(sizes[0]))
    with cluster(2, "warm") as bench:
        for size in sizes:
            name = f"bench{size}"
            bench.create_context(name)
            bench.run(name, "build_size", {"megabytes": size})
            wanted = bench.run(name, "row_of_size", {})
            for _ in range(effort.rounds_of(10)):
                bench.wait_warm(1)
                seconds, record = _round(bench, name, wanted)
                whole[size].values.append(seconds)
                takeover[size].values.append(record["seconds"])
            bench.delete_context(name)
    return Section(
        "Failovers as data grows",
        "Seconds from the kill (SIGKILL) of the driver to the right row of a named DataFrame, with a warm standby.",
        [series for size in sizes for series in (whole[size], takeover[size])],
    )


def _round(bench: Any, name: str, wanted: Any) -> tuple[float, dict[str, Any]]:
    before = running_context(bench, "s1", name)
    asked = bench.other_than(before["owner"])
    began, began_clock = time.time(), time.perf_counter()
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    row = asked_until_answered(bench, asked, name, "row_of_size")
    seconds = time.perf_counter() - began_clock
    if row != wanted:
        raise AssertionError(f"the row after the failover: {row}, before: {wanted}")
    return seconds, failover_after(bench, asked, began, name)
