"""What becomes of each unfinished job when a context got a new owner or a new driver. Pure.

`plan` is given the rows of SQL and, when the driver was adopted, what that driver said it holds. Each job gets one decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobserver.model import AttemptOutcome, AttemptRef, ErrorInfo, JobRecord, JobState, OnFailover


@dataclass(frozen=True, slots=True)
class Attached:
    """The attempt goes on in the adopted driver."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Accept:
    """The attempt ended in the adopted driver; its outcome waits to be committed."""

    job: JobRecord
    outcome: AttemptOutcome


@dataclass(frozen=True, slots=True)
class Queue:
    """The job waits for a slot; nothing has to be written before."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Deliver:
    """The attempt is on record and never reached the adopted driver: it is given to it, under the same number.

    A new number would count an execution that never was, and could pass `max_attempts`.
    """

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Rerun:
    """The attempt is over without a result: RESTARTING, then attempt + 1. `died`: it counts as a death."""

    job: JobRecord
    died: bool
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Fail:
    """The job ends in ERROR."""

    job: JobRecord
    error: ErrorInfo


Plan = Attached | Accept | Queue | Deliver | Rerun | Fail
Held = Mapping[AttemptRef, AttemptOutcome | None]
"""What an adopted driver holds: running attempts (None) and outcomes nobody has acknowledged."""


def plan(unfinished: Iterable[JobRecord], held: Held | None) -> list[Plan]:
    """A decision for each job, in the given order. `held` is None when the driver was replaced."""
    return [_decide(job, held) for job in unfinished]


def _decide(job: JobRecord, held: Held | None) -> Plan:
    if job.state in (JobState.QUEUED, JobState.RESTARTING):
        return Queue(job)
    if held is None:
        return after_death(job)
    attempt = AttemptRef(job.id, job.attempt)
    if attempt not in held:
        return Deliver(job)
    outcome = held[attempt]
    return Attached(job) if outcome is None else Accept(job, outcome)


def after_loss(job: JobRecord) -> Rerun | Fail:
    """The driver has begun the running attempt before and holds nothing of it: no death, but an attempt."""
    error = ErrorInfo(f"The driver knows attempt {job.attempt} and holds no outcome of it")
    if job.spec.on_failover is OnFailover.FAIL or job.attempt >= job.spec.max_attempts:
        return Fail(job, error)
    return Rerun(job, died=False, error=error)


def after_death(job: JobRecord) -> Rerun | Fail:
    """The driver died during the running attempt of the job."""
    if job.spec.on_failover is OnFailover.FAIL:
        return Fail(
            job,
            _death(
                f"The driver of context {job.context_name} died while the job ran, and on_failover is fail"
            ),
        )
    if job.attempt >= job.spec.max_attempts:
        deaths = job.deaths + 1
        each = "each" if deaths == job.attempt else f"{deaths}"
        return Fail(
            job,
            _death(
                f"The driver of context {job.context_name} died in {each} of the {job.attempt} attempts of this job; "
                f"max_attempts is {job.spec.max_attempts}"
            ),
        )
    return Rerun(job, died=True, error=_death(f"The driver died during attempt {job.attempt}"))


def _death(message: str) -> ErrorInfo:
    return ErrorInfo(message, "jobserver.DriverDied")
