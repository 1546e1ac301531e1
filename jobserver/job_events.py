"""What happens to a job as a stream of events that any server can make from what is durable. Pure.

An event's id is (attempt, phase, number). States follow from the job's recorded moves, so they have the same ids on every server
and after every failover; a progress has the number that the driver gave it, and only the newest is told. So a client that was
cut off names the last id it has seen, to any server, and gets every state after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from jobserver.history import JobMove
from jobserver.model import JobRecord, JobState
from jobserver.progress import JobProgress

_ID = re.compile(r"(\d{1,9})\.([0-3])\.(\d{1,15})")
_RUNNING = 1
_ENDED = 3
_PHASES = {JobState.QUEUED: 0, JobState.RUNNING: _RUNNING, JobState.RESTARTING: 2}


@dataclass(frozen=True, slots=True, order=True)
class EventId:
    """The place of an event among those of its job."""

    attempt: int
    phase: int
    number: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}.{self.phase}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> EventId | None:
        """The id that `str` wrote, else None."""
        found = _ID.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class JobEvent:
    """`kind` is state or progress; `data` is what clients get as JSON."""

    id: EventId
    kind: str
    data: dict[str, Any]


def state_id(state: JobState, attempt: int) -> EventId:
    """The id of the event that a job came to this state."""
    return EventId(attempt, _ENDED if state.final else _PHASES[state])


def newest_id(job: JobRecord, progress: JobProgress | None) -> EventId:
    """The id of the newest event of a job that is seen like this."""
    if progress is not None and _fits(job, progress):
        return EventId(job.attempt, _RUNNING, progress.seq)
    return state_id(job.state, job.attempt)


def events_after(
    last: EventId | None, moves: Sequence[JobMove], job: JobRecord, progress: JobProgress | None
) -> list[JobEvent]:
    """All events behind `last` (None: all of them), in their order.

    `moves` is the record of the states; the one of `job` counts as recorded, also where it is not (an older release wrote it).
    """
    states = {state_id(move.state, move.attempt): _state(job.id, move) for move in moves}
    states.setdefault(state_id(job.state, job.attempt), _bare_state(job))
    events = [JobEvent(event_id, "state", data) for event_id, data in states.items()]
    if progress is not None and _fits(job, progress) and progress.seq:
        at = EventId(job.attempt, _RUNNING, progress.seq)
        events.append(JobEvent(at, "progress", {"jobId": job.id, **shown_progress(progress)}))
    return sorted((event for event in events if last is None or event.id > last), key=lambda event: event.id)


def shown_progress(progress: JobProgress) -> dict[str, Any]:
    """A progress as clients see it."""
    return {
        "attempt": progress.attempt,
        "fraction": progress.fraction,
        "message": progress.message,
        "sparkJobs": asdict(progress.jobs),
        "stages": asdict(progress.stages),
        "tasks": asdict(progress.tasks),
        "activeStages": [asdict(stage) for stage in progress.active_stages],
    }


def _fits(job: JobRecord, progress: JobProgress) -> bool:
    return job.state is JobState.RUNNING and progress.attempt == job.attempt


def _state(job_id: str, move: JobMove) -> dict[str, Any]:
    return {
        "jobId": job_id,
        "state": move.state.value,
        "attempt": move.attempt,
        "at": _time(move.at),
        "server": move.server,
        "epoch": move.epoch,
        "reason": move.reason,
    }


def _bare_state(job: JobRecord) -> dict[str, Any]:
    reason = None if job.error is None else job.error.message
    return {"jobId": job.id, "state": job.state.value, "attempt": job.attempt, "reason": reason}


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
