"""How far a running job is: what it reports itself, and what Spark counts of its work. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Counts:
    """Pieces of work: all that are known so far, and how many of them are done, at work, or failed."""

    total: int = 0
    done: int = 0
    active: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class StageProgress:
    """A stage that is at work."""

    id: int
    name: str
    tasks: Counts


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A picture of one attempt. `seq` grows with every change of it. `fraction` (0 to 1) and `message` are the job's own."""

    attempt: int
    seq: int = 0
    fraction: float | None = None
    message: str = ""
    jobs: Counts = Counts()
    stages: Counts = Counts()
    tasks: Counts = Counts()
    active_stages: tuple[StageProgress, ...] = ()


def progress_fields(progress: JobProgress) -> dict[str, Any]:
    """As JSON's types, between processes."""
    return asdict(progress)


def progress_of(fields: Mapping[str, Any]) -> JobProgress:
    """What `progress_fields` made. Raises KeyError, TypeError."""
    plain = dict(fields)
    for name in ("jobs", "stages", "tasks"):
        plain[name] = Counts(**plain[name])
    plain["active_stages"] = tuple(
        StageProgress(stage["id"], stage["name"], Counts(**stage["tasks"]))
        for stage in plain["active_stages"]
    )
    return JobProgress(**plain)
