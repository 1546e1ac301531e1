"""The metadata store in memory: the same port and promises as `jobserver.store.metadata.Metadata`, no threads, no clock.

One `FakeStore` is the database; each server has its own `FakeMetadata` on it, with its own `Link`. A link decides what
happens to a call: a subclass raises in `before` (the call never arrived) or in `after` (done, and the reply was lost).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from jobserver.errors import ContextExists, StoreUnavailable
from jobserver.history import JobMove
from jobserver.lifecycle import (
    ACCEPTING_CONTEXT_STATES,
    ENDABLE_JOB_STATES,
    LISTED_CONTEXT_STATES,
    UNFINISHED_JOB_STATES,
    WAITING_JOB_STATES,
    context_sources,
    job_end_sources,
)
from jobserver.listing import JobQuery
from jobserver.model import (
    AttemptOutcome,
    BinaryRecord,
    BinaryRef,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    Fence,
    FenceRow,
    JobRecord,
    JobState,
    NamedContext,
    References,
)
from jobserver.saved import Callback, CallbackState
from jobserver.store.acceptance import check_insertable, check_same_request, check_storable, refusal
from tests.fakes.saved import FakeAuditLog, FakeCallbacks, FakeSavedItems, SavedTables

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


class FakeMetadata:
    """One server's access to a FakeStore; every method does what the one of the same name in `Metadata` does."""

    def __init__(self, store: FakeStore, link: Link | None = None, server: str = "") -> None:
        self._store = store
        self._link = link or Link()
        self._server = server
        self.saved = FakeSavedItems(store.saved, self._call)
        self.callbacks = FakeCallbacks(store.saved, store.jobs, self._call)
        self.audit = FakeAuditLog(store.saved, server, self._call)

    async def _call(self, operation: str, action: Callable[[], T]) -> T:
        """`action` has no await, so calls are atomic and happen in the order in which they arrive."""
        await self._link.before(operation)
        result = action()
        await self._link.after(operation)
        return result

    async def close(self) -> None:
        """Nothing is held."""

    async def upgrade(self) -> None:
        """Always current."""

    async def write_trouble(self) -> str | None:
        return None

    async def check(self) -> None:
        """Always current."""

    async def schema_current(self) -> str | None:
        return "fake"

    async def put_binary(self, record: BinaryRecord) -> None:
        check_storable("the name", record.name)

        def put() -> None:
            self._refuse_removed(record.digest)
            self._store.binaries.append(record)

        await self._call("put_binary", put)

    async def keep_binary(self, digest: str, size: int, at: datetime) -> None:
        await self._call("keep_binary", lambda: self._refuse_removed(digest))

    def _refuse_removed(self, digest: str) -> None:
        if digest in self._store.removing:
            raise StoreUnavailable(f"the bytes of {digest} are being removed")

    async def list_binaries(self) -> list[BinaryRecord]:
        def latest() -> list[BinaryRecord]:
            return sorted({one.name: one for one in self._store.binaries}.values(), key=lambda one: one.name)

        return await self._call("list_binaries", latest)

    async def find_binary(self, name: str) -> BinaryRecord | None:
        def latest() -> BinaryRecord | None:
            return next((one for one in reversed(self._store.binaries) if one.name == name), None)

        return await self._call("find_binary", latest)

    async def references(self, names: Sequence[str], context: str | None) -> References:
        def found() -> References:
            living = next((one for one in self._store.living() if one.name == context), None)
            return References(
                tuple(self._store.latest(name) for name in names),
                None
                if living is None
                else NamedContext(living.id, living.name, living.state, living.settings),
            )

        return await self._call("references", found)

    async def delete_binary(self, name: str) -> bool:
        def delete() -> bool:
            kept = [one for one in self._store.binaries if one.name != name]
            found = len(kept) < len(self._store.binaries)
            self._store.binaries[:] = kept
            return found

        return await self._call("delete_binary", delete)

    async def jobs_using_binary(self, name: str) -> list[str]:
        def using() -> list[str]:
            return sorted({job for job, ref in self._store.needed_binaries() if ref.name == name})

        return await self._call("jobs_using_binary", using)

    async def digest_in_use(self, digest: str) -> bool:
        def used() -> bool:
            needed = {ref.digest for _, ref in self._store.needed_binaries()}
            return digest in needed or any(one.digest == digest for one in self._store.binaries)

        return await self._call("digest_in_use", used)

    async def create_context(self, record: ContextRecord, *, restored_from: str | None = None) -> None:
        check_storable("the name", record.name)

        def create() -> None:
            existing = self._store.contexts.get(record.id)
            if existing is not None and existing.name == record.name:
                return
            if existing is not None or any(one.name == record.name for one in self._store.living()):
                raise ContextExists(f"context {record.name} exists")
            self._store.contexts[record.id] = record
            self._store.fences[record.id] = FenceRow(record.id, 0, "", "", "")
            needed = [digest for context, digest in self._store.needs if context == restored_from]
            self._store.needs |= {(record.id, digest) for digest in needed}

        await self._call("create_context", create)

    async def context(self, context_id: str) -> ContextRecord | None:
        return await self._call("context", lambda: self._store.contexts.get(context_id))

    async def latest_context(self, name: str) -> ContextRecord | None:
        def latest() -> ContextRecord | None:
            named = [one for one in self._store.contexts.values() if one.name == name]
            return max(named, key=lambda one: (not one.state.final, one.started_at), default=None)

        return await self._call("latest_context", latest)

    async def active_contexts(self) -> list[ContextRecord]:
        return await self._call("active_contexts", self._store.living)

    async def listed_contexts(self) -> list[ContextRecord]:
        def listed() -> list[ContextRecord]:
            return [one for one in reversed(self._store.living()) if one.state in LISTED_CONTEXT_STATES]

        return await self._call("listed_contexts", listed)

    async def move_context(
        self,
        fence: Fence,
        allowed_from: Collection[ContextState],
        to: ContextState,
        *,
        at: datetime,
        error: ErrorInfo | None = None,
    ) -> bool:
        sources = context_sources(to, allowed_from)

        def move() -> bool:
            record = self._store.contexts.get(fence.context_id)
            if record is None or record.state not in sources:
                return False
            ended_at = at if to.final else record.ended_at
            return self._store.change_context(fence, state=to, error=error, ended_at=ended_at)

        return await self._call("move_context", move)

    async def record_driver(self, fence: Fence, driver: DriverRecord | None) -> bool:
        return await self._call("record_driver", lambda: self._store.change_context(fence, driver=driver))

    async def record_failover(self, fence: Fence, failover: Failover) -> bool:
        return await self._call(
            "record_failover", lambda: self._store.change_context(fence, last_failover=failover)
        )

    async def request_stop(self, context_id: str) -> bool:
        def stop() -> bool:
            record = self._store.contexts.get(context_id)
            if record is None or record.state not in ACCEPTING_CONTEXT_STATES:
                return False
            self._store.contexts[context_id] = replace(record, state=ContextState.STOPPING)
            return True

        return await self._call("request_stop", stop)

    async def fence(self, context_id: str) -> FenceRow | None:
        return await self._call("fence", lambda: self._store.fences.get(context_id))

    async def fences(self, ids: Collection[str]) -> dict[str, FenceRow]:
        def some() -> dict[str, FenceRow]:
            return {one: self._store.fences[one] for one in ids if one in self._store.fences}

        return await self._call("fences", some)

    async def grant(
        self, context_id: str, expected_epoch: int, owner: str, incarnation: str, token: str
    ) -> bool:
        def raise_fence() -> bool:
            row = self._store.fences.get(context_id)
            if row is None or row.epoch != expected_epoch:
                return False
            self._store.fences[context_id] = FenceRow(
                context_id, expected_epoch + 1, owner, incarnation, token
            )
            return True

        return await self._call("grant", raise_fence)

    async def insert_job(
        self,
        record: JobRecord,
        *,
        queue_limit: int,
        callback_url: str | None = None,
        latest: BinaryRef | None = None,
    ) -> JobRecord:
        check_insertable(record)
        moved = JobMove(0, record.state, record.submitted_at, self._server)
        return await self._call(
            "insert_job", lambda: self._store.insert_job(record, queue_limit, callback_url, moved, latest)
        )

    async def job_of_key(self, principal: str, key: str) -> JobRecord | None:
        return await self._call("job_of_key", lambda: self._store.job_of_key(principal, key))

    async def insert_started_job(
        self,
        fence: Fence,
        record: JobRecord,
        *,
        queue_limit: int,
        at: datetime,
        callback_url: str | None = None,
        latest: BinaryRef | None = None,
    ) -> JobRecord:
        check_insertable(record)

        def insert() -> JobRecord:
            fresh = self._store.submitted_before(record) is None
            waits = JobMove(0, record.state, record.submitted_at, self._server)
            inserted = self._store.insert_job(record, queue_limit, callback_url, waits, latest)
            context = self._store.contexts.get(record.context_id)
            runs = (
                context is not None
                and context.state is ContextState.RUNNING
                and fence.context_id == context.id
            )
            if fresh and runs and self._store.holds(fence):
                inserted = replace(record, state=JobState.RUNNING, attempt=1, started_at=at)
                self._store.jobs[record.id] = inserted
                self._store.history[record.id] = [JobMove(1, JobState.RUNNING, at, self._server, fence.epoch)]
            return inserted

        return await self._call("insert_started_job", insert)

    async def job_history(self, job_id: str) -> list[JobMove]:
        return await self._call("job_history", lambda: list(self._store.history.get(job_id, [])))

    async def job(self, job_id: str) -> JobRecord | None:
        return await self._call("job", lambda: self._store.jobs.get(job_id))

    async def find_jobs(self, query: JobQuery) -> list[JobRecord]:
        def newest() -> list[JobRecord]:
            jobs = [job for job in self._store.jobs.values() if query.takes(job)]
            jobs.sort(key=lambda job: (job.submitted_at, job.id), reverse=True)
            page = jobs[query.offset : query.offset + max(query.limit, 0)]
            return [replace(job, result=None) for job in page]

        return await self._call("find_jobs", newest)

    async def unfinished_jobs(self, context_id: str) -> list[JobRecord]:
        return await self._call("unfinished_jobs", lambda: self._store.unfinished(context_id))

    async def start_attempt(self, fence: Fence, job_id: str, attempt: int, at: datetime) -> bool:
        def started(job: JobRecord) -> JobRecord:
            first = at if job.started_at is None else job.started_at
            return replace(job, state=JobState.RUNNING, attempt=attempt, started_at=first, error=None)

        return await self._call(
            "start_attempt",
            lambda: self._store.change_job(
                fence, job_id, WAITING_JOB_STATES, attempt - 1, started, at=at, server=self._server
            ),
        )

    async def finish_job(self, fence: Fence, outcome: AttemptOutcome, state: JobState, at: datetime) -> bool:
        sources = job_end_sources(state, ENDABLE_JOB_STATES)

        def finished(job: JobRecord) -> JobRecord:
            result = outcome.result if state is JobState.FINISHED else None
            return replace(
                job, state=state, outcome=outcome.kind, result=result, error=outcome.error, ended_at=at
            )

        return await self._call(
            "finish_job",
            lambda: self._store.change_job(
                fence, outcome.job_id, sources, outcome.attempt, finished, at=at, server=self._server
            ),
        )

    async def restart_job(
        self,
        fence: Fence,
        job_id: str,
        attempt: int,
        *,
        died: bool,
        error: ErrorInfo | None,
        at: datetime,
    ) -> bool:
        def restarting(job: JobRecord) -> JobRecord:
            return replace(job, state=JobState.RESTARTING, deaths=job.deaths + int(died), error=error)

        return await self._call(
            "restart_job",
            lambda: self._store.change_job(
                fence, job_id, {JobState.RUNNING}, attempt, restarting, at=at, server=self._server
            ),
        )

    async def end_waiting_job(
        self, fence: Fence, job_id: str, state: JobState, error: ErrorInfo | None, at: datetime
    ) -> bool:
        sources = job_end_sources(state, WAITING_JOB_STATES)

        def ended(job: JobRecord) -> JobRecord:
            return replace(job, state=state, error=error, ended_at=at)

        return await self._call(
            "end_waiting_job",
            lambda: self._store.change_job(fence, job_id, sources, None, ended, at=at, server=self._server),
        )

    async def end_jobs_of_ended_context(self, context_id: str, error: ErrorInfo, at: datetime) -> int:
        def end() -> int:
            record = self._store.contexts.get(context_id)
            if record is None or not record.state.final:
                return 0
            jobs = [one for one in self._store.unfinished(context_id) if one.state in UNFINISHED_JOB_STATES]
            for job in jobs:
                ended = replace(job, state=JobState.ERROR, error=error, ended_at=at)
                self._store.jobs[job.id] = ended
                self._store.record(ended, at, self._server, None)
            return len(jobs)

        return await self._call("end_jobs_of_ended_context", end)
