"""What operators and clients keep on record: saved configs, and the audit of what was done to the cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobserver.errors import JobServerError, NotFound
from jobserver.history import Operation
from jobserver.saved import SavedConfig, SavedQuery
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)


class Records:
    """The same on every server."""

    def __init__(self, store: Metadata) -> None:
        self._store = store

    async def configs(self, limit: int, after: str) -> list[SavedConfig]:
        """By name, from behind the name `after` on."""
        return await self._store.saved.configs(limit, after)

    async def config(self, name: str) -> SavedConfig:
        """Raises NotFound."""
        config = await self._store.saved.config(name)
        if config is None:
            raise NotFound(f"config {name} not found")
        return config

    async def save_config(self, name: str, body: Mapping[str, Any], principal: str) -> bool:
        """Whether the name is new; else what had it is replaced. Raises BadRequest."""
        now = datetime.now(UTC)
        return await self._store.saved.put_config(SavedConfig(name, body, principal, now, now))

    async def delete_config(self, name: str) -> None:
        """Raises NotFound."""
        if not await self._store.saved.delete_config(name):
            raise NotFound(f"config {name} not found")

    async def queries(self, limit: int, after: str) -> list[SavedQuery]:
        """By name, from behind the name `after` on."""
        return await self._store.saved.queries(limit, after)

    async def query(self, name: str) -> SavedQuery:
        """Raises NotFound."""
        query = await self._store.saved.query(name)
        if query is None:
            raise NotFound(f"query {name} not found")
        return query

    async def save_query(
        self, name: str, text: str, args: Mapping[str, Any], context: str | None, principal: str
    ) -> bool:
        """Whether the name is new; else what had it is replaced. `args`: values that a submission may replace."""
        now = datetime.now(UTC)
        query = SavedQuery(name, text, principal, now, now, context=context, defaults=args)
        return await self._store.saved.put_query(query)

    async def delete_query(self, name: str) -> None:
        """Raises NotFound."""
        if not await self._store.saved.delete_query(name):
            raise NotFound(f"query {name} not found")

    async def operations(self, limit: int) -> list[Operation]:
        """What was done last, newest first."""
        return await self._store.audit.newest(limit)

    async def note(self, principal: str, action: str, target: str, detail: Mapping[str, Any]) -> None:
        """Appends to the audit what has been done. It is done, so a store that fails is told to the log only."""
        operation = Operation(datetime.now(UTC), principal, action, target, detail)
        try:
            await self._store.audit.add(operation)
        except JobServerError as error:
            log.error(
                "not in the audit: %s did %s on %s (%s): %s", principal, action, target, detail, error.message
            )


def laid_under(saved: Mapping[str, Any], posted: Mapping[str, Any]) -> dict[str, Any]:
    """The posted configuration over a saved one, key by key; objects are merged, all else is replaced. Pure."""
    merged = dict(saved)
    for key, value in posted.items():
        below = merged.get(key)
        merged[key] = (
            laid_under(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged
