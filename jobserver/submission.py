"""Accepting jobs, waiting for them, killing them: on the server that the client talks to, owner or not.

Acceptance needs SQL only. What comes after follows the owner, whoever that is by then: a call that breaks is followed by a
look at SQL and by the next owner, until the client's time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobserver.binaries import Binaries
from jobserver.contexts.clock import now, seconds_left
from jobserver.contexts.looks import Look
from jobserver.contexts.peers import Peers
from jobserver.contexts.registry import ContextRegistry, OwnerMoved
from jobserver.contexts.waiters import Accepted, JobNews, Offer, Until
from jobserver.errors import (
    ContextStopping,
    JobServerError,
    NotFound,
    Outdated,
    OwnerUnavailable,
    StoreUnavailable,
    Superseded,
    TimedOut,
)
from jobserver.job_events import EventId
from jobserver.known_names import KnownNames
from jobserver.model import (
    BinaryRef,
    ContextRecord,
    ContextState,
    JobRecord,
    JobSpec,
    JobState,
    NamedContext,
    OnFailover,
)
from jobserver.service import Submission, Submitted
from jobserver.store.acceptance import check_same_digest
from jobserver.store.metadata import Metadata

LOOK_AGAIN = 0.25
"""Longest wait for news of a new owner before SQL and the caches are looked at again, seconds."""
OWNER_PATIENCE = 0.5
"""How long an owner has to accept a job, seconds; then the server that was asked accepts it itself."""
KILLS_AT_ONCE = 16
"""Jobs of a context that one request kills at the same time."""
KILL_WAIT = 10.0
"""How long a kill waits for an owner, seconds."""

NewContext = Callable[[str, dict[str, Any]], Awaitable[ContextRecord]]
Start = Callable[[ContextRecord], None]


@dataclass(frozen=True, slots=True)
class Owners:
    """How a call reaches the owner of a context: here, or at a peer."""

    registry: ContextRegistry
    peers: Peers

    async def submit(self, offer: Offer, until: Until, seconds: float) -> Accepted:
        """The job once its owner has accepted it, with its news if they came in time.

        Raises as `Metadata.insert_job`, and OwnerUnavailable: then it may have been accepted.
        """
        context_id = offer.record.context_id
        if self.registry.is_mine(context_id):
            return await self.registry.submit(offer, until, seconds)
        offered = self.peers.submit(self.registry.owner_url(context_id), context_id, offer, until, seconds)
        return await self.registry.answer_of_owner(context_id, offered)

    def is_here(self, context_id: str) -> bool:
        """Whether this server is the owner."""
        return self.registry.is_mine(context_id)

    async def follow(self, job: JobRecord, until: Until, seconds: float) -> JobNews | None:
        """News of the job from the owner; None when the time is over, or the owner another. Raises OwnerUnavailable.

        `job` is its row as it was read or written a moment ago.
        """
        if self.registry.is_mine(job.context_id):
            return await self.registry.follow(job, until, seconds)
        url = self.registry.owner_url(job.context_id)
        try:
            return await self.registry.answer_of_owner(
                job.context_id, self.peers.follow(url, job.context_id, job.id, until, seconds)
            )
        except OwnerMoved:
            return None  # its row is read again, and the next owner asked

    async def kill(self, context_id: str, job_id: str) -> bool:
        """Whether the owner killed the job. Raises OwnerUnavailable."""
        if self.registry.is_mine(context_id):
            return await self.registry.kill(context_id, job_id)
        kill = self.peers.kill(self.registry.owner_url(context_id), context_id, job_id)
        return await self.registry.answer_of_owner(context_id, kill)

    async def look(self, job: JobRecord, after: EventId | None, seconds: float) -> Look | None:
        """The job once it is newer than `after`. None: the owner knows it no more. Raises OwnerUnavailable."""
        if self.registry.is_mine(job.context_id):
            return await self.registry.look(job, after, seconds)
        url = self.registry.owner_url(job.context_id)
        look = self.peers.look(url, job.context_id, job.id, after, seconds)
        return await self.registry.answer_of_owner(job.context_id, look)

    async def tails(self, job: JobRecord) -> list[dict[str, Any]]:
        """Output of the job that is not in the store yet. Raises OwnerUnavailable."""
        if self.registry.is_mine(job.context_id):
            return await self.registry.tails(job.context_id, job.id)
        return await self.peers.tails(self.registry.owner_url(job.context_id), job.context_id, job.id)

    async def change(self, seconds: float) -> None:
        """Waits for news of owners or servers, at most so long."""
        await self.registry.change(seconds)


class JobDesk:
    """One per server; stateless but for what a waiting client needs."""

    def __init__(
        self,
        store: Metadata,
        binaries: Binaries,
        owners: Owners,
        *,
        queue_limit: int,
        new_adhoc_context: NewContext,
        start_context: Start,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._store = store
        self._names = KnownNames(store)
        self._binaries = binaries
        self._owners = owners
        self._queue_limit = queue_limit
        self._new_adhoc_context = new_adhoc_context
        self._start_context = start_context
        self._new_id = new_id

    async def submit(self, submission: Submission) -> Submitted:
        """Accepts, then waits as asked. Raises NotFound, ContextStopping, QueueFull, KeyReused, TimedOut, Unavailable."""
        deadline = now() + submission.wait_seconds
        until = Until.ENDED if submission.sync else Until.ACCEPTED
        before = await self._adhoc_before(submission)
        accepted = Accepted(before, False) if before else await self._accept(submission, until, deadline)
        news = accepted.job if accepted.done else await self.follow(accepted.job, until, deadline)
        if submission.sync and not news.state.final:
            raise TimedOut(
                f"Job {news.id} did not end within {submission.wait_seconds:g} s; it goes on: GET /jobs/{news.id}",
                news.id,
            )
        return Submitted(news, news.outcome)

    async def _accept(self, submission: Submission, until: Until, deadline: float) -> Accepted:
        """The new job, or the one that this very request made before."""
        if submission.context is None:
            return await self._accept_in_its_own(submission)
        names, job_id = (submission.binaries, submission.context), self._new_id()
        guess = self._names.guess(*names)
        if guess is not None and guess.context is not None:
            latest = guess.binaries[0] if guess.binaries else None
            offer = await self._offered(job_id, submission, guess.binaries, guess.context, latest)
            try:
                return await self._offer(offer, until, deadline)
            except (NotFound, ContextStopping, Outdated):
                self._names.forget(*names)
        named = await self._names.read(*names)
        if named.context is None or named.context.state is ContextState.STOPPING:
            await self._binaries.refs_of(submission.binaries, named.binaries)
            return Accepted(await self._made_before(submission, named.context), done=False)
        offer = await self._offered(job_id, submission, named.binaries, named.context)
        return await self._offer(offer, until, deadline)

    async def _accept_in_its_own(self, submission: Submission) -> Accepted:
        """The same for a job that gets a context of its own."""
        refs = await self._binaries.refs(submission.binaries)
        own = await self._new_adhoc_context(submission.own_context(self._new_id()), submission.own_settings)
        job = await self._insert(await self._offered(self._new_id(), submission, refs, own))
        if job.context_id == own.id:
            self._start_context(own)
        else:  # the same request came twice at once: this one's context has no job
            await self._store.request_stop(own.id)
        return Accepted(job, done=False)

    async def _offered(
        self,
        job_id: str,
        submission: Submission,
        found: Sequence[BinaryRef | None],
        context: ContextRecord | NamedContext,
        latest: BinaryRef | None = None,
    ) -> Offer:
        """The job as it would be inserted. `found`: the latest uploads of the names. Raises as `Binaries.refs_of`."""
        spec = _spec(submission, await self._binaries.refs_of(submission.binaries, found))
        spec = await self._binaries.beside(spec, context.settings)
        record = _record(job_id, submission, spec, context)
        return Offer(record, self._queue_limit, submission.callback_url, latest)

    async def _offer(self, offer: Offer, until: Until, deadline: float) -> Accepted:
        """Accepted by the owner, which may start it in the same write; by this server where no owner does.

        Both inserting it is harmless: it has one id, and whoever comes second finds it.
        """
        try:
            owner = self._owners.submit(offer, until, seconds_left(deadline))
            if self._owners.is_here(offer.record.context_id):
                return await owner
            return await self._patiently(owner, offer)
        except (OwnerUnavailable, Superseded):
            return Accepted(await self._insert(offer), done=False)

    async def _patiently(self, owner: Coroutine[Any, Any, Accepted], offer: Offer) -> Accepted:
        """What the owner on another server answers; one that is silent may be frozen, so the job is made sure of meanwhile."""
        sure: list[asyncio.Task[None]] = []
        silent = asyncio.get_running_loop().call_later(
            OWNER_PATIENCE, lambda: sure.append(asyncio.create_task(self._make_sure_of(offer)))
        )
        try:
            return await owner
        finally:
            silent.cancel()
            for task in sure:
                task.cancel()

    async def _make_sure_of(self, offer: Offer) -> None:
        with contextlib.suppress(JobServerError):  # refused here, it may yet be accepted there
            if await self._store.job(offer.record.id) is None:
                await self._insert(offer)

    async def _insert(self, offer: Offer) -> JobRecord:
        return await self._store.insert_job(
            offer.record,
            queue_limit=offer.queue_limit,
            callback_url=offer.callback_url,
            latest=offer.latest,
        )

    async def _made_before(self, submission: Submission, context: NamedContext | None) -> JobRecord:
        """The job of this very request where its context takes no jobs any more. Raises NotFound, ContextStopping, KeyReused."""
        job = await self._of_key(submission)
        if job is not None:
            return job
        if context is None:
            raise NotFound(f"context {submission.context} not found")
        raise ContextStopping("Context stop in progress")

    async def _adhoc_before(self, submission: Submission) -> JobRecord | None:
        """The job of an earlier request with the key of this one, which must make no second ad-hoc context. Raises KeyReused."""
        return None if submission.context is not None else await self._of_key(submission)

    async def _of_key(self, submission: Submission) -> JobRecord | None:
        """The job that was made under the key of this request. Raises KeyReused."""
        if submission.idempotency_key is None:
            return None
        job = await self._store.job_of_key(submission.principal, submission.idempotency_key)
        if job is not None:
            check_same_digest(job, submission.request_digest)
        return job

    async def follow(self, job: JobRecord, until: Until, deadline: float) -> JobRecord:
        """The job when it ended (or was accepted), or as it is when the time is over."""
        while not job.state.final and (left := seconds_left(deadline)) > 0:
            try:
                news = await self._owners.follow(job, until, left)
                if news is not None:
                    return news.job
            except (OwnerUnavailable, Superseded):
                await self._owners.change(min(LOOK_AGAIN, seconds_left(deadline)))
            try:
                job = await self._store.job(job.id) or job
            except (
                StoreUnavailable
            ):  # the job is accepted: its client is told its id, not that the store is away
                await self._owners.change(min(LOOK_AGAIN, seconds_left(deadline)))
        return job

    async def kill(self, job_id: str) -> JobRecord:
        """The job after the kill; one in ERROR is returned as it is. Raises NotFound, OwnerUnavailable."""
        deadline = now() + KILL_WAIT
        first = True
        while True:
            job = await self._store.job(job_id)
            if job is None:
                raise NotFound(f"No such job ID {job_id}")
            if job.state.final:
                return _killed_or_refused(job, first)
            if seconds_left(deadline) <= 0:
                raise OwnerUnavailable(
                    f"No owner of context {job.context_name} answered within {KILL_WAIT:g} s"
                )
            try:
                await self._owners.kill(job.context_id, job_id)
            except (OwnerUnavailable, Superseded):
                await self._owners.registry.change(LOOK_AGAIN)
            first = False

    async def kill_all(self, context_name: str) -> list[str]:
        """Kills the unfinished jobs of a living context; the ids of those that this killed. Raises NotFound, OwnerUnavailable.

        Repeating it after an error ends the others.
        """
        context = await self._store.latest_context(context_name)
        if context is None or context.state.final:
            raise NotFound(f"context {context_name} not found")
        at_once = asyncio.Semaphore(KILLS_AT_ONCE)

        async def kill(job_id: str) -> JobState | None:
            async with at_once:
                with contextlib.suppress(NotFound):  # it ended by itself meanwhile
                    return (await self.kill(job_id)).state
            return None

        # what waits goes first: else each slot that a kill frees would start another of them
        unfinished = await self._store.unfinished_jobs(context.id)
        jobs = sorted(unfinished, key=lambda job: job.state is JobState.RUNNING)
        ends = await asyncio.gather(*(kill(job.id) for job in jobs))
        return [job.id for job, end in zip(jobs, ends, strict=True) if end is JobState.KILLED]


def _spec(submission: Submission, binaries: tuple[BinaryRef, ...]) -> JobSpec:
    return JobSpec(
        main_class=submission.main_class,
        binaries=binaries,
        config=json.dumps(submission.config),
        max_attempts=submission.max_attempts,
        on_failover=OnFailover(submission.on_failover),
        priority=submission.priority,
        pool=submission.pool,
        time_limit=submission.time_limit,
        sql=submission.sql,
        result_format=submission.result_format,
    )


def _record(
    job_id: str, submission: Submission, spec: JobSpec, context: ContextRecord | NamedContext
) -> JobRecord:
    return JobRecord(
        id=job_id,
        context_id=context.id,
        context_name=context.name,
        spec=spec,
        state=JobState.QUEUED,
        submitted_at=datetime.now(UTC),
        principal=submission.principal,
        idempotency_key=submission.idempotency_key,
        request_digest=submission.request_digest,
    )


def _killed_or_refused(job: JobRecord, first: bool) -> JobRecord:
    """A job that had ended before the kill is refused (contract 5.6), but one in ERROR is shown."""
    if first and job.state in (JobState.FINISHED, JobState.KILLED):
        raise NotFound(f"No running job with ID {job.id}")
    return job
