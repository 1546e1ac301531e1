"""Planned moves of contexts, asked for on any server: choose the next owner, tell the owner, wait for the gate (design 4.5)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ha.coordination import Coordination, OwnerNode
from ha.placement import move_targets
from jobserver.contexts.clock import now
from jobserver.contexts.peers import MoveOrder, Peers
from jobserver.contexts.registry import ContextRegistry
from jobserver.errors import MoveRefused, NotFound, OwnerUnavailable
from jobserver.model import ContextRecord, ContextState
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that was made: the servers, the new epoch, and how long it took in all, seconds."""

    context: str
    source: str
    target: str
    epoch: int
    seconds: float


class Switchover:
    """One per server. `ready_timeout`: how long the next owner may take to make a driver ready, seconds."""

    def __init__(
        self,
        me: str,
        store: Metadata,
        registry: ContextRegistry,
        coordination: Coordination,
        peers: Peers,
        *,
        ready_timeout: float,
    ) -> None:
        self._me = me
        self._store = store
        self._registry = registry
        self._coordination = coordination
        self._peers = peers
        self._ready_timeout = ready_timeout

    async def by_name(self, name: str, to: str | None, grace: float, *, keep_driver: bool) -> Moved:
        """Moves the living context of a name. Raises NotFound, MoveRefused, Unavailable."""
        context = await self._store.latest_context(name)
        if context is None or context.state.final:
            raise NotFound(f"context {name} not found")
        return await self.run(context, to, grace, keep_driver=keep_driver)

    async def run(self, context: ContextRecord, to: str | None, grace: float, *, keep_driver: bool) -> Moved:
        """Moves the context to `to`, or to the best server that can take it. Raises NotFound, MoveRefused, Unavailable."""
        began = now()
        node = self._registry.owner(context.id)
        if node is None or context.state is not ContextState.RUNNING:
            raise MoveRefused(
                f"context {context.name} has no owner or is {context.state.value} at this moment: repeat in a while"
            )
        targets = [self._chosen(to, node)] if to is not None else self._targets(context.id, node)
        for target in targets[:-1]:
            try:
                return await self._move(context, node, target, grace, keep_driver, began)
            except MoveRefused as refused:
                log.warning("context %s was not moved to %s: %s", context.name, target, refused.message)
        return await self._move(context, node, targets[-1], grace, keep_driver, began)

    def _chosen(self, to: str, node: OwnerNode) -> str:
        info = self._coordination.servers.get(to)
        if info is None:
            known = ", ".join(sorted(self._coordination.servers))
            raise NotFound(f"there is no server {to}; the servers are {known}")
        if to == node.server:
            raise MoveRefused(f"server {to} owns the context already")
        if info.draining:
            raise MoveRefused(f"server {to} is draining: choose another, or undrain it")
        return to

    def _targets(self, context_id: str, node: OwnerNode) -> list[str]:
        owners = self._coordination.owners.values()
        targets = move_targets(context_id, self._coordination.servers, owners, node.server)
        if not targets:
            raise MoveRefused("there is no other server that takes contexts: start one, or undrain one")
        return targets

    async def _move(
        self,
        context: ContextRecord,
        node: OwnerNode,
        target: str,
        grace: float,
        keep_driver: bool,
        began: float,
    ) -> Moved:
        order = MoveOrder(target, grace, keep_driver, self._ready_timeout)
        if self._registry.is_mine(context.id):
            await self._registry.move(context.id, order)
        else:
            await self._peers.move(self._registry.owner_url(context.id), context.id, order)
        await self._until_open(context.id, target)
        fence = await self._store.fence(context.id)
        epoch, owner = (fence.epoch, fence.owner) if fence else (0, None)
        if owner != target:
            raise MoveRefused(f"context {context.name} left {node.server}, but {owner} has it, not {target}")
        return Moved(context.name, node.server, target, epoch, round(now() - began, 3))

    async def _until_open(self, context_id: str, target: str) -> None:
        if target == self._me:
            await self._registry.claim(context_id, self._ready_timeout)
            return
        url = self._registry.url_of(target)
        if url is None:
            raise OwnerUnavailable(f"server {target} is gone")
        await self._peers.claim(url, context_id, seconds=self._ready_timeout)
