"""The jobs of one context under one epoch and one driver: accept, start, kill. With its parts the owner's only writer of them.

Every write goes through the fence; an answer, an acknowledgement to the driver and a freed slot follow the committed write.
A write that finds the fence raised ends this object by `superseded`. What a failing store keeps from being written is tried
again: the driver holds its outcomes until they are acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jobserver.contexts.delivery import BinaryPath, Delivery
from jobserver.contexts.job_recovery import JobRecovery
from jobserver.contexts.job_table import JobTable
from jobserver.contexts.job_writes import JobWrites
from jobserver.contexts.link import DriverLink
from jobserver.contexts.looks import Look, look, tails
from jobserver.contexts.outcomes import JobEnded, Outcomes
from jobserver.contexts.time_limits import TimeLimits
from jobserver.contexts.waiters import JobWaiters, Offer
from jobserver.errors import JobServerError, OutcomeUnknown, OwnerUnavailable, Superseded
from jobserver.job_events import EventId
from jobserver.model import ContextRecord, ErrorInfo, Fence, JobRecord, JobState
from jobserver.protocol import Event, Message, Request, outcome_of
from jobserver.recovery import Held, after_loss
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobsSettings:
    """Limits of one context's jobs."""

    max_jobs: int


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
        self._superseded = superseded
        self._table = JobTable(settings.max_jobs, self._start_next)
        self._limits = TimeLimits(self._over_time)
        self._outcomes = Outcomes(self._table, self._writes, self._limits, waiters, link, job_ended)
        self._delivery = Delivery(link, self._outcomes, waiters, binary_path)
        self._recovery = JobRecovery(self._table, self._writes, self._outcomes, self._limits, waiters, link)
        self._open = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._recovering: list[tuple[Event, Message]] | None = []
        link.listen(self._on_event)

    # What the keeper does with it

    async def recover(self, held: Held | None, saved: Mapping[str, int] | None = None) -> None:
        """Decides every unfinished job (design 4.4). `saved`: attempts by job whose progress the base holds.

        Raises Superseded.
        """
        unfinished = await self._store.unfinished_jobs(self.context.id)
        await self._recovery.decide_all(unfinished, held, saved or {})
        came, self._recovering = self._recovering or [], None
        for event, message in came:
            self._on_event(event, message)

    def open_gate(self) -> None:
        """Jobs may start, unless the context is being stopped."""
        if self._closed:
            return
        self._open = True
        for job in self._recovery.take_undelivered():
            if self._table.rows.get(job.id) is job:
                self._begin(job.id, self._deliver_again(job))
            else:  # it ended meanwhile, and the driver, which never heard of it, will not say so
                self._table.release(job.id)
        self._start_next()

    def pause(self) -> None:
        """No further job starts; what arrives waits in the queue. `open_gate` ends it."""
        self._open = False

    async def ended(self, job_ids: AbstractSet[str], seconds: float) -> bool:
        """Whether none of these jobs has a slot any more, after waiting for it at most `seconds`."""
        return await self._table.ended(job_ids, seconds)

    @property
    def running(self) -> frozenset[str]:
        """Ids of jobs that have a slot."""
        return frozenset(self._table.admission.running)

    def not_again(self) -> list[JobRecord]:
        """Running jobs that may not run once more: `onFailover: fail`, or their last attempt (one that starts counts)."""
        return self._table.not_again()

    async def put_back(self, why: str) -> None:
        """Every running job goes back to the queue, its attempt ended: it runs again, from its own progress if it saved some.

        Call `pause` before. No death is counted. Raises Superseded.
        """
        for job_id in sorted(self._table.admission.running):
            starting = self._starting.get(job_id)
            if starting is not None:
                await asyncio.wait([starting])
            job = self._table.rows.get(job_id)
            if job is None or job.state is not JobState.RUNNING:
                continue
            self._table.admission.release(job_id)
            await self._recovery.rerun(job, died=False, error=ErrorInfo(why, "jobserver.ContextMoved"))
            self._link.tell(Request.KILL, job_id=job.id, attempt=job.attempt)

    def close(self) -> None:
        """Nothing starts and nothing is written any more; what runs in the driver is left to the fences."""
        self._open = False
        self._closed = True
        self._limits.end_all()
        for task in list(self._tasks):
            task.cancel()

    async def accept(self, offer: Offer) -> JobRecord:
        """Accepts a new job; where a slot is free, its first attempt begins in the same write.

        Answers the job as committed, or the one that the same request made before. Raises as `Metadata.insert_job`, and
        OwnerUnavailable when this epoch ends meanwhile: then it may have been accepted.
        """
        job_id = offer.record.id
        if self._closed or not (self._open and self._table.admission.admit(job_id)):
            job = await self._writes.insert(offer)
            await self.arrive(job)
            return job
        accepted: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._table.rows[job_id] = offer.record
        task = self._begin(job_id, self._accept_started(offer, accepted))
        lost = OwnerUnavailable("this server has lost the context or its driver")
        task.add_done_callback(lambda _: _settle(accepted, lost))
        return await accepted

    async def arrive(self, job: JobRecord) -> None:
        """A job was accepted for this context; known ones are ignored. Raises StoreUnavailable."""
        if (
            job.state is JobState.RUNNING and job.id not in self._table.rows
        ):  # it may have ended since it was read
            job = await self._store.job(job.id) or job
            if job.state.final:
                self._waiters.ended(job)
        if job.id not in self._table.rows and not job.state.final:
            self._table.rows[job.id] = job
            self._table.admission.arrive(job.id, priority=job.spec.priority, deaths=job.deaths)
            self._start_next()
        if job.id in self._table.accepted or job.id not in self._table.admission.running:
            # one that waits for a slot is accepted as it is: its code is looked at when its turn comes
            self._waiters.accepted(self._table.rows.get(job.id, job))

    async def sweep(self) -> int:
        """Finds accepted jobs of which no message came, and ends that nobody was told; answers how many have not ended."""
        unfinished = await self._store.unfinished_jobs(self.context.id)
        for job in unfinished:
            if job.state in (JobState.QUEUED, JobState.RESTARTING):
                await self.arrive(job)
        await self._tell_missed_ends()
        return len(unfinished)

    async def _tell_missed_ends(self) -> None:
        """An epoch may be over before it hears that the end it wrote is committed; who waits outlives it."""
        for job_id in self._waiters.waited_for():
            if job_id not in self._table.rows:
                job = await self._store.job(job_id)
                if job is not None and job.state.final:
                    self._waiters.ended(job)

    async def kill(self, job_id: str) -> JobRecord | None:
        """The job after KILLED was committed, or None when it is not among the unfinished. Raises Superseded."""
        starting = self._starting.get(job_id)
        if starting is not None:
            await asyncio.wait([starting])
        error = ErrorInfo(f"Job {job_id} killed", "spark.jobserver.JobManagerActor$JobKilledException")
        while True:
            job = self._table.rows.get(job_id)
            if job is None or job.state.final:
                return job
            running = job.state is JobState.RUNNING
            killed = await (self._outcomes.kill if running else self._outcomes.kill_waiting)(job, error)
            # put back or begun again while that was written: then it is what is there now that is to be killed
            if killed is not None or self._table.rows.get(job_id) in (None, job):
                return killed

    async def look(self, job_id: str, after: EventId | None, seconds: float) -> Look | None:
        """See `looks.look`."""
        return await look(lambda: self._table.rows.get(job_id), self._link, self._waiters, after, seconds)

    async def tails(self, job_id: str) -> list[dict[str, object]]:
        """See `looks.tails`."""
        return await tails(self._link, job_id)

    @property
    def counts(self) -> tuple[int, int]:
        """Running and waiting jobs."""
        return len(self._table.admission.running), self._table.admission.waiting

    # Starting

    def _start_next(self) -> None:
        while self._open and (job_id := self._table.admission.next()) is not None:
            self._begin(job_id, self._start(self._table.rows[job_id]))

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
        try:
            try:
                job = await self._writes.insert_started(offer, at)
            except OutcomeUnknown as unknown:
                # its client is told so at once; whether it began must be known here, and repeating the write tells
                _settle(accepted, unknown)
                job = await self._writes.once_answered(partial(self._writes.insert_started, offer, at))
        except JobServerError as error:
            self._table.release(offer.record.id)
            _settle(accepted, error)
            return
        if (job.id, job.state, job.attempt) != (offer.record.id, JobState.RUNNING, 1):
            self._table.release(offer.record.id)
            await self.arrive(job)
            _settle(accepted, job)
            return
        if job.started_at != at:  # begun by a write of which no reply came: of this epoch, or of another
            await self._writes.check_fence()
        self._table.rows[job.id] = job
        _settle(accepted, job)
        self._limits.begin(job, at)
        await self._delivery.deliver(job)

    async def _start(self, job: JobRecord) -> None:
        attempt = job.attempt + 1
        at = _now()
        if not await self._writes.start(job.id, attempt, at):
            await self._outcomes.not_ours(job)
            return
        running = replace(
            job, state=JobState.RUNNING, attempt=attempt, started_at=job.started_at or at, error=None
        )
        self._table.rows[job.id] = running
        self._limits.begin(running, at)
        await self._delivery.deliver(running)

    async def _deliver_again(self, job: JobRecord) -> None:
        """For an attempt that a former owner put on record and the adopted driver does not hold."""
        if not await self._delivery.deliver(job):
            self._table.admission.release(job.id)
            await self._recovery.carry_out(after_loss(job))
            self._start_next()

    # Time limits

    def _over_time(self, job_id: str, attempt: int) -> None:
        if not self._closed:
            self._spawn(self._end_over_time(job_id, attempt))

    async def _end_over_time(self, job_id: str, attempt: int) -> None:
        job = self._table.rows.get(job_id)
        if job is None or job.state is not JobState.RUNNING or job.attempt != attempt:
            return
        text = f"Job {job_id} ran longer than its time limit of {job.spec.time_limit:g} s"
        error = ErrorInfo(text, "jobserver.TimeLimitExceeded")
        await self._outcomes.kill(job, error)

    # Events of the driver

    def _on_event(self, event: Event, message: Message) -> None:
        if self._closed:
            return
        if self._recovering is not None and event is not Event.SUPERSEDED:
            # an outcome of a job that was not decided yet would be acknowledged without being committed
            self._recovering.append((event, message))
            return
        if event is Event.FINISHED:
            self._spawn(self._outcomes.finish(outcome_of(message)))
        elif event is Event.ACCEPTED:
            job = self._table.rows.get(message["job_id"])
            if job is not None and job.attempt == message["attempt"]:
                self._table.accepted.add(job.id)
                self._waiters.accepted(job)
        elif event is Event.SUPERSEDED:
            self._superseded(f"the driver saw the marker of epoch {message.get('epoch')}")

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


def _settle(accepted: asyncio.Future[JobRecord], news: JobRecord | JobServerError) -> None:
    if accepted.done():
        return
    if isinstance(news, JobServerError):
        accepted.set_exception(news)
    else:
        accepted.set_result(news)


def _now() -> datetime:
    return datetime.now(UTC)
