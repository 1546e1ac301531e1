"""The jobs of one context under one epoch and one driver: start, finish, kill, recover. The owner's only writer of them.

Every write goes through the fence; an answer, an acknowledgement to the driver and a freed slot follow the committed write.
A write that finds the fence raised ends this object by `superseded`. What a failing store keeps from being written is tried
again: the driver holds its outcomes until they are acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from jobserver.admission import Admission
from jobserver.contexts.job_writes import JobWrites
from jobserver.contexts.link import DriverLink, LinkBroken, RefusedByDriver
from jobserver.contexts.looks import Look, look, tails
from jobserver.contexts.waiters import JobWaiters, Offer
from jobserver.errors import JobServerError, OutcomeUnknown, OwnerUnavailable, Superseded
from jobserver.job_events import EventId
from jobserver.model import (
    AttemptOutcome,
    BinaryRef,
    ContextRecord,
    ErrorInfo,
    Fence,
    JobRecord,
    JobState,
    OnFailover,
    OutcomeKind,
)
from jobserver.protocol import Event, Message, Refused, Request, outcome_of
from jobserver.recovery import Accept, Attached, Deliver, Fail, Held, Plan, Queue, Rerun, after_loss, plan
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)
T = TypeVar("T")

RUN_TIMEOUT = 10.0
"""Seconds for the driver to confirm that it heard of a job."""


@dataclass(frozen=True, slots=True)
class JobsSettings:
    """Limits of one context's jobs."""

    max_jobs: int


BinaryPath = Callable[[BinaryRef], str | None]
JobEnded = Callable[[JobRecord], None]


