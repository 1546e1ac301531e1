"""How many sync jobs a second the whole service does, its clients on the same processors: trivial jobs against a bare aiohttp
server under the same load, queries against as many threads in a plain pyspark process. In turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.cluster import BenchCluster, cluster, job_request, job_result
from benchmarks.connection import http_request
from benchmarks.floor import bare_server
from benchmarks.load import Loaded, load
from benchmarks.measure import Against, Effort, Goal, Section, Series
from benchmarks.plain import Plain, row_config

CONTEXT = "bench"
BARE_ANSWER = b'{"jobId":"f3c5fd1e-8c0a-4a36-a7b6-2d4a5d3a9a31","result":42}'
CLIENTS = (8, 64)
TRIVIAL = {8: 3000, 64: 5000}
"""Goals of trivial jobs: so many a second."""
QUERIES = {
    "select_one": "select 1",
    "point": "point filter, 1M cached rows",
    "totals": "group-by, 1M cached rows",
}
WARMING = 3
"""How much longer the first round is, in which both sides compile: group-bys of eight come to their speed after some seconds."""
LEAD_IN = 0.5
"""The part of a turn's time that comes before it, not counted: what had the turn before still compiles and collects then."""
AS_IN_PROCESS = (Goal(0.5, 1 / 0.95, Against.RATIO),)
Measure = Callable[[float], float]
"""Seconds to measure to seconds that each job took, all clients together."""


@dataclass(slots=True)
class Turns:
    """What is measured, in turns."""

    measured: list[tuple[Series, Measure]] = field(default_factory=list)

    def add(
        self, name: str, measure: Measure, goals: tuple[Goal, ...] = (), baseline: Series | None = None
    ) -> Series:
        """One more; its series."""
        series = Series(name, goals=goals, baseline=baseline)
        self.measured.append((series, measure))
        return series

    def take(self, seconds: float, *, keep: bool) -> None:
        """One round; the first ones only warm."""
        for series, measure in self.measured:
            if keep:
                measure(seconds * LEAD_IN)
            value = measure(seconds)
            if keep:
                series.values.append(value)


def run(effort: Effort) -> Section:
    """A series for each number of clients, kind of job and side."""
    with bare_server(BARE_ANSWER) as floor, cluster(2) as bench, Plain(bench.folder) as plain:
        plain.run("build", [{}])
        bench.create_context(CONTEXT, {"max-jobs": str(max(CLIENTS))})
        bench.run(CONTEXT, "build", {})
        bench.wait_warm(1)
        bench.wait_rehearsed()
        turns = _turns(bench, plain, floor)
        seconds = effort.times(20, 3) / 10
        turns.take(seconds * WARMING, keep=False)
        for _ in range(effort.rounds_of(3)):
            turns.take(seconds, keep=True)
    series = [each for each, _ in turns.measured]
    return Section(
        "Throughput",
        "Seconds that each job took, all clients together (the number of jobs a second is its inverse); median of rounds. Two "
        "servers on SQLite with FULL synchronisation, a context with 64 slots; clients, servers and Spark share the cores.",
        series,
        [f"{each.name}: {1 / sorted(each.values)[len(each.values) // 2]:.0f} a second" for each in series],
    )


def _turns(bench: BenchCluster, plain: Plain, floor: str) -> Turns:
    turns = Turns()
    owner = bench.context(CONTEXT)["owner"]
    sides = {"the owner": owner, "another server": bench.other_than(owner)}
    for clients in CLIENTS:
        bare_ones = turns.add(f"bare aiohttp, {clients} clients", _bare(floor, clients))
        for side, server in sides.items():
            turns.add(
                f"trivial Python job through {side}, {clients} clients",
                _jobs(bench, server, "answer", clients),
                (Goal(0.5, 1 / TRIVIAL[clients]),) if server == owner else (),
                bare_ones,
            )
    for function, name in QUERIES.items():
        for clients in CLIENTS:
            here = turns.add(f"{name} in process, {clients} threads", _threads(plain, function, clients))
            for side, server in sides.items():
                turns.add(
                    f"{name} through {side}, {clients} clients",
                    _jobs(bench, server, function, clients),
                    AS_IN_PROCESS,
                    here,
                )
    return turns


def _jobs(bench: BenchCluster, server: str, function: str, clients: int) -> Measure:
    def measure(seconds: float) -> float:
        return _each(
            load(
                bench.local.url(server),
                lambda number: job_request(CONTEXT, function, row_config(number)),
                lambda status, body: job_result((status, body)),
                clients=clients,
                seconds=seconds,
            )
        )

    return measure


def _bare(url: str, clients: int) -> Measure:
    request = http_request("POST", "/jobs", b"{}")

    def measure(seconds: float) -> float:
        return _each(
            load(url, lambda _: request, lambda status, body: None, clients=clients, seconds=seconds)
        )

    return measure


def _threads(plain: Plain, function: str, threads: int) -> Measure:
    def measure(seconds: float) -> float:
        calls, took = plain.run_threads(function, threads, seconds)
        return took / calls

    return measure


def _each(loaded: Loaded) -> float:
    return 1 / loaded.per_second
