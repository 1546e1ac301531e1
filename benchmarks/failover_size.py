"""Whether a failover takes longer the more named data there is: the driver is killed, and one row of the data is asked for."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from benchmarks.cluster import Refused, cluster
from benchmarks.failover import (
    asked_until_answered,
    counted,
    failover_after,
    note,
    parts_of,
    running_context,
    series_of,
)
from benchmarks.measure import Against, Effort, Goal, Section, Series

MEGABYTES = (1, 2000)
"""Sizes of the named DataFrame: random numbers, which nothing compresses, in files of the checkpoint."""
GROWTH = Goal(0.5, 1.2, Against.RATIO)


def run(effort: Effort) -> Section:
    """For each size: from the kill to the first right answer, and its parts."""
    sizes = MEGABYTES[:1] if effort.quick else MEGABYTES
    smallest: Series | None = None
    shown, notes = [], []
    with cluster(2, "warm") as bench:
        for size in sizes:
            name, what = f"bench{size}", f"{size} MB: driver killed"
            parts = parts_of(what, GROWTH if smallest else None, smallest)
            smallest = smallest or parts.whole
            bench.create_context(name)
            bench.run(name, "build_size", {"megabytes": size})
            wanted = bench.run(name, "row_of_size", {})
            for _ in range(effort.rounds_of(20)):
                bench.wait_warm(1)
                note(parts, *_round(bench, name, wanted))
            bench.delete_context(name)
            shown += series_of(parts)
            notes.append(f"{what}: {counted(parts.kinds)}")
    return Section(
        "Failovers as data grows",
        "Seconds from the kill (SIGKILL) of the driver to the right row of a named DataFrame, with a warm standby; its parts.",
        shown,
        notes,
    )


def _round(bench: Any, name: str, wanted: Any) -> tuple[float, float, dict[str, Any]]:
    """When it began by the wall clock, the seconds it took, its record."""
    before = running_context(bench, "s1", name)
    asked = bench.other_than(before["owner"])
    began, began_clock = time.time(), time.perf_counter()
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    row = asked_until_answered(bench, asked, name, "row_of_size")
    seconds = time.perf_counter() - began_clock
    if row != wanted:
        raise Refused(f"the row after the failover: {row}, before: {wanted}")
    return began, seconds, failover_after(bench, asked, began, name)
