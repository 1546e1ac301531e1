"""Which waiting job of a context starts next. Pure; one instance belongs to one owned context.

Priority first, then order of arrival. At most `max_jobs` run. A job during whose earlier attempts the driver died twice
runs alone (design 4.3), so that it cannot take others with it a third time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

ALONE_AFTER_DEATHS = 2
"""Deaths of the driver after which a job no longer shares it."""


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A job in the queue; orders by priority (high first), then by arrival."""

    rank: tuple[int, int]
    job_id: str = field(compare=False)
    alone: bool = field(compare=False)


@dataclass(slots=True)
class Admission:
    """Slots and queue of one context."""

    max_jobs: int
    running: set[str] = field(default_factory=set)
    _queue: list[Waiting] = field(default_factory=list)
    _gone: set[str] = field(default_factory=set)
    _known: set[str] = field(default_factory=set)
    _arrivals: int = 0
    _alone: str | None = None

    def arrive(self, job_id: str, *, priority: int = 0, deaths: int = 0) -> None:
        """Queues a job once; a repeated message about it changes nothing."""
        if job_id in self._known:
            return
        self._known.add(job_id)
        self._arrivals += 1
        alone = deaths >= ALONE_AFTER_DEATHS
        heapq.heappush(self._queue, Waiting((-priority, self._arrivals), job_id, alone))

    def attach(self, job_id: str, *, deaths: int = 0) -> None:
        """A job that runs already, in an adopted driver."""
        self._known.add(job_id)
        self.running.add(job_id)
        if deaths >= ALONE_AFTER_DEATHS:
            self._alone = job_id

    def admit(self, job_id: str) -> bool:
        """Whether a new job takes a slot at once, as nothing waits and one is free. It then runs until `release`."""
        if job_id in self._known or self.waiting or not self._free():
            return False
        self.attach(job_id)
        return True

    def next(self) -> str | None:
        """The job that takes a slot now, or None. It runs until `release`."""
        self._drop_gone()
        if not self._queue or not self._free():
            return None
        if self._queue[0].alone and self.running:
            return None
        chosen = heapq.heappop(self._queue)
        self.running.add(chosen.job_id)
        self._alone = chosen.job_id if chosen.alone else None
        return chosen.job_id

    def release(self, job_id: str) -> None:
        """The job ended, or left the queue without having run."""
        self._known.discard(job_id)
        if job_id in self.running:
            self.running.discard(job_id)
            self._alone = None if self._alone == job_id else self._alone
        elif any(waiting.job_id == job_id for waiting in self._queue):
            self._gone.add(job_id)

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue) - len(self._gone)

    def _free(self) -> bool:
        return self._alone is None and len(self.running) < self.max_jobs

    def _drop_gone(self) -> None:
        while self._queue and self._queue[0].job_id in self._gone:
            self._gone.discard(heapq.heappop(self._queue).job_id)
