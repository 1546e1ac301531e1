"""The workload of `tests/drills` on a context of a live cluster, judged through every server."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from live_cluster import Live

from jobserver.local.processes import wait_until
from tests.drills.checker import JobSeen, faults, unsettled
from tests.drills.workload import Task, Workload

MANY = 10_000
"""The longest list of jobs that a server gives; more than the tests submit."""
PAUSE = 0.4
"""Seconds between two submissions of a client: without, they would take the cores that a failover's new processes need."""
REST = 5.0
"""The same while they are at rest."""
SETTLE = 90.0
"""Seconds after which every acknowledged job must be final."""


class Load:
    """Clients at work while the block lasts. `main` is run by nobody else in this context of this binary."""

    def __init__(
        self,
        live: Live,
        binary: str,
        main: str,
        context: str,
        config: Callable[[int, bool], Mapping[str, Any]],
        expected: Callable[[int], Any],
    ) -> None:
        self._live, self._main = live, main
        self._before = set(self._listed(None))
        query = {"cp": binary, "mainClass": main, "context": context}
        self.workload = Workload(
            lambda: [live.cluster.url(one) for one in live.ids],
            Task(query, config, expected),
            pause=PAUSE,
            sync_pause=PAUSE,
        )

    def __enter__(self) -> Self:
        self.workload.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.workload.__exit__()

    def go_through(self, servers: Sequence[str]) -> None:
        """From now on clients ask these servers only, and wait for them."""
        self.workload.through = [self._live.cluster.url(one) for one in servers]

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Clients ask seldom meanwhile, so that what yields to all jobs comes to its end."""
        usual = dict(self.workload.pauses)
        self.workload.pauses.update(dict.fromkeys(usual, REST))
        try:
            yield
        finally:
            self.workload.pauses.update(usual)

    @property
    def repeated(self) -> list[str]:
        """Every attempt that a client had to make again."""
        return self.workload.repeated

    def goes_on(self, count: int = 5, limit: float = 60.0) -> None:
        """Waits until so many submissions were answered from now on."""
        since = time.monotonic()
        if not wait_until(lambda: self.workload.answered(since) >= count, limit):
            raise AssertionError(f"clients get no answers; last: {self.workload.history[-3:]}")

    def judge(self) -> None:
        """Everything that was acknowledged is final, once, and right, whichever server is asked."""
        history, jobs = self.workload.history, dict[str, JobSeen]()
        deadline = time.monotonic() + SETTLE
        while (left := unsettled(history, jobs)) and time.monotonic() < deadline:
            jobs |= {one: self._seen(one) for one in left}
        servers = itertools.cycle(self._live.ids)
        for server in self._live.ids:
            on_record = self._listed(server).keys() - self._before
            jobs |= {one: self._seen(one, next(servers)) for one in on_record - jobs.keys()}
            found = faults(history, {one: jobs[one] for one in on_record})
            assert found == [], f"asked {server}: {found[:20]}"

    def _seen(self, job_id: str, server: str | None = None) -> JobSeen:
        job = self._live.job(job_id, server)
        return JobSeen(job_id, job["status"], job.get("result"))

    def _listed(self, server: str | None) -> dict[str, str]:
        listed = self._live.get(f"/jobs?limit={MANY}", server)
        return {job["jobId"]: job["status"] for job in listed if job["classPath"] == self._main}
