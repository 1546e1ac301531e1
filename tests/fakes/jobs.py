"""The jobs of the metadata store in memory; see `metadata.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from jobserver.history import JobMove
from jobserver.lifecycle import (
    ENDABLE_JOB_STATES,
    UNFINISHED_JOB_STATES,
    WAITING_JOB_STATES,
    job_end_sources,
)
from jobserver.listing import JobQuery
from jobserver.model import (
    AttemptOutcome,
    BinaryRef,
    ContextState,
    ErrorInfo,
    Fence,
    JobRecord,
    JobState,
    ListedJob,
    listed,
)
from jobserver.store.acceptance import check_insertable
from tests.fakes.database import Access


class FakeJobs(Access):
    """What `Metadata` does with jobs."""

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

    async def find_jobs(self, query: JobQuery) -> list[ListedJob]:
        def newest() -> list[ListedJob]:
            jobs = [job for job in self._store.jobs.values() if query.takes(job)]
            jobs.sort(key=lambda job: (job.submitted_at, job.id), reverse=True)
            page = jobs[query.offset : query.offset + max(query.limit, 0)]
            return [listed(job) for job in page]

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
