"""From a kill to the first right answer: of the owner server, of the driver, of both; and both frozen instead of killed.

The answer is a group-by over a named DataFrame of random rows, and of an adopted driver also one of those rows: there the query
itself is the most of the time. Asked through a server that lives and does not own the context, with one idempotency key for
all tries. Each round kills once, and begins when all that was killed is there again.
"""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from benchmarks.cluster import BenchCluster, Refused, cluster, job_request, job_result
from benchmarks.measure import Effort, Goal, Section, Series
from jobserver.local.processes import wait_until

CONTEXT = "bench"
SESSION = 4.0
"""ZooKeeper's session timeout by default, seconds: what a frozen server costs before anybody may act."""
GOALS: dict[str, dict[str, float]] = {
    "cold": {"server": 0.5, "server, one row": 0.5},
    "warm": {"driver": 3.0, "both": 3.2},
    "hot": {"driver": 1.0, "both": 1.2, "frozen": SESSION + 1.2},
}
"""What is killed with which standbys, and the p95 to reach, seconds. A dead server's driver is adopted, whatever the standbys."""
KILLED = {
    "server": "owner server killed",
    "server, one row": "owner server killed, one row asked",
    "driver": "driver killed",
    "both": "server and driver killed",
    "frozen": "server and driver frozen",
}
Question = tuple[str, dict[str, int]]
"""A function of `benchmarks/jobs.py` and its configuration."""
GROUP_BY: Question = ("totals", {})
ONE_ROW: Question = ("point", {"id": 4711})
QUESTIONS = {what: ONE_ROW if what == "server, one row" else GROUP_BY for what in KILLED}
SERVER_KILLED = ("server", "server, one row", "both")
DRIVER_KILLED = ("driver", "both")
STEPS = {
    "electing": "claim",
    "granting": "fence in SQL",
    "adopting": "adoption, or its attempt",
    "basing": "fence and base in the checkpoint",
    "starting": "driver, bound and restored",
    "planning": "plan of the jobs",
}
"""Phases of a takeover in their order, as they are shown; which of them there are depends on its kind."""
PATIENCE = 120.0
AGAIN = 0.02
"""Seconds between two tries of a request that was answered 503."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One kind of failover: the whole, and what it consists of."""

    whole: Series
    noticed: Series
    takeover: Series
    steps: dict[str, Series]
    answered: Series
    kinds: Counter[str] = field(default_factory=Counter)


def run(effort: Effort, standby: str = "warm") -> Section:
    """For each thing that is killed: the whole time and its parts."""
    calm = {
        GROUP_BY[0]: Series("the group-by, nothing killed"),
        ONE_ROW[0]: Series("one row asked, nothing killed"),
    }
    parts = {
        what: parts_of(KILLED[what], Goal(0.95, goal), calm[QUESTIONS[what][0]])
        for what, goal in GOALS[standby].items()
    }
    with cluster(3, standby) as bench:
        bench.create_context(CONTEXT)
        bench.run(CONTEXT, "build", {})
        wanted = {what: bench.run(CONTEXT, *QUESTIONS[what]) for what in parts}
        for _ in range(effort.rounds_of(20)):
            for what, series in parts.items():
                _wait_ready(bench, standby)
                _calm(bench, calm[QUESTIONS[what][0]], QUESTIONS[what], wanted[what])
                _round(bench, what, wanted[what], series)
    return Section(
        f"Failovers ({standby} standby)",
        "Seconds from the kill (SIGKILL) to the first right answer of a group-by over a named DataFrame of a million random "
        "rows (or, where said, of one of these rows), through a server that lives and is not the owner; then its parts, by the "
        "failover's record in GET /cluster.",
        [
            *(series for series in calm.values() if series.values),
            *(series for each in parts.values() for series in series_of(each)),
        ],
        [f"{KILLED[what]}: {counted(each.kinds)}" for what, each in parts.items()],
    )


def _wait_ready(bench: BenchCluster, standby: str) -> None:
    """Returns when the standby is what the benchmark is about; a hot one is announced, of warm ones each server has one."""
    bench.wait_warm(1)
    running_context(bench, "s1")
    if standby == "hot" and not wait_until(lambda: _is_hot(running_context(bench, "s1")), PATIENCE):
        raise Refused(f"there is no hot standby: {running_context(bench, 's1')}")


def _is_hot(context: dict[str, Any]) -> bool:
    return any(each["mode"] == "hot" and each.get("rehearsed") for each in context["standbys"])


def parts_of(name: str, goal: Goal | None, baseline: Series | None) -> Parts:
    """Empty series for one kind of failover."""
    return Parts(
        Series(name, goals=() if goal is None else (goal,), baseline=baseline),
        Series(f"{name}: detection, until the takeover begins"),
        Series(f"{name}: takeover, until jobs may start"),
        {step: Series(f"{name}: … of it {shown}") for step, shown in STEPS.items()},
        Series(f"{name}: from there to the answer"),
    )


