"""What the standbys of contexts have ready at this moment, whatever the settings wish for; asked of the servers that have it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ha.coordination import Coordination, ServerInfo
from ha.placement import standby_order
from jobserver.contexts.peers import Peers
from jobserver.errors import OwnerUnavailable
from jobserver.model import ContextRecord

log = logging.getLogger(__name__)

Picture = dict[str, Any]
"""`server` and `mode`; of a hot one also `manifest`, the newest that it has read, and `age`, seconds since it looked,
and `rehearsed`, whether its first answers will be quick."""
Progress = dict[str, dict[str, Any]]


class Readiness:
    """`fits_pool`: whether a warm driver of the servers' pools would be taken for the context."""

    def __init__(
        self, coordination: Coordination, peers: Peers, fits_pool: Callable[[ContextRecord], bool]
    ) -> None:
        self._coordination = coordination
        self._peers = peers
        self._fits_pool = fits_pool

    async def of(self, contexts: Sequence[ContextRecord]) -> dict[str, tuple[Picture, ...]]:
        """The servers next in line of each living context, in their order, by context id."""
        living = [context for context in contexts if not context.state.final]
        servers, owners = self._coordination.servers, self._coordination.owners
        wanted = {context.id for context in living}
        asked = [info for info in servers.values() if wanted.intersection(info.hot)]
        told = dict(
            zip(
                [info.id for info in asked],
                await asyncio.gather(*(self._behind(info) for info in asked)),
                strict=True,
            )
        )
        pictures: dict[str, tuple[Picture, ...]] = {context.id: () for context in contexts}
        for context in living:
            owner = owners.get(context.id)
            pictures[context.id] = tuple(
                self._picture(context, servers[server], told.get(server, {}))
                for server in standby_order(context.id, servers)
                if owner is None or server != owner.server
            )
        return pictures

    async def _behind(self, info: ServerInfo) -> Progress:
        try:
            return await self._peers.behind(info.url)
        except OwnerUnavailable as error:
            log.warning("how far the hot drivers of %s have read is not known: %s", info.id, error.message)
            return {}

    def _picture(self, context: ContextRecord, info: ServerInfo, told: Progress) -> Picture:
        if context.id in info.hot:
            return {"server": info.id, "mode": "hot", **told.get(context.id, {})}
        warm = info.warm > 0 and self._fits_pool(context)
        return {"server": info.id, "mode": "warm" if warm else "cold"}
