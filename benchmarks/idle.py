"""What servers cost that have nothing to do, against a process that only listens with aiohttp."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from benchmarks.cluster import Refused, cluster
from benchmarks.measure import Effort, Goal, Section, Series
from jobserver.local.ports import LOOPBACK, busy_ports, free_ports
from jobserver.local.processes import wait_until

CONTEXT = "bench"
MEMORY = (Goal(1.0, 120.0),)
CPU = (Goal(1.0, 1.0),)
LISTEN = "import sys; from aiohttp import web; web.run_app(web.Application(), host=sys.argv[1], port=int(sys.argv[2]))"


class Watched:
    """A process and its series."""

    def __init__(self, name: str, pid: int, bare: Watched | None = None) -> None:
        goals = ((), (), ()) if bare is None else (MEMORY, (), CPU)
        self.process = psutil.Process(pid)
        self.rss: Series = Series(f"{name}: resident", "MB", goals[0], bare.rss if bare else None)
        self.pss: Series = Series(f"{name}: PSS", "MB", goals[1], bare.pss if bare else None)
        self.cpu: Series = Series(f"{name}: CPU", "% of a core", goals[2], bare.cpu if bare else None)

    @property
    def series(self) -> list[Series]:
        return [self.rss, self.pss, self.cpu]

    def look(self) -> None:
        """Memory at this moment."""
        memory = self.process.memory_full_info()
        self.rss.values.append(memory.rss / 1e6)
        self.pss.values.append(memory.pss / 1e6)

    def cpu_seconds(self) -> float:
        """CPU used since it was started."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def run(effort: Effort) -> Section:
    """A server without contexts, and the owner of an idle one."""
    window = effort.times(10, 2)
    with cluster(2, "cold") as bench, _bare() as bare_pid:
        bench.create_context(CONTEXT)
        bench.run(CONTEXT, "python_task", {})
        owner = bench.context(CONTEXT)["owner"]
        bare = Watched("bare aiohttp", bare_pid)
        watched = [
            bare,
            Watched("server without contexts", bench.pid(bench.other_than(owner)), bare),
            Watched("owner of an idle context", bench.pid(owner), bare),
        ]
        time.sleep(effort.times(5, 0))  # what the start has left behind is not idleness
        for _ in range(effort.rounds_of(2)):
            _watch(watched, window)
    return Section(
        "An idle server",
        f"Memory in MB (10^6 bytes), and CPU over {window} s, of server processes alone, without drivers. "
        "PSS counts a page that n processes share as 1/n.",
        [series for each in watched for series in each.series],
    )


def _watch(watched: list[Watched], window: float) -> None:
    begin = time.monotonic()
    before = [each.cpu_seconds() for each in watched]
    time.sleep(window)
    for each, used in zip(watched, before, strict=True):
        each.cpu.values.append(100 * (each.cpu_seconds() - used) / (time.monotonic() - begin))
        each.look()


@contextmanager
def _bare() -> Iterator[int]:
    """The pid of a process that listens and does nothing else."""
    port = free_ports(1)[0]
    process = subprocess.Popen([sys.executable, "-c", LISTEN, LOOPBACK, str(port)], stdout=subprocess.DEVNULL)
    try:
        if not wait_until(lambda: bool(busy_ports([port])), 10.0):
            raise Refused("the bare aiohttp process does not listen")
        yield process.pid
    finally:
        process.terminate()
        process.wait()
