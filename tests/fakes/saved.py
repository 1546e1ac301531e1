"""The parts of the metadata store in memory that keep saved things, callbacks and the audit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from jobserver.history import Operation
from jobserver.model import JobRecord
from jobserver.saved import Callback, CallbackState, SavedConfig, SavedQuery
from jobserver.store.acceptance import check_storable
from jobserver.store.audit import LONGEST_TARGET

T = TypeVar("T")
Item = TypeVar("Item", SavedConfig, SavedQuery)


@dataclass
class SavedTables:
    """Rows by name, or in the order in which they came."""

    configs: dict[str, SavedConfig] = field(default_factory=dict)
    queries: dict[str, SavedQuery] = field(default_factory=dict)
    callbacks: dict[str, Callback] = field(default_factory=dict)
    audit: list[Operation] = field(default_factory=list)


class Call(Protocol):
    """The way to the store: carries out an action, or loses it."""

    def __call__(self, operation: str, action: Callable[[], T]) -> Coroutine[Any, Any, T]: ...


class FakeSavedItems:
    """Does what `jobserver.store.saved.SavedItems` does."""

    def __init__(self, tables: SavedTables, call: Call) -> None:
        self._tables = tables
        self._call = call

    async def put_config(self, config: SavedConfig) -> bool:
        check_storable("the name", config.name)
        return await self._call("put_config", lambda: _put_kept(self._tables.configs, config))

    async def config(self, name: str) -> SavedConfig | None:
        return await self._call("config", lambda: self._tables.configs.get(name))

    async def configs(self, limit: int, after: str = "") -> list[SavedConfig]:
        return await self._call("configs", lambda: _page(self._tables.configs, limit, after))

    async def delete_config(self, name: str) -> bool:
        return await self._call("delete_config", lambda: self._tables.configs.pop(name, None) is not None)

    async def put_query(self, query: SavedQuery) -> bool:
        check_storable("the name", query.name)
        check_storable("the name of a context", query.context)
        return await self._call("put_query", lambda: _put_kept(self._tables.queries, query))

    async def query(self, name: str) -> SavedQuery | None:
        return await self._call("query", lambda: self._tables.queries.get(name))

    async def queries(self, limit: int, after: str = "") -> list[SavedQuery]:
        return await self._call("queries", lambda: _page(self._tables.queries, limit, after))

    async def delete_query(self, name: str) -> bool:
        return await self._call("delete_query", lambda: self._tables.queries.pop(name, None) is not None)


def _put_kept(table: dict[str, Any], item: SavedConfig | SavedQuery) -> bool:
    before = table.get(item.name)
    table[item.name] = item if before is None else replace(item, created_at=before.created_at)
    return before is None


def _page(table: dict[str, Item], limit: int, after: str) -> list[Item]:
    names = sorted(name for name in table if name > after)
    return [table[name] for name in names[: max(limit, 0)]]


class FakeCallbacks:
    """Does what `jobserver.store.callbacks.Callbacks` does."""

    def __init__(self, tables: SavedTables, jobs: dict[str, JobRecord], call: Call) -> None:
        self._rows = tables.callbacks
        self._jobs = jobs
        self._call = call

    async def due(self, now: datetime, limit: int) -> list[Callback]:
        def due() -> list[Callback]:
            found = [
                one
                for one in self._rows.values()
                if one.state is CallbackState.PENDING
                and one.next_at <= now
                and self._jobs[one.job_id].state.final
            ]
            return sorted(found, key=lambda one: one.next_at)[: max(limit, 0)]

        return await self._call("due_callbacks", due)

    async def of_job(self, job_id: str) -> Callback | None:
        return await self._call("callback_of_job", lambda: self._rows.get(job_id))

    async def take(self, callback: Callback, until: datetime) -> bool:
        return await self._change(
            callback.job_id,
            callback.tries,
            lambda one: replace(one, tries=one.tries + 1, next_at=until),
        )

    async def delivered(self, job_id: str, tries: int, at: datetime) -> bool:
        return await self._settle(job_id, tries, CallbackState.DELIVERED, at, None)

    async def failed(self, job_id: str, tries: int, error: str, next_at: datetime) -> bool:
        return await self._settle(job_id, tries, CallbackState.PENDING, next_at, error)

    async def given_up(self, job_id: str, tries: int, error: str, at: datetime) -> bool:
        return await self._settle(job_id, tries, CallbackState.FAILED, at, error)

    async def _settle(
        self, job_id: str, tries: int, state: CallbackState, at: datetime, error: str | None
    ) -> bool:
        return await self._change(
            job_id, tries, lambda one: replace(one, state=state, next_at=at, last_error=error)
        )

    async def _change(self, job_id: str, tries: int, change: Callable[[Callback], Callback]) -> bool:
        def write() -> bool:
            row = self._rows.get(job_id)
            if row is None or row.state is not CallbackState.PENDING or row.tries != tries:
                return False
            self._rows[job_id] = change(row)
            return True

        return await self._call("change_callback", write)


class FakeAuditLog:
    """Does what `jobserver.store.audit.AuditLog` does."""

    def __init__(self, tables: SavedTables, server: str, call: Call) -> None:
        self._rows = tables.audit
        self._server = server
        self._call = call

    async def add(self, operation: Operation) -> None:
        check_storable("the user's name", operation.principal)
        check_storable("the target", operation.target)
        written = replace(
            operation,
            server=operation.server or self._server,
            target=operation.target[:LONGEST_TARGET],
        )
        await self._call("add_operation", lambda: self._rows.append(written))

    async def newest(self, limit: int) -> list[Operation]:
        def newest() -> list[Operation]:
            numbered = sorted(enumerate(self._rows), key=lambda one: (one[1].at, one[0]), reverse=True)
            return [operation for _, operation in numbered[: max(limit, 0)]]

        return await self._call("newest_operations", newest)
