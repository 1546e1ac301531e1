"""A sync job over REST against the same function in a plain pyspark process: what the service adds to a query.

Both sides are warmed by as many calls, and measured in turns: process, owner, process, another server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster import BenchCluster, Refused, cluster, job_request, job_result
from benchmarks.connection import Connection
from benchmarks.measure import Against, Effort, Goal, Section, Series
from benchmarks.plain import Plain, row_config

CONTEXT = "bench"
CASES = (
    ("answer", "trivial Python job"),
    ("select_one", "select 1"),
    ("point", "point filter, 1M cached rows"),
    ("totals", "group-by, 1M cached rows"),
)
"""Functions of `benchmarks/jobs.py`, and what they are called in the table."""
OVER_PROCESS = (Goal(0.5, 0.003, Against.DIFFERENCE), Goal(0.99, 0.010, Against.DIFFERENCE))
OVER_OWNER = (Goal(0.5, 0.002, Against.DIFFERENCE),)
Configs = Sequence[dict[str, int]]


@dataclass(frozen=True, slots=True)
class Case:
    """One function and its three series."""

    function: str
    process: Series
    owner: Series
    other: Series


def run(effort: Effort) -> Section:
    """Three series for each case: in process, through the owner, through another server."""
    cases = [_case(*case) for case in CASES]
    with cluster(2) as bench, Plain(bench.folder) as plain:
        bench.create_context(CONTEXT)
        sides = _Sides(plain, bench)
        _build(plain, bench)
        bench.wait_warm(1)
        bench.wait_rehearsed()
        for case in cases:
            _warm(sides, case, effort.times(100, 2))
        for number in range(effort.rounds_of(10)):
            for case in cases:
                _round(sides, case, effort.times(20, 3), number)
        sides.close()
    return Section(
        "Sync jobs over REST",
        "Seconds from the request to the whole answer on a kept connection, one client, against the same function called in "
        "a plain pyspark process (its JVM as Spark starts it; `local[2]`, 2 shuffle partitions on both sides), in turns.",
        [series for case in cases for series in (case.process, case.owner, case.other)],
    )


def _case(function: str, name: str) -> Case:
    process = Series(f"{name}, in process")
    owner = Series(f"{name}, through the owner", goals=OVER_PROCESS, baseline=process)
    other = Series(f"{name}, through another server", goals=OVER_OWNER, baseline=owner)
    return Case(function, process, owner, other)


def _build(plain: Plain, bench: BenchCluster) -> None:
    """The named rows on both sides."""
    seeded = {"seed": 7}  # as many partitions on both sides, so the same rows
    here = plain.run("build", [seeded])[1][0]
    there = bench.run(CONTEXT, "build", seeded)
    if here != there:
        raise Refused(f"{there} rows over REST, {here} in process")


class _Sides:
    """The three ways to call a function. Each answers seconds and results."""

    def __init__(self, plain: Plain, bench: BenchCluster) -> None:
        self._plain = plain
        owner = bench.context(CONTEXT)["owner"]
        self._owner, self._other = bench.connect(owner), bench.connect(bench.other_than(owner))

    def process(self, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
        return self._plain.run(case.function, configs)

    def owner(self, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
        return _over_rest(self._owner, case, configs)

    def other(self, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
        return _over_rest(self._other, case, configs)

    def close(self) -> None:
        for connection in (self._owner, self._other):
            connection.close()


def _over_rest(connection: Connection, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
    seconds, results = [], []
    for config in configs:
        request = job_request(CONTEXT, case.function, config)
        begin = time.perf_counter()
        answer = connection.ask(request)
        seconds.append(time.perf_counter() - begin)
        results.append(job_result(answer))
    return seconds, results


def _warm(sides: _Sides, case: Case, times: int) -> None:
    for call in (sides.process, sides.owner, sides.process, sides.other):
        call(case, _configs(times, 0))


def _round(sides: _Sides, case: Case, times: int, number: int) -> None:
    """The same arguments in process and over REST, and so the same results; others in the other turn: of arguments that it has
    seen before Spark has compiled code."""
    turns = ((sides.owner, case.owner), (sides.other, case.other))
    for turn, (call, series) in enumerate(turns):
        configs = _configs(times, 2 * number + turn)
        here, wanted = sides.process(case, configs)
        there, results = call(case, configs)
        case.process.values += here
        series.values += there
        if results != wanted:
            raise Refused(f"{series.name}: {results}, in process {wanted}")


def _configs(times: int, number: int) -> Configs:
    return [row_config(number * times + index) for index in range(times)]
