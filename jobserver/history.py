"""What is on record about the past: the states that a job came to, and what operators did. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from jobserver.model import JobState


@dataclass(frozen=True, slots=True)
class JobMove:
    """A job came to `state` in its attempt `attempt`; `server` wrote it.

    `epoch` is that of the owner who wrote it; None where no owner was needed (acceptance, the end with an ended context).
    `reason` is one sentence, where there is one.
    """

    attempt: int
    state: JobState
    at: datetime
    server: str
    epoch: int | None = None
    reason: str | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Sorts the moves of one job: by what a job can do, as the clocks of two servers differ."""
        return self.attempt, _STEP[self.state]


_STEP: Final = {
    JobState.QUEUED: 0,
    JobState.RUNNING: 1,
    JobState.RESTARTING: 2,
    JobState.FINISHED: 3,
    JobState.ERROR: 3,
    JobState.KILLED: 3,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that an operator or client did to the cluster: `action` (switchover, drain, delete, kill, prune, …) on
    `target`, asked for by `principal`, carried out by `server`."""

    at: datetime
    principal: str
    action: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""
