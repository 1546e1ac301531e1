"""What is kept for how long, and how many of it. Pure: the times and numbers that a pass over the past goes by."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """Ages in seconds and numbers; None: kept for ever, or however many. What is unfinished or lives is never touched.

    `results_age` and `logs_age` end earlier than their job; `versions_*` are uploads that a newer one of their name
    has replaced; `bytes_grace`: how long the bytes of code stay that nobody needs any more.
    """

    jobs_age: float | None = None
    jobs_count: int | None = None
    results_age: float | None = None
    logs_age: float | None = None
    contexts_age: float | None = None
    contexts_count: int | None = None
    versions_age: float | None = None
    versions_count: int | None = None
    audit_age: float | None = None
    bytes_grace: float = 86_400.0


@dataclass(slots=True)
class Removed:
    """How much of each kind was removed, or would be."""

    jobs: int = 0
    results: int = 0
    logs: int = 0
    contexts: int = 0
    versions: int = 0
    binaries: int = 0
    operations: int = 0
    unfinished: list[str] = field(default_factory=list)
    """Why a kind was left for the next pass, one sentence each."""

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.jobs
            + self.results
            + self.logs
            + self.contexts
            + self.versions
            + self.binaries
            + self.operations
        )

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {self.results} results, {self.logs} logs, {self.contexts} contexts, "
            f"{self.versions} replaced uploads, {self.binaries} binaries' bytes, {self.operations} audited operations"
        )


def cut(now: datetime, age: float | None) -> datetime | None:
    """What is older than this is too old; None when nothing is."""
    return None if age is None else now - timedelta(seconds=age)
