"""Who waits for what of a job on this server: its acceptance, or its end. Outlives drivers and epochs of the context.

Belongs to the event loop. Knows no store: it passes on what was committed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

from jobserver.errors import OwnerUnavailable
from jobserver.model import BinaryRef, JobRecord


class Until(StrEnum):
    """What a caller waits for."""

    ACCEPTED = "accepted"  # the job's code was loaded and its `validate` passed
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class JobNews:
    """The job as committed; in a final state, or accepted by the driver."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Offer:
    """A job that a server offers to its owner: to be accepted, and started if it may. `record` is QUEUED, with a new id.

    `queue_limit`, `callback_url` and `latest` as for `Metadata.insert_job`.
    """

    record: JobRecord
    queue_limit: int
    callback_url: str | None = None
    latest: BinaryRef | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted job as committed; `done`: it has come to what its client waits for."""

    job: JobRecord
    done: bool


class JobWaiters:
    """Futures by job. A future is failed with OwnerUnavailable when this server stops owning the context."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[Until, asyncio.Future[JobNews]]]] = defaultdict(list)

    def add(self, job_id: str, until: Until) -> asyncio.Future[JobNews]:
        """A future for the news; cancel it to stop waiting."""
        future: asyncio.Future[JobNews] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].append((until, future))
        future.add_done_callback(lambda done: self._drop(job_id, done))
        return future

    def accepted(self, job: JobRecord) -> None:
        """The attempt passed `validate`."""
        for until, future in list(self._waiting.get(job.id, ())):
            if until is Until.ACCEPTED and not future.done():
                future.set_result(JobNews(job))

    def any_for_acceptance(self, job_id: str) -> bool:
        """Whether somebody waits for that only."""
        return any(until is Until.ACCEPTED for until, _ in self._waiting.get(job_id, ()))

    def ended(self, job: JobRecord) -> None:
        """A final state is committed."""
        for _, future in list(self._waiting.get(job.id, ())):
            if not future.done():
                future.set_result(JobNews(job))

    def waited_for(self) -> list[str]:
        """Ids of jobs somebody waits for."""
        return list(self._waiting)

    def fail_all(self, why: str) -> None:
        """This server no longer knows: whoever waits asks the next owner."""
        for waiting in list(self._waiting.values()):
            for _, future in list(waiting):
                if not future.done():
                    future.set_exception(OwnerUnavailable(why))

    def _drop(self, job_id: str, done: asyncio.Future[JobNews]) -> None:
        rest = [(until, future) for until, future in self._waiting.get(job_id, ()) if future is not done]
        if rest:
            self._waiting[job_id] = rest
        else:
            self._waiting.pop(job_id, None)
        if not done.cancelled():
            done.exception()
