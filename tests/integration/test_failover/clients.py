"""Clients at work, and what else a test does while processes die: repeats, waits, looks at what was acknowledged."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

from live_cluster import Live, NoAnswer, Reply

from jobserver.local.processes import wait_until

DRIVER_TIMEOUT = 4.0
"""A driver silent for so long counts as dead, seconds; shorter than by default, for the sake of the tests' time."""
PLACE = "place"
MANY = 10_000
"""The longest list of jobs that a server gives; more than the tests submit."""


class Load:
    """Clients that submit with keys and repeat what was not answered on the next server, until it is."""

    def __init__(self, live: Live, code: str, truth: Any) -> None:
        self._live, self._code = live, code
        self._sum = sum(amount for _, amount in truth[0])
        self._ends = threading.Event()
        self._numbers = itertools.count(1)
        self.name = f"load-{time.time_ns()}"
        self.jobs: dict[int, str] = {}
        self.answered: list[tuple[float, int]] = []
        self.faults: list[str] = []
        self.repeated: list[str] = []
        self.through: list[str] | None = None
        self.patience = 8.0
        self._before = self._listed()
        self._threads = [threading.Thread(target=self._client, args=(sync,)) for sync in (True, False)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _client(self, sync: bool) -> None:
        # without a pause, queries would take the cores that new processes need
        while not self._ends.wait(0.4):
            number = next(self._numbers)
            try:
                self._one(number, sync)
            except (AssertionError, LookupError, ValueError) as error:
                self.faults.append(f"job {number} (sync {sync}): {error!r}")

    def _one(self, number: int, sync: bool) -> None:
        reply = self._answer(number, sync)
        assert reply.status == (200 if sync else 202), str(reply)
        assert sync is ("status" not in reply.json), str(reply)
        if sync:
            assert reply.json["result"] == [number, self._sum], str(reply)
        self.jobs[number] = reply.json["jobId"]
        self.answered.append((time.monotonic(), number))

    def _answer(self, number: int, sync: bool, limit: float = 90.0) -> Reply:
        """The answer, however often it must be asked for; 503 and a silent server mean: ask again, elsewhere."""
        deadline, last = time.monotonic() + limit, ""
        config = {"n": number, "seconds": 0.0 if sync else 0.3}
        while time.monotonic() < deadline:
            server = self.through[number % len(self.through)] if self.through else None
            try:
                reply = self._live.submit(
                    self._code, "work:work", PLACE, config, sync=sync, key=f"{self.name}-{number}", timeout=60,
                    patience=self.patience, server=server,
                )  # fmt: skip
            except NoAnswer as error:
                last = str(error)
            else:
                if reply.status != 503:
                    return reply
                last = str(reply)
            self.repeated.append(f"job {number} through {server}: {last}")
            time.sleep(0.05)
        raise AssertionError(f"no answer within {limit:g} s; last: {last}")

    def goes_on(self, after: float | None = None, count: int = 5, limit: float = 60.0) -> None:
        """Waits until jobs that were answered after a time (now) are `count`."""
        after = time.monotonic() if after is None else after
        enough = wait_until(lambda: sum(at > after for at, _ in self.answered) >= count, limit)
        assert enough, f"clients get no answers; {self.faults}"

    def judge(self) -> None:
        """Everything that was acknowledged is final, once, and right, whichever server is asked."""
        live = self._live
        assert self.faults == []
        for number, job_id in self.jobs.items():
            job = live.ended(job_id, 60)
            assert (job["status"], job.get("result")) == ("FINISHED", [number, self._sum]), job
        for server in live.ids:
            ours = self._listed(server) - self._before
            assert ours == set(self.jobs.values()), "a job that nobody asked for, or one that is lost"

    def _listed(self, server: str | None = None) -> set[str]:
        listed = self._live.get(f"/jobs?limit={MANY}", server)
        return {job["jobId"] for job in listed if job["classPath"] == "work:work"}


def stop_server(live: Live, server: str) -> None:
    child = live.cluster.servers[server]
    child.handle.terminate()
    assert child.handle.wait(60) == 0


@contextlib.contextmanager
def in_background(action: Any) -> Iterator[list[Any]]:
    """Runs `action` beside the block; the list holds its result, or what it raised, once the block has been left."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(action())
        except (AssertionError, NoAnswer) as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join()
