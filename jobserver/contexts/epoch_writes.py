"""What an epoch writes to SQL about its context: every write under its fence, repeated for as long as the store is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from jobserver.contexts.job_writes import STORE_RETRY
from jobserver.errors import OutcomeUnknown, StoreUnavailable, Superseded
from jobserver.model import ContextState, DriverRecord, ErrorInfo, Failover, Fence, JobRecord
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)
T = TypeVar("T")

LIVING = (ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING, ContextState.STOPPING)


class EpochWrites:
    """`superseded` is told when a write finds that the fence is another's."""

    def __init__(self, store: Metadata, fence: Fence, superseded: Callable[[str], None]) -> None:
        self._store = store
        self._fence = fence
        self._superseded = superseded

    async def restarting(self) -> None:
        """RUNNING no more. Raises Superseded."""
        await self._guarded(
            lambda: self._store.move_context(
                self._fence, (ContextState.RUNNING,), ContextState.RESTARTING, at=_now()
            )
        )

    async def record_driver(self, driver: DriverRecord) -> None:
        """Raises Superseded."""
        await self._guarded(lambda: self._store.record_driver(self._fence, driver))

    async def publish(self, failover: Failover | None) -> None:
        """RUNNING, and what the failover was. Raises Superseded."""
        await self._guarded(
            lambda: self._store.move_context(
                self._fence, (ContextState.STARTED, ContextState.RESTARTING), ContextState.RUNNING, at=_now()
            ),
            refusable=True,
        )
        if failover is not None:
            await self._guarded(lambda: self._store.record_failover(self._fence, failover))

    async def request_stop(self) -> None:
        """STOPPING, if it is not yet."""
        await answered(self._context_id, lambda: self._store.request_stop(self._context_id))

    async def end_context(
        self, state: ContextState, error: ErrorInfo | None, jobs_error: ErrorInfo | None = None
    ) -> None:
        """The final state first, the jobs second. Raises Superseded."""
        await self._guarded(
            lambda: self._store.move_context(self._fence, LIVING, state, at=_now(), error=error),
            refusable=True,
        )
        reason = jobs_error or error or ErrorInfo("The context ended")
        await answered(
            self._context_id, lambda: self._store.end_jobs_of_ended_context(self._context_id, reason, _now())
        )

    async def is_superseded(self) -> bool:
        """Whether the fence is another's by now. Raises StoreUnavailable."""
        row = await self._store.fence(self._context_id)
        return row is None or row.token != self._fence.token

    async def job(self, job_id: str) -> JobRecord | None:
        """The job as SQL has it."""
        return await answered(self._context_id, lambda: self._store.job(job_id))

    @property
    def _context_id(self) -> str:
        return self._fence.context_id

    async def _guarded(self, write: Callable[[], Awaitable[bool]], *, refusable: bool = False) -> None:
        """`refusable`: the state may have moved on under the same fence."""
        if await answered(self._context_id, write):
            return
        row = await answered(self._context_id, lambda: self._store.fence(self._context_id))
        if row is None or row.token != self._fence.token:
            why = f"epoch {row.epoch if row else '?'} is above ours, {self._fence.epoch}"
            self._superseded(why)
            raise Superseded(why)
        if not refusable:
            log.debug("context %s: a guarded write found another state", self._context_id)


async def answered(context_id: str, call: Callable[[], Awaitable[T]]) -> T:
    """The store's answer, however long it takes; only for calls that may be repeated."""
    while True:
        try:
            return await call()
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("context %s: the store does not answer (%s): trying again", context_id, error)
            await asyncio.sleep(STORE_RETRY)


def _now() -> datetime:
    return datetime.now(UTC)
