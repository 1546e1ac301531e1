"""Planned moves under load: the longest answer that a client sees while its context moves, and whether any request fails.

Two clients ask through the server that is neither the owner nor the next one, each as quickly as it is answered, without
keys and without repeating anything. The same clients on a context that stays are the baseline. Each move begins when no driver
that waits is being started or rehearses any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.cluster import BenchCluster, Refused, cluster, job_request, job_result
from benchmarks.measure import Effort, Goal, Section, Series

CONTEXT = "bench"
CLIENTS = 2
SETTLE = 1.0
"""Seconds of load before and after a move."""


@dataclass(slots=True)
class _Load:
    """Clients at work; `answers` are the start and the seconds of each, `failures` what was no good answer."""

    bench: BenchCluster
    server: str
    wanted: dict[int, object]
    answers: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int) -> None:
        connection = self.bench.connect(self.server)
        while not self.ends.is_set():
            began = time.perf_counter()
            try:
                result = job_result(connection.ask(job_request(CONTEXT, "point", {"id": number})))
            except (Refused, OSError, EOFError) as error:
                self.failures.append(str(error))
                connection.close()
                connection = self.bench.connect(self.server)
                continue
            if self.wanted.setdefault(number, result) != result:
                self.failures.append(f"{result} instead of {self.wanted[number]}")
            self.answers.append((began, time.perf_counter() - began))
        connection.close()

    def longest(self, since: float, until: float) -> float:
        """The longest answer under way in a span of time."""
        return max(took for began, took in self.answers if began < until and began + took > since)


def run(effort: Effort) -> Section:
    """The move, the longest answer in it, the longest without one."""
    calm = Series("longest answer, nothing moved")
    series = {
        keep: (
            Series(f"{name}: longest answer meanwhile", goals=(Goal(0.95, 0.5),), baseline=calm),
            Series(f"{name}: longest answer in the second after", baseline=calm),
            Series(f"{name}: the gate closed and opened (by its record)"),
            Series(f"{name}: from the order to its answer"),
        )
        for keep, name in ((False, "switchover"), (True, "switchover, driver kept"))
    }
    failed = Series("requests that failed, per move", unit="", goals=(Goal(1.0, 0.0),))
    failures: list[str] = []
    answers = 0
    wanted: dict[int, object] = {}
    with cluster(3, "warm") as bench:
        bench.create_context(CONTEXT)
        bench.run(CONTEXT, "build", {})
        for _ in range(effort.rounds_of(20)):
            for keep in (False, True):
                bench.wait_warm(1)
                bench.wait_rehearsed()
                load = _move(bench, wanted, calm, *series[keep], keep=keep)
                failed.values.append(len(load.failures))
                failures += load.failures
                answers += len(load.answers)
    return Section(
        "Planned moves",
        f"{CLIENTS} clients ask for one row of a million named ones through a server that is neither the owner nor the next "
        "one. Seconds; moves alternate between a new driver on the other server and the old one, kept.",
        [calm, *(each for one in series.values() for each in one), failed],
        [f"{answers} requests, {len(failures)} failed{': ' + failures[0] if failures else ''}"],
    )


def _move(
    bench: BenchCluster,
    wanted: dict[int, object],
    calm: Series,
    longest: Series,
    after: Series,
    gate: Series,
    whole: Series,
    *,
    keep: bool,
) -> _Load:
    owner = bench.context(CONTEXT)["owner"]
    to, asked = (name for name in bench.server_ids if name != owner)
    with _loaded(bench, asked, wanted) as load:
        time.sleep(SETTLE)
        began = time.perf_counter()
        bench.ask("POST", f"/contexts/{CONTEXT}/switchover?to={to}&grace=30s&keep-driver={str(keep).lower()}")
        ended = time.perf_counter()
        time.sleep(SETTLE)
    whole.values.append(ended - began)
    longest.values.append(load.longest(began, ended))
    after.values.append(load.longest(ended, ended + SETTLE))
    gate.values.append(bench.context(CONTEXT)["last_failover"]["seconds"])
    calm.values.append(load.longest(began - SETTLE, began))
    return load


@contextmanager
def _loaded(bench: BenchCluster, server: str, wanted: dict[int, object]) -> Iterator[_Load]:
    load = _Load(bench, server, wanted)
    threads = [threading.Thread(target=load.client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.ends.set()
        for thread in threads:
            thread.join()
