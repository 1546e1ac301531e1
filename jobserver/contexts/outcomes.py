"""How attempts end: an outcome is committed under the fence, then told to who waits, to the driver, and the slot goes.

A client's answer, an acknowledgement to the driver and a freed slot follow the committed write, in this order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from jobserver.contexts.job_table import JobTable
from jobserver.contexts.job_writes import JobWrites
from jobserver.contexts.link import DriverLink
from jobserver.contexts.time_limits import TimeLimits
from jobserver.contexts.waiters import JobWaiters
from jobserver.errors import JobServerError
from jobserver.model import AttemptOutcome, AttemptRef, ErrorInfo, JobRecord, JobState, OutcomeKind
from jobserver.protocol import Request

log = logging.getLogger(__name__)

JobEnded = Callable[[JobRecord], None]


class Outcomes:
    """Ends jobs of one epoch. Everything that writes raises Superseded when the fence is another's."""

    def __init__(
        self,
        table: JobTable,
        writes: JobWrites,
        limits: TimeLimits,
        waiters: JobWaiters,
        link: DriverLink,
        job_ended: JobEnded,
    ) -> None:
        self._table = table
        self._writes = writes
        self._limits = limits
        self._waiters = waiters
        self._link = link
        self._job_ended = job_ended

    async def finish(self, outcome: AttemptOutcome) -> None:
        """What the driver says of an attempt; an older attempt's is acknowledged, and nothing more.

        What the job has saved is for its next attempt, if there will be one.
        """
        table, attempt = self._table, AttemptRef(outcome.job_id, outcome.attempt)
        job = table.rows.get(outcome.job_id)
        ended = job is None or job.state.final
        if job is not None and table.is_current(attempt) and not ended:
            ended = await self._commit(job, outcome, _STATES[outcome.kind]) is not None
        self._link.tell_soon(Request.ACK, job_id=outcome.job_id, attempt=outcome.attempt, ended=ended)
        if table.is_current(attempt):  # an older attempt's end is not the job's end
            table.release(outcome.job_id)

    async def kill(self, job: JobRecord, error: ErrorInfo) -> JobRecord | None:
        """Commits that the running attempt is killed, then has the driver do so. None when it had ended otherwise before."""
        killed = await self._commit(
            job, AttemptOutcome(job.id, job.attempt, OutcomeKind.KILLED, error=error), JobState.KILLED
        )
        self._link.tell(Request.KILL, job_id=job.id, attempt=job.attempt)
        return killed

    async def kill_waiting(self, job: JobRecord, error: ErrorInfo) -> JobRecord | None:
        """Commits that a job of which nothing runs is killed. None when it did not wait any more."""
        if not await self._writes.end_waiting(job, JobState.KILLED, error):
            return None
        self.tell_ended(job.id, job.attempt)
        killed = self._told(job, JobState.KILLED, error)
        self._table.release(job.id)
        return killed

    async def fail_lost(self, job: JobRecord, error: ErrorInfo) -> None:
        """Commits that the job ends with an attempt of which no driver holds anything."""
        failed = AttemptOutcome(job.id, job.attempt, OutcomeKind.FAILED, error=error)
        await self._commit(job, failed, JobState.ERROR)
        self.tell_ended(job.id, job.attempt)
        self._table.release(job.id)

    async def not_ours(self, job: JobRecord) -> None:
        """SQL has the job in another state than we thought, under our own fence: take over what it says."""
        row = await self._writes.job(job.id)
        if row is not None and row.state.final:
            self._waiters.ended(row)
            self.tell_ended(job.id, job.attempt)
        self._table.release(job.id)

    def tell_ended(self, job_id: str, attempt: int) -> None:
        """The driver is told that the job's end is committed: it forgets the attempt's outcome, and what the job has saved."""
        self._link.tell(Request.ACK, job_id=job_id, attempt=attempt, ended=True)

    def tell_over(self, attempt: AttemptRef) -> None:
        """The driver is told that the attempt is over, and that its job goes on: what that has saved stays."""
        self._link.tell_soon(Request.ACK, job_id=attempt.job_id, attempt=attempt.attempt, ended=False)

    async def _commit(self, job: JobRecord, outcome: AttemptOutcome, state: JobState) -> JobRecord | None:
        """Commits the end of the running attempt, then tells who waits. None when it had ended otherwise before."""
        at = datetime.now(UTC)
        try:
            committed = await self._writes.finish(outcome, state, at)
        except JobServerError:
            raise
        except Exception as error:
            # an outcome that no owner can commit would take the context from one server to the next: the job ends without it
            log.exception("the outcome of job %s cannot be committed", job.id)
            outcome, state = _uncommittable(outcome, error), JobState.ERROR
            committed = await self._writes.finish(outcome, state, at)
        if not committed:
            # put back while the write was tried, and perhaps begun again since: what this attempt brings counts no more
            if job.id not in self._table.rows or self._table.is_current(AttemptRef(job.id, job.attempt)):
                await self.not_ours(job)
            return None
        return self._told(job, state, outcome.error, result=outcome.result, outcome=outcome.kind, ended_at=at)

    def _told(
        self,
        job: JobRecord,
        state: JobState,
        error: ErrorInfo | None,
        *,
        ended_at: datetime | None = None,
        result: str | None = None,
        outcome: OutcomeKind | None = None,
    ) -> JobRecord:
        """The committed end of a job: news for who waits; its slot goes when nothing of it runs any more."""
        final = replace(
            job,
            state=state,
            error=error,
            ended_at=ended_at or datetime.now(UTC),
            result=result,
            outcome=outcome,
        )
        self._table.rows[job.id] = final
        self._limits.end(job.id)
        self._waiters.ended(final)
        self._job_ended(final)
        return final


_STATES = {
    OutcomeKind.FINISHED: JobState.FINISHED,
    OutcomeKind.KILLED: JobState.KILLED,
    OutcomeKind.FAILED: JobState.ERROR,
    OutcomeKind.INVALID: JobState.ERROR,
    OutcomeKind.NOT_FOUND: JobState.ERROR,
    OutcomeKind.LOADING_FAILED: JobState.ERROR,
    OutcomeKind.WRONG_TYPE: JobState.ERROR,
}


def _uncommittable(outcome: AttemptOutcome, error: Exception) -> AttemptOutcome:
    text = f"The outcome ({outcome.kind}) could not be recorded: {type(error).__name__}. The server's log has the details"
    return AttemptOutcome(
        outcome.job_id,
        outcome.attempt,
        OutcomeKind.FAILED,
        error=ErrorInfo(text, "jobserver.OutcomeNotRecorded"),
    )
