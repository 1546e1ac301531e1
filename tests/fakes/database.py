"""The database behind the metadata store in memory, the way of each server to it, and its calls on that way."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from jobserver.history import JobMove
from jobserver.lifecycle import (
    ACCEPTING_CONTEXT_STATES,
)
from jobserver.model import (
    BinaryRecord,
    BinaryRef,
    ContextRecord,
    Fence,
    FenceRow,
    JobRecord,
    JobState,
)
from jobserver.saved import Callback, CallbackState
from jobserver.store.acceptance import check_same_request, refusal
from tests.fakes.saved import SavedTables

T = TypeVar("T")


class Link:
    """The way between one server and the store; this one is perfect."""

    async def before(self, operation: str) -> None:
        """Called before the store is touched; raise StoreUnavailable here and nothing happened."""

    async def after(self, operation: str) -> None:
        """Called once it happened; raise OutcomeUnknown here and the caller does not learn it."""


@dataclass
class FakeStore:
    """The tables. Tests and checkers may read them; only a FakeMetadata writes."""

    binaries: list[BinaryRecord] = field(default_factory=list)
    contexts: dict[str, ContextRecord] = field(default_factory=dict)
    fences: dict[str, FenceRow] = field(default_factory=dict)
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    history: dict[str, list[JobMove]] = field(default_factory=dict)
    removing: set[str] = field(default_factory=set)
    needs: set[tuple[str, str]] = field(default_factory=set)
    saved: SavedTables = field(default_factory=SavedTables)

    def holds(self, fence: Fence) -> bool:
        row = self.fences.get(fence.context_id)
        return row is not None and (row.epoch, row.token) == (fence.epoch, fence.token)

    def living(self) -> list[ContextRecord]:
        alive = [record for record in self.contexts.values() if not record.state.final]
        return sorted(alive, key=lambda record: (record.started_at, record.id))

    def unfinished(self, context_id: str) -> list[JobRecord]:
        jobs = [job for job in self.jobs.values() if job.context_id == context_id and not job.state.final]
        return sorted(jobs, key=lambda job: (-job.spec.priority, job.submitted_at, job.id))

    def needed_binaries(self) -> list[tuple[str, BinaryRef]]:
        return [
            (job.id, ref) for job in self.jobs.values() if not job.state.final for ref in job.spec.binaries
        ]

    def change_context(self, fence: Fence, **changes: Any) -> bool:
        if not self.holds(fence) or fence.context_id not in self.contexts:
            return False
        self.contexts[fence.context_id] = replace(self.contexts[fence.context_id], **changes)
        return True

    def change_job(
        self,
        fence: Fence,
        job_id: str,
        states: Collection[JobState],
        attempt: int | None,
        change: Callable[[JobRecord], JobRecord],
        *,
        at: datetime,
        server: str,
    ) -> bool:
        """The guarded move of a job: fence, context, state and (unless None) attempt must be the expected ones."""
        job = self.jobs.get(job_id)
        if job is None or job.context_id != fence.context_id or not self.holds(fence):
            return False
        if job.state not in states or attempt not in (None, job.attempt):
            return False
        self.jobs[job_id] = change(job)
        self.record(self.jobs[job_id], at, server, fence.epoch)
        return True

    def record(self, job: JobRecord, at: datetime, server: str, epoch: int | None) -> None:
        """The state that the job has just come to becomes part of its history."""
        reason = None if job.error is None else job.error.message
        self.history.setdefault(job.id, []).append(JobMove(job.attempt, job.state, at, server, epoch, reason))

    def latest(self, name: str) -> BinaryRef | None:
        found = next((one for one in reversed(self.binaries) if one.name == name), None)
        return None if found is None else BinaryRef(found.name, found.type, found.digest)

    def insert_job(
        self,
        record: JobRecord,
        queue_limit: int,
        callback_url: str | None,
        moved: JobMove,
        latest: BinaryRef | None = None,
    ) -> JobRecord:
        if (existing := self.submitted_before(record)) is not None:
            check_same_request(existing, record)
            return existing
        context = self.contexts.get(record.context_id)
        accepting = context is not None and context.state in ACCEPTING_CONTEXT_STATES
        outdated = latest is not None and self.latest(latest.name) != latest
        if not accepting or outdated or len(self.unfinished(record.context_id)) >= queue_limit:
            raise refusal(record.context_name, context, queue_limit, outdated=outdated)
        self.jobs[record.id] = record
        self.history[record.id] = [moved]
        self.needs |= {(record.context_id, ref.digest) for ref in record.spec.binaries}
        if callback_url is not None:
            self.saved.callbacks[record.id] = Callback(
                record.id, callback_url, CallbackState.PENDING, 0, record.submitted_at
            )
        return record

    def submitted_before(self, record: JobRecord) -> JobRecord | None:
        if (key := record.idempotency_key) is not None and (found := self.job_of_key(record.principal, key)):
            return found
        return self.jobs.get(record.id)

    def job_of_key(self, principal: str, key: str) -> JobRecord | None:
        for job in self.jobs.values():
            if (job.principal, job.idempotency_key) == (principal, key):
                return job
        return None


class Access:
    """One server's calls to a FakeStore."""

    def __init__(self, store: FakeStore, link: Link | None = None, server: str = "") -> None:
        self._store = store
        self._link = link or Link()
        self._server = server

    async def _call(self, operation: str, action: Callable[[], T]) -> T:
        """`action` has no await, so calls are atomic and happen in the order in which they arrive."""
        await self._link.before(operation)
        result = action()
        await self._link.after(operation)
        return result
