"""What drivers say of their owner: the witness of a server's death that every context has (`ha/peerlinks.py`).

A driver is asked by `ping`, which changes nothing in it: it tells the epoch that it is bound to and whether its owner's
connection has ended. Its word counts while SQL names the server as owner of that very epoch; an owner that is about to
replace its driver has raised the epoch before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ha.coordination import Coordination, OwnerNode, ServerInfo
from jobserver.contexts.link import Connect
from jobserver.errors import JobServerError
from jobserver.model import DriverRecord, FenceRow
from jobserver.protocol import Request
from jobserver.store.metadata import Metadata

PATIENCE = 0.5
"""Seconds to connect to a driver, and again for its answer. Who says nothing has said nothing."""
AT_ONCE = 16
"""Drivers asked at the same time."""


class DriversWord:
    """Asks the drivers of a server's contexts, as the owner nodes name them."""

    def __init__(self, coordination: Coordination, store: Metadata, connect: Connect) -> None:
        self._coordination = coordination
        self._store = store
        self._connect = connect

    async def __call__(self, server: ServerInfo, lost: Callable[[str], None]) -> None:
        """Calls `lost` with the id of each context whose driver has lost this life of the server."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(node: OwnerNode) -> None:
            async with turns:
                if await self._has_lost(node):
                    lost(node.context_id)

        nodes = list(self._coordination.owners.values())
        theirs = [
            node for node in nodes if (node.server, node.incarnation) == (server.id, server.incarnation)
        ]
        await asyncio.gather(*(ask(node) for node in theirs))

    async def _has_lost(self, node: OwnerNode) -> bool:
        try:
            context = await self._store.context(node.context_id)
            fence = await self._store.fence(node.context_id)
            if (
                context is None
                or context.driver is None
                or fence is None
                or fence.incarnation != node.incarnation
            ):
                return False
            return await self._says_lost(context.driver, fence)
        except JobServerError:
            return False

    async def _says_lost(self, driver: DriverRecord, fence: FenceRow) -> bool:
        link = await self._connect(driver, timeout=PATIENCE)
        try:
            answer = await link.request(Request.PING, timeout=PATIENCE)
        finally:
            await link.close()
        return answer.get("owner_lost") is True and answer.get("epoch") == fence.epoch
