"""What an epoch writes to SQL about its context's jobs: every write under its fence, repeated for as long as the store is away.

A write that changes nothing looks at the fence: if that is another's, `superseded` is told and Superseded raised; else the job is
not as the caller thought.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from jobserver.contexts.waiters import Offer
from jobserver.errors import OutcomeUnknown, StoreUnavailable, Superseded
from jobserver.model import AttemptOutcome, ErrorInfo, Fence, JobRecord, JobState
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)
T = TypeVar("T")

STORE_RETRY = 0.25
"""Seconds between tries while the store does not answer."""


class JobWrites:
    """All but `insert` and `insert_started` wait until the store answers. Guarded ones answer whether they happened."""

    def __init__(self, store: Metadata, fence: Fence, superseded: Callable[[str], None]) -> None:
        self._store = store
        self._fence = fence
        self._superseded = superseded

    async def insert(self, offer: Offer) -> JobRecord:
        """See `Metadata.insert_job`."""
        return await self._store.insert_job(
            offer.record,
            queue_limit=offer.queue_limit,
            callback_url=offer.callback_url,
            latest=offer.latest,
        )

    async def insert_started(self, offer: Offer, at: datetime) -> JobRecord:
        """See `Metadata.insert_started_job`."""
        return await self._store.insert_started_job(
            self._fence,
            offer.record,
            queue_limit=offer.queue_limit,
            at=at,
            callback_url=offer.callback_url,
            latest=offer.latest,
        )

    async def start(self, job_id: str, attempt: int, at: datetime) -> bool:
        """The attempt begins. Raises Superseded."""
        return await self._guarded(
            lambda: self._store.start_attempt(self._fence, job_id, attempt, at),
            lambda: self._is(job_id, JobState.RUNNING, attempt),
        )

    async def restart(self, job: JobRecord, died: bool, error: ErrorInfo) -> bool:
        """The attempt ends, and the job waits for the next. Raises Superseded."""
        return await self._guarded(
            lambda: self._store.restart_job(
                self._fence, job.id, job.attempt, died=died, error=error, at=_now()
            ),
            lambda: self._is(job.id, JobState.RESTARTING, job.attempt),
        )

    async def finish(self, outcome: AttemptOutcome, state: JobState, at: datetime) -> bool:
        """The job ends with what its attempt came to. Raises Superseded, and whatever the outcome makes the store raise."""
        return await self._guarded(
            lambda: self._store.finish_job(self._fence, outcome, state, at),
            lambda: self._is(outcome.job_id, state, outcome.attempt),
        )

    async def end_waiting(self, job: JobRecord, state: JobState, error: ErrorInfo) -> bool:
        """A job of which nothing runs ends. Raises Superseded."""
        return await self._guarded(
            lambda: self._store.end_waiting_job(self._fence, job.id, state, error, _now()),
            lambda: self._is(job.id, state, job.attempt),
        )

    async def job(self, job_id: str) -> JobRecord | None:
        """The job as SQL has it."""
        return await self.once_answered(lambda: self._store.job(job_id))

    async def check_fence(self) -> None:
        """Raises Superseded unless the fence is still ours."""
        row = await self.once_answered(lambda: self._store.fence(self._fence.context_id))
        if row is None or (row.epoch, row.token) != (self._fence.epoch, self._fence.token):
            why = f"epoch {row.epoch if row else '?'} of {row.owner if row else '?'} is above ours, {self._fence.epoch}"
            self._superseded(why)
            raise Superseded(why)

    async def once_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """The store's answer, however long it takes; only for calls that may be repeated."""
        while True:
            try:
                return await call()
            except (StoreUnavailable, OutcomeUnknown):
                await asyncio.sleep(STORE_RETRY)

    async def _guarded(
        self, write: Callable[[], Awaitable[bool]], happened: Callable[[], Awaitable[bool]]
    ) -> bool:
        while True:
            try:
                done = await write()
            except StoreUnavailable as error:
                log.warning("the store does not answer (%s): trying again", error)
                await asyncio.sleep(STORE_RETRY)
                continue
            except OutcomeUnknown:
                # repeating is safe: the state and attempt it expects are gone if it happened
                done = await self.once_answered(write)
                if not done and await self.once_answered(happened):
                    await self.check_fence()  # a later epoch may have done the same: then it was not ours
                    return True
            if not done:
                await self.check_fence()
            return done

    async def _is(self, job_id: str, state: JobState, attempt: int) -> bool:
        """Whether a write of which no reply came has happened."""
        row = await self._store.job(job_id)
        return row is not None and row.state is state and row.attempt == attempt


def _now() -> datetime:
    return datetime.now(UTC)
