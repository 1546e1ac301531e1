"""Many jobs of many kinds on one server and one driver, and what these hold meanwhile: memory, threads, files.

The verdict is a number: the growth per 1,000 jobs, by least squares over the samples after the warm-up. What lies in SQL and
in the checkpoint store is meant to grow, until retention removes it; no process may.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil

from benchmarks.cluster import BenchCluster, Refused, cluster, job_result
from benchmarks.connection import Connection, http_request
from benchmarks.measure import Effort, Goal, Section, Series

CONTEXT, CODE = "soak", "soak_jobs"
CLIENTS = 4
WARM_UP = 0.3
"""Share of the samples that the verdict leaves out: caches fill, the JVM compiles, its heap finds its size."""
MEGABYTE = 1e6
KINDS = (
    *("answer", "query", "answer", "remember", "answer", "speak", "answer", "fail", "answer", "Refusing"),
    *("answer", "large", "sql", "view", "answer", "rows", "answer", "sql", "answer", "arrow"),
)
"""Each client's jobs, over and over; every 50th is one that is killed."""
KILL_EVERY = 50
GOALS = {"MB": 0.5, "threads": 0.2, "files": 0.2}
"""Largest growth per 1,000 jobs that counts as none: the noise of some twenty samples."""


@dataclass(slots=True)
class Trace:
    """One quantity, sampled again and again."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)


def run(effort: Effort) -> Section:
    """`effort.rounds` thousands of jobs; a sample after each."""
    size = effort.times(1000, 60)
    with cluster(1, "cold") as bench:
        _prepare(bench)
        traces = {each.name: each for each in _traces()}
        _sample(bench, traces)
        for number in range(effort.rounds_of(20)):
            _round(bench, number * size, size)
            _sample(bench, traces)
    return section(list(traces.values()), size)


def section(traces: Sequence[Trace], size: int) -> Section:
    """The series of the report; `size`: jobs between two samples."""
    series = []
    for trace in traces:
        series.append(Series(trace.name, trace.unit, values=trace.values))
        goal = (Goal(1.0, GOALS[trace.unit]),) if trace.unit in GOALS and judged(trace.name) else ()
        growth = slope(trace.values[int(len(trace.values) * WARM_UP) :]) * 1000 / size
        series.append(Series(f"{trace.name}: growth per 1,000 jobs", trace.unit, goal, values=[growth]))
    jobs = (len(traces[0].values) - 1) * size
    return Section(
        "Soak",
        f"{jobs} jobs of {len(set(KINDS)) + 1} kinds by {CLIENTS} clients on one server and one driver, a sample after every "
        f"{size}. Growth: least squares over the last {1 - WARM_UP:.0%} of the samples. MB are 10^6 bytes.",
        series,
        [
            f"{trace.name} ({trace.unit}): {', '.join(f'{value:.1f}' for value in trace.values)}"
            for trace in traces
        ],
    )


def judged(name: str) -> bool:
    """Resident memory of a JVM is what its heap once needed: its live heap is judged instead."""
    return name != "driver's JVM: resident"


def slope(values: Sequence[float]) -> float:
    """Growth from one value to the next, by least squares; 0 for less than two."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((at - middle) ** 2 for at in range(count))
    return sum((at - middle) * (value - mean) for at, value in enumerate(values)) / spread


def _traces() -> list[Trace]:
    names = ("server", "driver's Python", "driver's JVM")
    return [
        *(Trace(f"{name}: resident", "MB") for name in names),
        *(Trace(f"{name}: threads", "threads") for name in names),
        *(Trace(f"{name}: open files", "files") for name in names),
        Trace("driver's JVM: live heap", "MB"),
        Trace("driver's JVM: classes", "classes"),
        Trace("driver's Python: live objects", "objects"),
    ]


def _prepare(bench: BenchCluster) -> None:
    code = Path(__file__).with_name("soak_jobs.py").read_bytes()
    bench.ask("POST", f"/binaries/{CODE}", code, Content_Type="text/x-python")
    bench.create_context(CONTEXT)


def _sample(bench: BenchCluster, traces: Mapping[str, Trace]) -> None:
    driver = bench.context(CONTEXT)["driver"]
    pids = {"server": bench.pid("s1"), "driver's Python": driver["pid"], "driver's JVM": driver["jvm_pid"]}
    with contextlib.closing(bench.connect("s1")) as connection:
        census = _sync(connection, "census", 0)
    for name, pid in pids.items():
        process = psutil.Process(pid)
        traces[f"{name}: resident"].values.append(process.memory_info().rss / MEGABYTE)
        traces[f"{name}: threads"].values.append(process.num_threads())
        traces[f"{name}: open files"].values.append(process.num_fds())
    traces["driver's JVM: live heap"].values.append(census["heap"] / MEGABYTE)
    traces["driver's JVM: classes"].values.append(census["classes"])
    traces["driver's Python: live objects"].values.append(census["objects"])


def _round(bench: BenchCluster, first: int, size: int) -> None:
    """So many jobs by all clients. Raises what ended the first client that failed."""
    failures: list[BaseException] = []

    def client(number: int) -> None:
        connection = bench.connect("s1")
        try:
            for job in range(first + number, first + size, CLIENTS):
                _one(connection, job, job // CLIENTS)
        except BaseException as error:  # noqa: BLE001 - told by the main thread, which raises it
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _one(connection: Connection, job: int, turn: int) -> None:
    """One job of the kind whose turn it is, with the check that its answer is the right one."""
    if turn % KILL_EVERY == KILL_EVERY - 1:
        _kill(connection, job)
        return
    kind = KINDS[turn % len(KINDS)]
    wanted = _CHECKS.get(kind)
    if kind in ("sql", "arrow"):
        found: Any = _sql(connection, kind)
    elif wanted is None:
        found = _sync(connection, kind, job)
    else:
        found = connection.ask(_request(kind, job))
    if wanted is not None and not wanted(found):
        raise Refused(f"{kind}: {found!r:.500}")


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "fail": lambda found: found[0] == 200 and b"as it should" in found[1],
    "Refusing": lambda found: found[0] == 400 and b"never" in found[1],
    "sql": lambda found: found[0] == 200 and b'"rows":[[0],[1]' in found[1],
    "arrow": lambda found: found[0] == 200 and found[1][:4] == b"\xff\xff\xff\xff",
}


def _request(main: str, job: int, *, sync: bool = True) -> bytes:
    name = f"{CODE}.{main}" if main[0].isupper() else f"{CODE}:{main}"
    query = {"cp": CODE, "mainClass": name, "context": CONTEXT, "sync": str(sync).lower(), "timeout": "100"}
    return http_request("POST", f"/jobs?{urlencode(query)}", json.dumps({"n": job}).encode())


def _sync(connection: Connection, main: str, job: int) -> Any:
    return job_result(connection.ask(_request(main, job)))


def _sql(connection: Connection, kind: str) -> tuple[int, bytes]:
    text = quote("select id from range(20)")
    accept = "application/vnd.apache.arrow.stream" if kind == "arrow" else "application/json"
    target = f"/jobs?sql={text}&context={CONTEXT}&sync=true&timeout=100"
    return connection.ask(http_request("POST", target, Accept=accept))


def _kill(connection: Connection, job: int) -> None:
    status, body = connection.ask(_request("wait", job, sync=False))
    if status != 202:
        raise Refused(f"wait: {status}: {body[:500]!r}")
    job_id = json.loads(body)["jobId"]
    status, body = connection.ask(http_request("DELETE", f"/jobs/{job_id}"))
    if status != 200 or b"KILLED" not in body:
        raise Refused(f"kill: {status}: {body[:500]!r}")
