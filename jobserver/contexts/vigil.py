"""Whether the drivers that this server would take over still answer, watched before their owners' deaths are decided.

That an owner is frozen is known only when its ZooKeeper session has ended. What its driver did meanwhile is known by then, so
a silent one is not waited for a second time. Only an adoption is given up sooner by this; nothing is taken from anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobserver.contexts.clock import now
from jobserver.contexts.link import Connect, DriverLink
from jobserver.errors import JobServerError
from jobserver.model import DriverRecord
from jobserver.protocol import Request
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
PATIENCE = 0.5
"""Seconds to connect to a driver, and for its answer; one that needs longer counts as silent from when it was asked."""


@dataclass(slots=True)
class _Watched:
    """A driver, the connection to it, and since when it has owed an answer (on the event loop's clock)."""

    driver: DriverRecord
    link: DriverLink
    unanswered: float | None = None


class Vigil:
    """Belongs to the event loop. `contexts`: ids of those for which this server keeps a hot standby."""

    def __init__(self, store: Metadata, connect: Connect, contexts: Callable[[], Iterable[str]]) -> None:
        self._store = store
        self._connect = connect
        self._contexts = contexts
        self._watched: dict[str, _Watched] = {}

    def silence(self, driver: DriverRecord) -> float:
        """For how many seconds the driver has owed an answer; 0 for one that answers, or is not watched here."""
        for one in self._watched.values():
            if one.driver.driver_id == driver.driver_id and one.unanswered is not None:
                return now() - one.unanswered
        return 0.0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await asyncio.gather(*(self._leave(context_id) for context_id in list(self._watched)))

    async def look(self) -> None:
        """Asks each driver once."""
        contexts = set(self._contexts())
        await asyncio.gather(*(self._leave(gone) for gone in self._watched.keys() - contexts))
        await asyncio.gather(*(self._ask(context_id) for context_id in contexts))

    async def _ask(self, context_id: str) -> None:
        with contextlib.suppress(
            JobServerError
        ):  # without an answer of SQL, or a connection, nothing is known
            watched = await self._connected(context_id)
            if watched is None:
                return
            asked = now()
            try:
                await watched.link.request(Request.PING, timeout=PATIENCE)
            except JobServerError:
                watched.unanswered = watched.unanswered or asked
            else:
                watched.unanswered = None

    async def _connected(self, context_id: str) -> _Watched | None:
        """A driver that has ended is followed by the one on record."""
        watched = self._watched.get(context_id)
        if watched is not None and not watched.link.closed:
            return watched
        await self._leave(context_id)
        context = await self._store.context(context_id)
        if context is None or context.driver is None:
            return None
        link = await self._connect(context.driver, timeout=PATIENCE)
        self._watched[context_id] = watched = _Watched(context.driver, link)
        return watched

    async def _leave(self, context_id: str) -> None:
        watched = self._watched.pop(context_id, None)
        if watched is not None:
            await watched.link.close()
