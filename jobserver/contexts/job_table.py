"""The jobs of one epoch that have not left it: their rows as committed, who has a slot, who waits, who is accepted.

Writes nothing and tells nobody: what stands here was committed before. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from jobserver.admission import Admission
from jobserver.model import AttemptRef, JobRecord, JobState, OnFailover


class JobTable:
    """`rows`: by id; `accepted`: ids of those whose `validate` passed. `freed`: is called when a slot may have become free."""

    def __init__(self, max_jobs: int, freed: Callable[[], None]) -> None:
        self.rows: dict[str, JobRecord] = {}
        self.accepted: set[str] = set()
        self.admission = Admission(max_jobs)
        self._freed = freed
        self._released = asyncio.Event()

    def release(self, job_id: str) -> None:
        """The job has left: its slot is free, or its place in the queue."""
        self.admission.release(job_id)
        self._released.set()
        self.rows.pop(job_id, None)
        self.accepted.discard(job_id)
        self._freed()

    def is_current(self, attempt: AttemptRef) -> bool:
        """Whether it is the last of a job that was not put back since: what an older one brings counts no more."""
        job = self.rows.get(attempt.job_id)
        return job is not None and job.attempt == attempt.attempt and job.state is not JobState.RESTARTING

    def not_again(self) -> list[JobRecord]:
        """Running jobs that may not run once more: `onFailover: fail`, or their last attempt (one that starts counts)."""
        rows = [self.rows[job_id] for job_id in sorted(self.admission.running) if job_id in self.rows]
        # a killed one has its slot until the driver has ended it
        jobs = [job for job in rows if not job.state.final]
        return [
            job
            for job in jobs
            if job.spec.on_failover is OnFailover.FAIL
            or job.attempt + (job.state is not JobState.RUNNING) >= job.spec.max_attempts
        ]

    async def ended(self, job_ids: AbstractSet[str], seconds: float) -> bool:
        """Whether none of these jobs has a slot any more, after waiting for it at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not self.admission.running.isdisjoint(job_ids):
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            return False
        return True
