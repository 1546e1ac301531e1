"""Time limits of running attempts: one timer each. Says when an attempt's time is over, and ends nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from jobserver.model import JobRecord


class TimeLimits:
    """Belongs to the event loop. `over` is given job and attempt when their time is over, counted by this server's clock."""

    def __init__(self, over: Callable[[str, int], None]) -> None:
        self._over = over
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def begin(self, job: JobRecord, since: datetime) -> None:
        """The job's attempt runs since then; its limit counts from there, if it has one."""
        self.end(job.id)
        if job.spec.time_limit is not None:
            left = job.spec.time_limit - (datetime.now(UTC) - since).total_seconds()
            loop = asyncio.get_running_loop()
            self._timers[job.id] = loop.call_later(max(left, 0.0), self._over, job.id, job.attempt)

    def end(self, job_id: str) -> None:
        """The job runs no more."""
        timer = self._timers.pop(job_id, None)
        if timer is not None:
            timer.cancel()

    def end_all(self) -> None:
        """Nobody is told any more."""
        for job_id in list(self._timers):
            self.end(job_id)
