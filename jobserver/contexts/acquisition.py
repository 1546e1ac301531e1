"""A driver for a takeover: hot, else warm, else cold. It is taken or started beside the work on the base."""

from __future__ import annotations

import asyncio
import logging

from jobserver.contexts.parts import TakeoverParts
from jobserver.contexts.pool import StartedDriver
from jobserver.model import ContextRecord

log = logging.getLogger(__name__)


class Acquisition:
    """Whoever drops it before the driver was given away ends the driver. Belongs to the event loop."""

    def __init__(self, parts: TakeoverParts) -> None:
        self._parts = parts
        self._acquiring: asyncio.Task[StartedDriver] | None = None

    def begin(self, context: ContextRecord, *, is_failover: bool) -> None:
        """Unless it has begun."""
        if self._acquiring is None:
            self._acquiring = asyncio.create_task(self._some_driver(context, is_failover))

    async def driver(self) -> StartedDriver:
        """From here on the driver is the caller's. Raises ContextInitFailed; then it may begin anew."""
        if self._acquiring is None:
            raise RuntimeError("begin() comes first")
        await asyncio.wait([self._acquiring])  # cancelled here, `drop` ends what was acquired
        acquired, self._acquiring = self._acquiring, None
        return acquired.result()

    def drop(self) -> None:
        """Ends what was acquired and not given away, also when it comes late."""
        acquiring, self._acquiring = self._acquiring, None
        if acquiring is not None:
            acquiring.cancel()
            acquiring.add_done_callback(self._discard_late)

    def _discard_late(self, acquired: asyncio.Task[StartedDriver]) -> None:
        if not acquired.cancelled() and acquired.exception() is None:
            self._parts.pool.discard(acquired.result())

    async def _some_driver(self, context: ContextRecord, is_failover: bool) -> StartedDriver:
        """A context whose standbys are cold takes nothing that is kept for others' failovers. Raises ContextInitFailed."""
        spec = self._parts.spec_of(context)
        if not is_failover:
            return await self._parts.pool.take(spec)
        kept = await self._parts.hot(context.id)
        mode = self._parts.standby_of(context)
        if kept is None and mode == "cold":
            return await self._parts.pool.start_new(spec)
        if kept is None and mode == "hot":
            log.warning("context %s: no server has a hot standby of it", context.name)
        if kept is None and self._parts.pool.lacks(spec):
            kept = await self._parts.warm(spec)  # of another server
            if kept is None:
                log.warning(
                    "context %s: no server has a warm driver for it: it waits for one that starts",
                    context.name,
                )
        return kept or await self._parts.pool.take(spec)