def series_of(parts: Parts) -> tuple[Series, ...]:
    """In the order of what happens."""
    steps = (series for series in parts.steps.values() if series.values)
    return (parts.whole, parts.noticed, parts.takeover, *steps, parts.answered)


def counted(kinds: Counter[str]) -> str:
    """How often each kind of takeover it was."""
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))


def _round(bench: BenchCluster, what: str, wanted: Any, parts: Parts) -> None:
    before = running_context(bench, "s1")
    owner, asked = before["owner"], bench.other_than(before["owner"])
    began, began_clock = time.time(), time.perf_counter()
    frozen = [bench.pid(owner), before["driver"]["pid"], before["driver"]["jvm_pid"]]
    if what in SERVER_KILLED:
        os.kill(bench.pid(owner), signal.SIGKILL)
    if what in DRIVER_KILLED:
        os.kill(before["driver"]["pid"], signal.SIGKILL)
    if what == "frozen":
        _freeze(bench, frozen)
    answer = asked_until_answered(bench, asked, CONTEXT, *QUESTIONS[what])
    whole = time.perf_counter() - began_clock
    if answer != wanted:
        raise Refused(f"the answer after the failover: {answer}, before: {wanted}")
    note(parts, began, whole, failover_after(bench, asked, began))
    if what == "frozen":
        _thaw(frozen)
    if what in SERVER_KILLED:
        bench.local.start_server(owner)


def _freeze(bench: BenchCluster, pids: list[int]) -> None:
    """SIGSTOP to all, with the server outside of an SQLite write: nobody can take its lock from a frozen process."""
    for _ in range(100):
        os.kill(pids[0], signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(bench.folder / "jobserver.db", timeout=1)) as sql:
                sql.execute("begin immediate")
            break
        except sqlite3.OperationalError:
            os.kill(pids[0], signal.SIGCONT)
    for pid in pids[1:]:
        os.kill(pid, signal.SIGSTOP)


def _thaw(pids: list[int]) -> None:
    """A driver that was frozen on the next owner's machine has been ended by now."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def note(parts: Parts, began: float, whole: float, failover: dict[str, Any]) -> None:
    """One failover: `began` by the wall clock, `whole` in seconds, and its record."""
    opened = datetime.fromisoformat(failover["at"]).timestamp() - began
    parts.whole.values.append(whole)
    parts.noticed.values.append(opened - failover["seconds"])
    parts.takeover.values.append(failover["seconds"])
    for step, seconds in failover["steps"].items():
        parts.steps[step].values.append(seconds)
    parts.answered.values.append(whole - opened)
    parts.kinds[failover["kind"]] += 1


def _calm(bench: BenchCluster, calm: Series, question: Question, wanted: Any) -> None:
    """The second of two queries: the first one after a restore is part of no baseline."""
    asked = bench.other_than(running_context(bench, "s1")["owner"])
    bench.run(CONTEXT, *question, server=asked)
    with calm.timed():
        answer = bench.run(CONTEXT, *question, server=asked)
    if answer != wanted:
        raise Refused(f"the answer: {answer}, at first: {wanted}")


def asked_until_answered(
    bench: BenchCluster, server: str, context: str, function: str, config: object
) -> Any:
    """The result, however often it must be asked for, with one key for all tries."""
    request = job_request(context, function, config, Idempotency_Key=secrets.token_hex(16))
    deadline = time.monotonic() + PATIENCE
    connection = bench.connect(server)
    try:
        while True:
            answer = connection.ask(request)
            if answer[0] != 503 or time.monotonic() > deadline:
                return job_result(answer)
            time.sleep(AGAIN)
    finally:
        connection.close()


def running_context(bench: BenchCluster, server: str, context: str = CONTEXT) -> dict[str, Any]:
    """The context, once it runs under an owner."""
    found: dict[str, Any] = {}

    def runs() -> bool:
        found.update(bench.context(context, server=server))
        return found.get("state") == "RUNNING" and bool(found["owner"]) and bool(found["driver"])

    if not wait_until(runs, PATIENCE):
        raise Refused(f"the context does not run: {found}")
    return found


def failover_after(bench: BenchCluster, server: str, began: float, context: str = CONTEXT) -> dict[str, Any]:
    """The record of the failover since a time; it is written after jobs may start."""
    found: dict[str, Any] = {}

    def recorded() -> bool:
        found.update(bench.context(context, server=server).get("last_failover") or {})
        return bool(found) and datetime.fromisoformat(found["at"]).timestamp() > began

    if not wait_until(recorded, PATIENCE):
        raise Refused("no record of the failover")
    return found