class ContextJobs:
    """The running jobs of one epoch. Belongs to the event loop."""

    def __init__(
        self,
        context: ContextRecord,
        fence: Fence,
        link: DriverLink,
        store: Metadata,
        waiters: JobWaiters,
        settings: JobsSettings,
        *,
        binary_path: BinaryPath,
        superseded: Callable[[str], None],
        job_ended: JobEnded,
    ) -> None:
        self.context = context
        self.fence = fence
        self._link = link
        self._store = store
        self._writes = JobWrites(store, fence, superseded)
        self._waiters = waiters
        self._admission = Admission(settings.max_jobs)
        self._binary_path = binary_path
        self._superseded = superseded
        self._job_ended = job_ended
        self._jobs: dict[str, JobRecord] = {}
        self._open = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._released = asyncio.Event()
        self._accepted: set[str] = set()
        self._undelivered: list[JobRecord] = []
        self._limits: dict[str, asyncio.TimerHandle] = {}
        self._recovering: list[tuple[Event, Message]] | None = []
        link.listen(self._on_event)

    # What the keeper does with it

    async def recover(self, held: Held | None, saved: Mapping[str, int] | None = None) -> None:
        """Decides every unfinished job (design 4.4). `saved`: attempts by job whose progress the base holds.

        Raises Superseded.
        """
        unfinished = await self._store.unfinished_jobs(self.context.id)
        for decision in plan(unfinished, held):
            await self._carry_out(decision)
        known = {job.id for job in unfinished}
        if held is not None:
            self._forget_strangers(held, known)
        for job_id, attempt in (saved or {}).items():
            if job_id not in known:  # it ended, and its driver died before it heard so
                self._forget_progress(job_id, attempt)
        came, self._recovering = self._recovering or [], None
        for event, message in came:
            self._on_event(event, message)

    def open_gate(self) -> None:
        """Jobs may start."""
        self._open = True
        undelivered, self._undelivered = self._undelivered, []
        for job in undelivered:
            if self._jobs.get(job.id) is job:
                self._begin(job.id, self._deliver_again(job))
            else:  # it ended meanwhile, and the driver, which never heard of it, will not say so
                self._release(job.id)
        self._start_next()

    def pause(self) -> None:
        """No further job starts; what arrives waits in the queue. `open_gate` ends it."""
        self._open = False

    async def ended(self, job_ids: AbstractSet[str], seconds: float) -> bool:
        """Whether none of these jobs has a slot any more, after waiting for it at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not self._admission.running.isdisjoint(job_ids):
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            return False
        return True

    @property
    def running(self) -> frozenset[str]:
        """Ids of jobs that have a slot."""
        return frozenset(self._admission.running)

    def not_again(self) -> list[JobRecord]:
        """Running jobs that may not run once more: `onFailover: fail`, or their last attempt (one that starts counts)."""
        jobs = [self._jobs[job_id] for job_id in self._admission.running if job_id in self._jobs]
        return [
            job
            for job in jobs
            if job.spec.on_failover is OnFailover.FAIL
            or job.attempt + (job.state is not JobState.RUNNING) >= job.spec.max_attempts
        ]

    async def put_back(self, why: str) -> None:
        """Every running job goes back to the queue, its attempt ended: it runs again, from its own progress if it saved some.

        Call `pause` before. No death is counted. Raises Superseded.
        """
        for job_id in sorted(self._admission.running):
            starting = self._starting.get(job_id)
            if starting is not None:
                await asyncio.wait([starting])
            job = self._jobs.get(job_id)
            if job is None or job.state is not JobState.RUNNING:
                continue
            self._admission.release(job_id)
            await self._rerun(job, died=False, error=ErrorInfo(why, "jobserver.ContextMoved"))
            self._link.tell(Request.KILL, job_id=job.id, attempt=job.attempt)

    def close(self) -> None:
        """Nothing starts and nothing is written any more; what runs in the driver is left to the fences."""
        self._open = False
        self._closed = True
        for job_id in list(self._limits):
            self._unlimit_time(job_id)
        for task in list(self._tasks):
            task.cancel()

    async def accept(self, offer: Offer) -> JobRecord:
        """Accepts a new job; where a slot is free, its first attempt begins in the same write.

        Answers the job as committed, or the one that the same request made before. Raises as `Metadata.insert_job`, and
        OwnerUnavailable when this epoch ends meanwhile: then it may have been accepted.
        """
        job_id = offer.record.id
        if self._closed or not (self._open and self._admission.admit(job_id)):
            job = await self._writes.insert(offer)
            await self.arrive(job)
            return job
        accepted: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._jobs[job_id] = offer.record
        task = self._begin(job_id, self._accept_started(offer, accepted))
        lost = OwnerUnavailable("this server has lost the context or its driver")
        task.add_done_callback(lambda _: _settle(accepted, lost))
        return await accepted

    async def arrive(self, job: JobRecord) -> None:
        """A job was accepted for this context; known ones are ignored."""
        if job.id not in self._jobs and not job.state.final:
            self._jobs[job.id] = job
            self._admission.arrive(job.id, priority=job.spec.priority, deaths=job.deaths)
            self._start_next()
        if job.id in self._accepted or job.id not in self._admission.running:
            # one that waits for a slot is accepted as it is: its code is looked at when its turn comes
            self._waiters.accepted(self._jobs.get(job.id, job))

    async def sweep(self) -> int:
        """Finds accepted jobs of which no message came; answers how many have not ended."""
        unfinished = await self._store.unfinished_jobs(self.context.id)
        for job in unfinished:
            if job.state in (JobState.QUEUED, JobState.RESTARTING):
                await self.arrive(job)
        return len(unfinished)

    async def kill(self, job_id: str) -> JobRecord | None:
        """The job after KILLED was committed, or None when it is not among the unfinished. Raises Superseded."""
        starting = self._starting.get(job_id)
        if starting is not None:
            await asyncio.wait([starting])
        job = self._jobs.get(job_id)
        if job is None or job.state.final:
            return job
        error = ErrorInfo(f"Job {job_id} killed", "spark.jobserver.JobManagerActor$JobKilledException")
        if job.state is JobState.RUNNING:
            killed = await self._commit_end(
                job, AttemptOutcome(job.id, job.attempt, OutcomeKind.KILLED, error=error), JobState.KILLED
            )
            self._link.tell(Request.KILL, job_id=job.id, attempt=job.attempt)
            return killed
        if not await self._writes.end_waiting(job, JobState.KILLED, error):
            return None
        self._forget_progress(job_id, job.attempt)
        return self._gone(job, JobState.KILLED, error)

    async def look(self, job_id: str, after: EventId | None, seconds: float) -> Look | None:
        """See `looks.look`."""
        return await look(lambda: self._jobs.get(job_id), self._link, self._waiters, after, seconds)

    async def tails(self, job_id: str) -> list[dict[str, object]]:
        """See `looks.tails`."""
        return await tails(self._link, job_id)

    @property
    def counts(self) -> tuple[int, int]:
        """Running and waiting jobs."""
        return len(self._admission.running), self._admission.waiting

    # Recovery

    async def _carry_out(self, decision: Plan) -> None:
        job = decision.job
        self._jobs[job.id] = job
        match decision:
            case Queue():
                self._admission.arrive(job.id, priority=job.spec.priority, deaths=job.deaths)
            case Attached():
                self._admission.attach(job.id)
                self._limit_time(job, job.changed_at or _now())
                self._accepted.add(job.id)
                self._waiters.accepted(job)
            case Accept(outcome=outcome):
                self._admission.attach(job.id)
                await self._finish(outcome)
            case Deliver():
                self._admission.attach(job.id)
                self._limit_time(job, _now())
                self._undelivered.append(job)
            case Rerun(died=died, error=error):
                await self._rerun(job, died, error)
            case Fail(error=error):
                failed = AttemptOutcome(job.id, job.attempt, OutcomeKind.FAILED, error=error)
                await self._commit_end(job, failed, JobState.ERROR)
                self._forget_progress(job.id, job.attempt)
                self._release(job.id)

    async def _rerun(self, job: JobRecord, died: bool, error: ErrorInfo) -> None:
        if await self._writes.restart(job, died, error):
            waiting = replace(job, state=JobState.RESTARTING, deaths=job.deaths + int(died), error=error)
            self._jobs[job.id] = waiting
            self._admission.arrive(job.id, priority=job.spec.priority, deaths=waiting.deaths)

    def _forget_strangers(self, held: Held, known: set[str]) -> None:
        """Outcomes of jobs that SQL has as final: acknowledged, so that the driver forgets them; still running ones end."""
        for attempt, outcome in held.items():
            if attempt.job_id not in known:
                kind = Request.KILL if outcome is None else Request.ACK
                self._link.tell(kind, job_id=attempt.job_id, attempt=attempt.attempt)

    def _forget_progress(self, job_id: str, attempt: int) -> None:
        """Of a job whose end is committed and of which the driver will say nothing."""
        self._link.tell(Request.ACK, job_id=job_id, attempt=attempt)

    # Starting

    def _start_next(self) -> None:
        while self._open and (job_id := self._admission.next()) is not None:
            self._begin(job_id, self._start(self._jobs[job_id]))

    def _begin(self, job_id: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work at the end of which the driver knows the attempt: a kill waits for it."""
        task = self._spawn(work)
        self._starting[job_id] = task
        task.add_done_callback(partial(self._started, job_id))
        return task

    def _started(self, job_id: str, _task: asyncio.Task[None]) -> None:
        self._starting.pop(job_id, None)

    async def _accept_started(self, offer: Offer, accepted: asyncio.Future[JobRecord]) -> None:
        """Who submits is told as soon as it is committed, and does not wait for the driver."""
        at = _now()
        begun = replace(offer.record, state=JobState.RUNNING, attempt=1, started_at=at)

        try:
            try:
                job = await self._writes.insert_started(offer, at)
            except OutcomeUnknown as unknown:
                # its client is told so at once; whether it began must be known here, and repeating the write tells
                accepted.set_exception(unknown)
                job = await self._writes.once_answered(partial(self._writes.insert_started, offer, at))
        except JobServerError as error:
            self._release(offer.record.id)
            _settle(accepted, error)
            return
        if job != begun and not await self._began_before(job, begun):
            self._release(offer.record.id)
            await self.arrive(job)
            _settle(accepted, job)
            return
        self._jobs[job.id] = job
        _settle(accepted, job)
        self._limit_time(job, at)
        await self._deliver(job)

    async def _began_before(self, job: JobRecord, begun: JobRecord) -> bool:
        """Whether a write of which no reply came began the attempt, and no other epoch did. Raises Superseded."""
        if (job.id, job.state, job.attempt) != (begun.id, begun.state, begun.attempt):
            return False
        await self._writes.check_fence()
        return True

    async def _start(self, job: JobRecord) -> None:
        attempt = job.attempt + 1
        at = _now()
        if not await self._writes.start(job.id, attempt, at):
            await self._not_ours(job)
            return
        running = replace(
            job, state=JobState.RUNNING, attempt=attempt, started_at=job.started_at or at, error=None
        )
        self._jobs[job.id] = running
        self._limit_time(running, at)
        await self._deliver(running)

    async def _deliver(self, job: JobRecord) -> bool:
        """Gives the running attempt to the driver. False: the driver says that it has begun it before."""
        try:
            await self._link.request(Request.RUN, timeout=RUN_TIMEOUT, **self._run_message(job))
        except RefusedByDriver as refusal:
            if refusal.code == Refused.DUPLICATE:
                return False
            await self._finish(
                AttemptOutcome(job.id, job.attempt, OutcomeKind.FAILED, error=ErrorInfo(refusal.message))
            )
        except LinkBroken as broken:
            log.warning("job %s attempt %d: %s; the recovery plan decides", job.id, job.attempt, broken)
        return True

    async def _deliver_again(self, job: JobRecord) -> None:
        """For an attempt that a former owner put on record and the adopted driver does not hold."""
        if not await self._deliver(job):
            self._admission.release(job.id)
            await self._carry_out(after_loss(job))
            self._start_next()

    def _run_message(self, job: JobRecord) -> Message:
        binaries = [
            {"name": ref.name, "type": ref.type.value, "digest": ref.digest, "path": self._binary_path(ref)}
            for ref in job.spec.binaries
        ]
        return {
            "job_id": job.id,
            "attempt": job.attempt,
            "main_class": job.spec.main_class,
            "binaries": binaries,
            "config": job.spec.config,
            "pool": job.spec.pool.value,
            "sql": None if job.spec.sql is None else asdict(job.spec.sql),
            "result_format": job.spec.result_format.value,
        }

    # Time limits

    def _limit_time(self, job: JobRecord, since: datetime) -> None:
        """The attempt ends when its time is over, counted from its start by this server's clock."""
        self._unlimit_time(job.id)
        if job.spec.time_limit is not None:
            left = job.spec.time_limit - (_now() - since).total_seconds()
            loop = asyncio.get_running_loop()
            self._limits[job.id] = loop.call_later(max(left, 0.0), self._over_time, job.id, job.attempt)

    def _unlimit_time(self, job_id: str) -> None:
        timer = self._limits.pop(job_id, None)
        if timer is not None:
            timer.cancel()

    def _over_time(self, job_id: str, attempt: int) -> None:
        if not self._closed:
            self._spawn(self._end_over_time(job_id, attempt))

    async def _end_over_time(self, job_id: str, attempt: int) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.state is not JobState.RUNNING or job.attempt != attempt:
            return
        text = f"Job {job_id} ran longer than its time limit of {job.spec.time_limit:g} s"
        error = ErrorInfo(text, "jobserver.TimeLimitExceeded")
        await self._commit_end(
            job, AttemptOutcome(job_id, attempt, OutcomeKind.KILLED, error=error), JobState.KILLED
        )
        self._link.tell(Request.KILL, job_id=job_id, attempt=attempt)

    # Events of the driver

    def _on_event(self, event: Event, message: Message) -> None:
        if self._closed:
            return
        if self._recovering is not None and event is not Event.SUPERSEDED:
            # an outcome of a job that was not decided yet would be acknowledged without being committed
            self._recovering.append((event, message))
            return
        if event is Event.FINISHED:
            self._spawn(self._finish(outcome_of(message)))
        elif event is Event.ACCEPTED:
            job = self._jobs.get(message["job_id"])
            if job is not None and job.attempt == message["attempt"]:
                self._accepted.add(job.id)
                self._waiters.accepted(job)
        elif event is Event.SUPERSEDED:
            self._superseded(f"the driver saw the marker of epoch {message.get('epoch')}")

    async def _finish(self, outcome: AttemptOutcome) -> None:
        job = self._jobs.get(outcome.job_id)
        current = job is not None and job.attempt == outcome.attempt and not self._waits_again(job.id)
        if job is not None and current and not job.state.final:
            await self._commit_end(job, outcome, _STATES[outcome.kind])
        self._link.tell(Request.ACK, job_id=outcome.job_id, attempt=outcome.attempt)
        if current and not self._waits_again(outcome.job_id):  # an older attempt's end is not the job's end
            self._release(outcome.job_id)

    async def _commit_end(self, job: JobRecord, outcome: AttemptOutcome, state: JobState) -> JobRecord | None:
        """Commits the end of the running attempt, then tells who waits. None when it had ended otherwise before."""
        at = _now()
        try:
            committed = await self._writes.finish(outcome, state, at)
        except JobServerError:
            raise
        except Exception as error:
            # an outcome that no owner can commit would take the context from one server to the next: the job ends without it
            log.exception("the outcome of job %s cannot be committed", job.id)
            outcome, state = _uncommittable(outcome, error), JobState.ERROR
            committed = await self._writes.finish(outcome, state, at)
        if not committed and self._waits_again(job.id):
            return None
        if not committed:
            await self._not_ours(job)
            return None
        return self._gone(
            job, state, outcome.error, result=outcome.result, outcome=outcome.kind, ended_at=at, release=False
        )

    def _waits_again(self, job_id: str) -> bool:
        """Whether the job was put back: what its ended attempt brings counts no more."""
        job = self._jobs.get(job_id)
        return job is not None and job.state is JobState.RESTARTING

    def _gone(
        self,
        job: JobRecord,
        state: JobState,
        error: ErrorInfo | None,
        *,
        release: bool = True,
        ended_at: datetime | None = None,
        result: str | None = None,
        outcome: OutcomeKind | None = None,
    ) -> JobRecord:
        """The committed end of a job: news for who waits; the slot goes when nothing of it runs any more."""
        final = replace(
            job, state=state, error=error, ended_at=ended_at or _now(), result=result, outcome=outcome
        )
        self._jobs[job.id] = final
        self._unlimit_time(job.id)
        self._waiters.ended(final)
        self._job_ended(final)
        if release:
            self._release(job.id)
        return final

    async def _not_ours(self, job: JobRecord) -> None:
        """SQL has the job in another state than we thought, under our own fence: take over what it says."""
        row = await self._writes.job(job.id)
        if row is not None and row.state.final:
            self._waiters.ended(row)
        self._release(job.id)

    def _release(self, job_id: str) -> None:
        self._admission.release(job_id)
        self._released.set()
        self._jobs.pop(job_id, None)
        self._accepted.discard(job_id)
        self._start_next()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, Superseded):
            log.error("work on a job of context %s failed", self.context.name, exc_info=error)
            self._superseded(f"an unforeseen error: {error!r}")


_STATES = {
    OutcomeKind.FINISHED: JobState.FINISHED,
    OutcomeKind.KILLED: JobState.KILLED,
    OutcomeKind.FAILED: JobState.ERROR,
    OutcomeKind.INVALID: JobState.ERROR,
    OutcomeKind.NOT_FOUND: JobState.ERROR,
    OutcomeKind.LOADING_FAILED: JobState.ERROR,
    OutcomeKind.WRONG_TYPE: JobState.ERROR,
}


def _settle(accepted: asyncio.Future[JobRecord], news: JobRecord | JobServerError) -> None:
    if accepted.done():
        return
    if isinstance(news, JobServerError):
        accepted.set_exception(news)
    else:
        accepted.set_result(news)


def _now() -> datetime:
    return datetime.now(UTC)


def _uncommittable(outcome: AttemptOutcome, error: Exception) -> AttemptOutcome:
    text = f"The outcome ({outcome.kind}) could not be recorded: {type(error).__name__}. The server's log has the details"
    return AttemptOutcome(
        outcome.job_id,
        outcome.attempt,
        OutcomeKind.FAILED,
        error=ErrorInfo(text, "jobserver.OutcomeNotRecorded"),
    )
