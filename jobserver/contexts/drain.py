"""Emptying a server: every context that it holds, or comes to hold meanwhile, is moved to another (design 4.5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from ha.coordination import Coordination
from ha.placement import rebalancing
from jobserver.contexts.registry import ContextRegistry
from jobserver.contexts.switchover import Switchover
from jobserver.errors import JobServerError
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds between two looks at what a draining server still holds."""


class Drainer:
    """One per server; works in the background from `begin` to `end`. `announce` tells the cluster."""

    def __init__(
        self,
        registry: ContextRegistry,
        store: Metadata,
        switchover: Switchover,
        announce: Callable[[bool], None],
    ) -> None:
        self._registry = registry
        self._store = store
        self._switchover = switchover
        self._announce = announce
        self._work: asyncio.Task[None] | None = None

    async def begin(self, *, grace: float, keep_drivers: bool) -> None:
        """Takes no more contexts and gives away those it has; asked again, with the new grace."""
        await self._stop()
        self._registry.draining = True
        self._announce(True)
        log.info("this server drains: %d contexts to move", len(self._registry.held()))
        self._work = asyncio.create_task(self._drain(grace, keep_drivers), name="drain")

    async def end(self) -> None:
        """Takes contexts again."""
        await self._stop()
        self._registry.draining = False
        self._announce(False)

    async def _stop(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.wait([work])

    async def _drain(self, grace: float, keep_drivers: bool) -> None:
        """Until it is told to end: a failover may bring a context here when no other server can take it."""
        while True:
            for context_id in self._registry.held():
                await self._move(context_id, grace, keep_drivers)
            await self._registry.change(AGAIN)

    async def _move(self, context_id: str, grace: float, keep_drivers: bool) -> None:
        try:
            context = await self._store.context(context_id)
            if context is not None and not context.state.final:
                moved = await self._switchover.run(context, None, grace, keep_driver=keep_drivers)
                log.info("context %s drained to %s in %.1f s", moved.context, moved.target, moved.seconds)
        except JobServerError as error:
            log.warning("context %s was not drained: %s", context_id, error.message)
            await asyncio.sleep(AGAIN)


class Rebalancer:
    """The leader's chore, off by default: one context at a time goes from the fullest to the emptiest server."""

    def __init__(
        self, coordination: Coordination, store: Metadata, switchover: Switchover, grace: float
    ) -> None:
        self._coordination = coordination
        self._store = store
        self._switchover = switchover
        self._grace = grace

    async def rebalance(self) -> None:
        """Moves at most one context. What cannot be moved now is looked at again at the next sweep."""
        wanted = rebalancing(self._coordination.servers, self._coordination.owners.values())
        context = await self._store.context(wanted[0]) if wanted else None
        if wanted is None or context is None or context.state.final:
            return
        with contextlib.suppress(JobServerError):
            moved = await self._switchover.run(context, wanted[1], self._grace, keep_driver=False)
            log.info("rebalanced: context %s went from %s to %s", context.name, moved.source, moved.target)
