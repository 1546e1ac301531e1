"""Carrying out the plan of `recovery` for the unfinished jobs of a context that has a new owner or a new driver (design 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from jobserver.contexts.job_table import JobTable
from jobserver.contexts.job_writes import JobWrites
from jobserver.contexts.link import DriverLink
from jobserver.contexts.outcomes import Outcomes
from jobserver.contexts.time_limits import TimeLimits
from jobserver.contexts.waiters import JobWaiters
from jobserver.model import AttemptRef, ErrorInfo, JobRecord, JobState
from jobserver.protocol import Request
from jobserver.recovery import Accept, Attached, Deliver, Fail, Held, Plan, Queue, Rerun, plan


class JobRecovery:
    """All unfinished jobs before the gate opens; after it, a single job whose attempt is lost or put back."""

    def __init__(
        self,
        table: JobTable,
        writes: JobWrites,
        outcomes: Outcomes,
        limits: TimeLimits,
        waiters: JobWaiters,
        link: DriverLink,
    ) -> None:
        self._table = table
        self._writes = writes
        self._outcomes = outcomes
        self._limits = limits
        self._waiters = waiters
        self._link = link
        self._undelivered: list[JobRecord] = []

    async def decide_all(
        self, unfinished: list[JobRecord], held: Held | None, saved: Mapping[str, int]
    ) -> None:
        """Decides every unfinished job. `saved`: attempts by job whose progress the base holds. Raises Superseded."""
        for decision in plan(unfinished, held):
            await self.carry_out(decision)
        known = {job.id for job in unfinished}
        if held is not None:
            running = {AttemptRef(job.id, job.attempt) for job in unfinished if job.state is JobState.RUNNING}
            self._end_others({each: told for each, told in held.items() if each not in running}, known)
        for job_id, attempt in saved.items():
            if job_id not in known:  # it ended, and its driver died before it heard so
                self._outcomes.tell_ended(job_id, attempt)

    def take_undelivered(self) -> list[JobRecord]:
        """Running attempts that the adopted driver was never given: to be delivered once the gate is open."""
        undelivered, self._undelivered = self._undelivered, []
        return undelivered

    async def carry_out(self, decision: Plan) -> None:
        """What becomes of one job. Raises Superseded."""
        job, table = decision.job, self._table
        table.rows[job.id] = job
        match decision:
            case Queue():
                self._wait(job)
            case Attached():
                table.admission.attach(job.id, deaths=job.deaths)
                self._limits.begin(job, job.changed_at or datetime.now(UTC))
                table.accepted.add(job.id)
                self._waiters.accepted(job)
            case Accept(outcome=outcome):
                table.admission.attach(job.id, deaths=job.deaths)
                await self._outcomes.finish(outcome)
            case Deliver():
                table.admission.attach(job.id, deaths=job.deaths)
                self._limits.begin(job, datetime.now(UTC))
                self._undelivered.append(job)
            case Rerun(died=died, error=error):
                await self.rerun(job, died, error)
            case Fail(error=error):
                await self._outcomes.fail_lost(job, error)

    async def rerun(self, job: JobRecord, died: bool, error: ErrorInfo) -> None:
        """The attempt is over, and the job waits for its next. `died`: it counts as a death. Raises Superseded."""
        if await self._writes.restart(job, died, error):
            waiting = replace(job, state=JobState.RESTARTING, deaths=job.deaths + int(died), error=error)
            self._table.rows[job.id] = waiting
            self._wait(waiting)

    def _wait(self, job: JobRecord) -> None:
        self._table.admission.arrive(job.id, priority=job.spec.priority, deaths=job.deaths)

    def _end_others(self, others: Held, known: set[str]) -> None:
        """Attempts of jobs that SQL has as final, or put back: what runs of them ends, what they came to is forgotten."""
        for attempt, outcome in others.items():
            if outcome is None:
                self._link.tell(Request.KILL, job_id=attempt.job_id, attempt=attempt.attempt)
            elif attempt.job_id in known:
                self._outcomes.tell_over(attempt)
            else:
                self._outcomes.tell_ended(attempt.job_id, attempt.attempt)
