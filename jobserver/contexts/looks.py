"""Watching a running job from its owner: waits until there is something new to see, asking the driver now and then.

Spark's counts can only be asked for; so a job that is watched is looked at every LOOK_EVERY seconds, others never.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from jobserver.contexts.clock import now, seconds_left
from jobserver.contexts.link import DriverLink, LinkBroken, RefusedByDriver
from jobserver.contexts.waiters import JobWaiters, Until
from jobserver.errors import OwnerUnavailable
from jobserver.job_events import EventId, newest_id
from jobserver.model import JobRecord, JobState
from jobserver.progress import JobProgress, progress_of
from jobserver.protocol import Request

LOOK_EVERY = 0.5
LOOK_TIMEOUT = 5.0
"""Seconds for the driver to answer; without an answer the job is shown without its progress."""


@dataclass(frozen=True, slots=True)
class Look:
    """The job as its owner sees it; `progress` of the attempt that runs, if the driver told it."""

    job: JobRecord
    progress: JobProgress | None = None


async def look(
    job_of: Callable[[], JobRecord | None],
    link: DriverLink,
    waiters: JobWaiters,
    after: EventId | None,
    seconds: float,
) -> Look | None:
    """What is to be seen once it is newer than `after`, or as it is when the time is over. None: the job has left its owner."""
    deadline = now() + seconds
    job = job_of()
    ended = None if job is None else waiters.add(job.id, Until.ENDED)
    try:
        while job is not None and ended is not None:
            seen = Look(job, await _progress(link, job))
            if after is None or newest_id(seen.job, seen.progress) > after or seconds_left(deadline) <= 0:
                return seen
            done, _ = await asyncio.wait([ended], timeout=min(LOOK_EVERY, seconds_left(deadline)))
            if done:
                return Look(ended.result().job)
            job = job_of()
    finally:
        if ended is not None:
            ended.cancel()
    return None


async def _progress(link: DriverLink, job: JobRecord) -> JobProgress | None:
    if job.state is not JobState.RUNNING:
        return None
    try:
        answer = await link.request(Request.LOOK, timeout=LOOK_TIMEOUT, job_id=job.id, attempt=job.attempt)
    except (LinkBroken, RefusedByDriver):  # an older driver, or one that is lost: the state alone is shown
        return None
    return None if answer.get("progress") is None else progress_of(answer["progress"])


async def tails(link: DriverLink, job_id: str) -> list[dict[str, object]]:
    """Output of the job that is not in the store yet, as the driver tells it. Raises OwnerUnavailable."""
    try:
        answer = await link.request(Request.TAILS, timeout=LOOK_TIMEOUT, job_id=job_id)
    except RefusedByDriver:
        return []
    except LinkBroken as error:
        raise OwnerUnavailable(f"the driver does not answer: {error}") from error
    return list(answer["tails"])
