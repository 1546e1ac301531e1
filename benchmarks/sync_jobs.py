"""A sync job over REST against the same function in a plain pyspark process: what the service adds to a query.

Both sides are warmed by as many calls, and measured in turns: process, owner, process, another server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster import COMPUTING, BenchCluster, Refused, cluster, job_request, job_result
from benchmarks.connection import Connection
from benchmarks.measure import Against, Effort, Goal, Section, Series
from benchmarks.plain import Plain, row_config

CONTEXTS: dict[str, dict[str, str]] = {"bench": COMPUTING, "small": {}}
"""What is compared with plain pyspark runs in a JVM with the same compilers; beside it, a driver as it is by default."""
CASES = (
    ("answer", "bench", "trivial Python job"),
    ("select_one", "bench", "select 1"),
    ("point", "bench", "point filter, 1M cached rows"),
    ("totals", "bench", "group-by, 1M cached rows"),
    ("totals", "small", "group-by, default driver"),
)
"""Functions of `benchmarks/jobs.py`, the context, and what they are called in the table."""
OVER_PROCESS = (Goal(0.5, 0.003, Against.DIFFERENCE), Goal(0.99, 0.010, Against.DIFFERENCE))
OVER_OWNER = (Goal(0.5, 0.002, Against.DIFFERENCE),)
Configs = Sequence[dict[str, int]]


@dataclass(frozen=True, slots=True)
class Case:
    """One function in one context and its three series."""

    function: str
    context: str
    process: Series
    owner: Series
    other: Series


def run(effort: Effort) -> Section:
    """Three series for each case: in process, through the owner, through another server."""
    cases = [_case(*case) for case in CASES]
    with cluster(2) as bench, Plain(bench.folder) as plain:
        for context, settings in CONTEXTS.items():
            bench.create_context(context, settings)
        sides = _Sides(plain, bench)
        _build(plain, bench)
        bench.wait_warm(len(CONTEXTS))
        for case in cases:
            _warm(sides, case, effort.times(100, 2))
        for number in range(effort.rounds_of(10)):
            for case in cases:
                _round(sides, case, effort.times(20, 3), number)
        sides.close()
    return Section(
        "Sync jobs over REST",
        "Seconds from the request to the whole answer on a kept connection, one client, against the same function called in "
        "a plain pyspark process (its JVM as Spark starts it; `local[2]`, 2 shuffle partitions on both sides), in turns. The "
        "context's JVM has the optimizing compiler, too; a default driver, which starts sooner without it, has its own rows.",
        [series for case in cases for series in (case.process, case.owner, case.other)],
    )


def _case(function: str, context: str, name: str) -> Case:
    process = Series(f"{name}, in process")
    owner = Series(f"{name}, through the owner", goals=OVER_PROCESS, baseline=process)
    other = Series(f"{name}, through another server", goals=OVER_OWNER, baseline=owner)
    return Case(function, context, process, owner, other)


def _build(plain: Plain, bench: BenchCluster) -> None:
    """The named rows on both sides."""
    seeded = {"seed": 7}  # as many partitions on both sides, so the same rows
    here = plain.run("build", [seeded])[1][0]
    for context in CONTEXTS:
        there = bench.run(context, "build", seeded)
        if here != there:
            raise Refused(f"{there} rows over REST, {here} in process")


class _Sides:
    """The three ways to call a function. Each answers seconds and results."""

    def __init__(self, plain: Plain, bench: BenchCluster) -> None:
        self._plain = plain
        owners = {context: bench.context(context)["owner"] for context in CONTEXTS}
        self._owners = {context: bench.connect(owner) for context, owner in owners.items()}
        self._others = {context: bench.connect(bench.other_than(owner)) for context, owner in owners.items()}

    def process(self, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
        return self._plain.run(case.function, configs)

    def owner(self, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
        return _over_rest(self._owners[case.context], case, configs)

    def other(self, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
        return _over_rest(self._others[case.context], case, configs)

    def close(self) -> None:
        for connection in (*self._owners.values(), *self._others.values()):
            connection.close()


def _over_rest(connection: Connection, case: Case, configs: Configs) -> tuple[list[float], list[Any]]:
    seconds, results = [], []
    for config in configs:
        request = job_request(case.context, case.function, config)
        begin = time.perf_counter()
        answer = connection.ask(request)
        seconds.append(time.perf_counter() - begin)
        results.append(job_result(answer))
    return seconds, results


def _warm(sides: _Sides, case: Case, times: int) -> None:
    for call in (sides.process, sides.owner, sides.process, sides.other):
        call(case, _configs(times, 0))


def _round(sides: _Sides, case: Case, times: int, number: int) -> None:
    """The same arguments on every side, and so the same results."""
    configs = _configs(times, number)
    wanted = None
    turns = (
        ((sides.process, case.process), (sides.owner, case.owner)),
        ((sides.process, case.process), (sides.other, case.other)),
    )
    for call, series in (*turns[0], *turns[1]):
        seconds, results = call(case, configs)
        series.values += seconds
        wanted = results if wanted is None else wanted
        if results != wanted:
            raise Refused(f"{series.name}: {results}, in process {wanted}")


def _configs(times: int, number: int) -> Configs:
    return [row_config(number * times + index) for index in range(times)]
