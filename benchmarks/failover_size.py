"""Whether a failover takes longer the more named data there is, in bytes or objects: a driver is killed, one row is asked for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
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
OBJECTS = (1, 100, 10_000)
"""How many named values there are beside a DataFrame of 1 MB."""
BUILD_LIMIT = 600.0
"""Seconds that the rows may take to be written; two gigabytes take more than a minute on two cores."""
GROWTH = Goal(0.5, 1.2, Against.RATIO)


def run(effort: Effort) -> Section:
    """For each size: from the kill to the first right answer, and its parts."""
    sizes = [(f"{size} MB", {"megabytes": size}, 0) for size in MEGABYTES]
    about = "of a named DataFrame, with a warm standby; its parts."
    return _section(effort, "Failovers as data grows", about, sizes)


def run_counts(effort: Effort) -> Section:
    """For each number of named objects: the same."""
    counts = [(f"{count} named objects", {"megabytes": 1}, count) for count in OBJECTS]
    about = "of a named DataFrame of 1 MB beside so many named values, with a warm standby; its parts."
    return _section(effort, "Failovers as named objects become more", about, counts)


def _section(
    effort: Effort, title: str, about: str, cases: Sequence[tuple[str, dict[str, int], int]]
) -> Section:
    smallest: Series | None = None
    shown, notes = [], []
    with cluster(2, "warm") as bench:
        for number, (case, size, values) in enumerate(cases[: 1 if effort.quick else None]):
            name, what = f"bench{number}", f"{case}: driver killed"
            parts = parts_of(what, GROWTH if smallest else None, smallest)
            smallest = smallest or parts.whole
            bench.create_context(name)
            bench.run(name, "build_size", size, limit=BUILD_LIMIT)
            bench.run(name, "build_values", {"count": values})
            wanted = bench.run(name, "row_of_size", {})
            for _ in range(effort.rounds_of(20)):
                bench.wait_warm(1)
                note(parts, *_round(bench, name, wanted))
            bench.delete_context(name)
            shown += series_of(parts)
            notes.append(f"{what}: {counted(parts.kinds)}")
    return Section(
        title, f"Seconds from the kill (SIGKILL) of the driver to the right row {about}", shown, notes
    )


def _round(bench: Any, name: str, wanted: Any) -> tuple[float, float, dict[str, Any]]:
    """When it began by the wall clock, the seconds it took, its record."""
    before = running_context(bench, "s1", name)
    asked = bench.other_than(before["owner"])
    began, began_clock = time.time(), time.perf_counter()
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    row = asked_until_answered(bench, asked, name, "row_of_size", {})
    seconds = time.perf_counter() - began_clock
    if row != wanted:
        raise Refused(f"the row after the failover: {row}, before: {wanted}")
    return began, seconds, failover_after(bench, asked, began, name)
