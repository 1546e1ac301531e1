"""Named objects as any server shows and changes them: found at their owner, asked of its driver.

A context that is being taken over is waited for; who waits too long gets OwnerUnavailable, which is a 503.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from jobserver.contexts.clock import now, seconds_left
from jobserver.contexts.object_orders import Found
from jobserver.contexts.peers import Peers
from jobserver.contexts.registry import ContextRegistry
from jobserver.errors import NotFound, OwnerUnavailable
from jobserver.model import ContextRecord, NamedObjectInfo, ObjectDeed, ObjectOrder
from jobserver.store.metadata import Metadata

T = TypeVar("T")

RETRY = 0.1
"""Seconds between two looks for the owner."""


class ObjectDesk:
    """One per server. `patience`: seconds that a request waits for a context in takeover."""

    def __init__(self, store: Metadata, registry: ContextRegistry, peers: Peers, *, patience: float) -> None:
        self._store = store
        self._registry = registry
        self._peers = peers
        self._patience = patience

    async def list(self, context: str) -> list[NamedObjectInfo]:
        """Named objects of a living context. Raises NotFound, OwnerUnavailable."""
        found = await self._asked(
            context,
            lambda context_id: self._registry.objects(context_id),
            lambda url, context_id: self._peers.objects(url, context_id),
        )
        return [_info(item) for item in found]

    async def summary(self, context: ContextRecord) -> dict[str, Any] | None:
        """The named objects as a whole; None where their owner does not tell of them at this moment."""
        if context.state.final:
            return None
        try:
            if self._registry.is_mine(context.id):
                return await self._registry.data(context.id)
            return await self._peers.data(self._registry.owner_url(context.id), context.id)
        except OwnerUnavailable:
            return None

    async def carry_out(self, context: str, order: ObjectOrder) -> NamedObjectInfo | None:
        """Show or change one object; None once it is destroyed. Raises NotFound, ObjectRefused, OwnerUnavailable."""
        tries = 0

        def counted(answer: Awaitable[Found]) -> Awaitable[Found]:
            nonlocal tries
            tries += 1
            return answer

        try:
            found = await self._asked(
                context,
                lambda context_id: counted(self._registry.object(context_id, order)),
                lambda url, context_id: counted(self._peers.object(url, context_id, order)),
            )
        except NotFound:
            # an earlier try, whose answer was lost with its driver or owner, has destroyed it
            if order.deed is ObjectDeed.DESTROY and tries > 1:
                return None
            raise
        return None if found is None else _info(found)

    async def _asked(
        self,
        name: str,
        here: Callable[[str], Awaitable[T]],
        there: Callable[[str, str], Awaitable[T]],
    ) -> T:
        """The answer of the owner, whoever that is by then."""
        deadline = now() + self._patience
        while True:
            context = await self._living(name)
            try:
                if self._registry.is_mine(context.id):
                    return await here(context.id)
                return await there(self._registry.owner_url(context.id), context.id)
            except OwnerUnavailable:
                if (left := seconds_left(deadline)) <= 0:
                    raise
                await self._registry.change(min(RETRY, left))

    async def _living(self, name: str) -> ContextRecord:
        context = await self._store.latest_context(name)
        if context is None or context.state.final:
            raise NotFound(f"context {name} not found")
        return context


def _info(item: dict[str, Any]) -> NamedObjectInfo:
    details = {key: value for key, value in item.items() if key not in ("name", "kind", "version")}
    return NamedObjectInfo(item["name"], item["kind"], item["version"], details)
