"""The metadata store in memory: the same port and promises as `jobserver.store.metadata.Metadata`, no threads, no clock.

One `FakeStore` is the database; each server has its own `FakeMetadata` on it, with its own `Link`. A link decides what
happens to a call: a subclass raises in `before` (the call never arrived) or in `after` (done, and the reply was lost).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from jobserver.errors import ContextExists, StoreUnavailable
from jobserver.lifecycle import (
    ACCEPTING_CONTEXT_STATES,
    LISTED_CONTEXT_STATES,
    context_sources,
)
from jobserver.model import (
    BinaryRecord,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    Fence,
    FenceRow,
    NamedContext,
    References,
)
from jobserver.store.acceptance import check_storable
from tests.fakes.database import FakeStore, Link
from tests.fakes.jobs import FakeJobs
from tests.fakes.saved import FakeAuditLog, FakeCallbacks, FakeSavedItems


class FakeMetadata(FakeJobs):
    """One server's access to a FakeStore; every method does what the one of the same name in `Metadata` does."""

    def __init__(self, store: FakeStore, link: Link | None = None, server: str = "") -> None:
        super().__init__(store, link, server)
        self.saved = FakeSavedItems(store.saved, self._call)
        self.callbacks = FakeCallbacks(store.saved, store.jobs, self._call)
        self.audit = FakeAuditLog(store.saved, server, self._call)

    async def close(self) -> None:
        """Nothing is held."""

    async def upgrade(self) -> None:
        """Always current."""

    async def write_trouble(self) -> str | None:
        return None

    async def check(self) -> None:
        """Always current."""

    async def schema_current(self) -> str | None:
        return "fake"

    async def put_binary(self, record: BinaryRecord) -> None:
        check_storable("the name", record.name)

        def put() -> None:
            self._refuse_removed(record.digest)
            self._store.binaries.append(record)

        await self._call("put_binary", put)

    async def keep_binary(self, digest: str, size: int, at: datetime) -> None:
        await self._call("keep_binary", lambda: self._refuse_removed(digest))

    def _refuse_removed(self, digest: str) -> None:
        if digest in self._store.removing:
            raise StoreUnavailable(f"the bytes of {digest} are being removed")

    async def list_binaries(self) -> list[BinaryRecord]:
        def latest() -> list[BinaryRecord]:
            return sorted({one.name: one for one in self._store.binaries}.values(), key=lambda one: one.name)

        return await self._call("list_binaries", latest)

    async def find_binary(self, name: str) -> BinaryRecord | None:
        def latest() -> BinaryRecord | None:
            return next((one for one in reversed(self._store.binaries) if one.name == name), None)

        return await self._call("find_binary", latest)

    async def references(self, names: Sequence[str], context: str | None) -> References:
        def found() -> References:
            living = next((one for one in self._store.living() if one.name == context), None)
            return References(
                tuple(self._store.latest(name) for name in names),
                None
                if living is None
                else NamedContext(living.id, living.name, living.state, living.settings),
            )

        return await self._call("references", found)

    async def delete_binary(self, name: str) -> bool:
        def delete() -> bool:
            kept = [one for one in self._store.binaries if one.name != name]
            found = len(kept) < len(self._store.binaries)
            self._store.binaries[:] = kept
            return found

        return await self._call("delete_binary", delete)

    async def jobs_using_binary(self, name: str) -> list[str]:
        def using() -> list[str]:
            return sorted({job for job, ref in self._store.needed_binaries() if ref.name == name})

        return await self._call("jobs_using_binary", using)

    async def digest_in_use(self, digest: str) -> bool:
        def used() -> bool:
            needed = {ref.digest for _, ref in self._store.needed_binaries()}
            return digest in needed or any(one.digest == digest for one in self._store.binaries)

        return await self._call("digest_in_use", used)

    async def create_context(self, record: ContextRecord, *, restored_from: str | None = None) -> None:
        check_storable("the name", record.name)

        def create() -> None:
            existing = self._store.contexts.get(record.id)
            if existing is not None and existing.name == record.name:
                return
            if existing is not None or any(one.name == record.name for one in self._store.living()):
                raise ContextExists(f"context {record.name} exists")
            self._store.contexts[record.id] = record
            self._store.fences[record.id] = FenceRow(record.id, 0, "", "", "")
            needed = [digest for context, digest in self._store.needs if context == restored_from]
            self._store.needs |= {(record.id, digest) for digest in needed}

        await self._call("create_context", create)

    async def context(self, context_id: str) -> ContextRecord | None:
        return await self._call("context", lambda: self._store.contexts.get(context_id))

    async def latest_context(self, name: str) -> ContextRecord | None:
        def latest() -> ContextRecord | None:
            named = [one for one in self._store.contexts.values() if one.name == name]
            return max(named, key=lambda one: (not one.state.final, one.started_at), default=None)

        return await self._call("latest_context", latest)

    async def active_contexts(self) -> list[ContextRecord]:
        return await self._call("active_contexts", self._store.living)

    async def listed_contexts(self) -> list[ContextRecord]:
        def listed() -> list[ContextRecord]:
            return [one for one in reversed(self._store.living()) if one.state in LISTED_CONTEXT_STATES]

        return await self._call("listed_contexts", listed)

    async def move_context(
        self,
        fence: Fence,
        allowed_from: Collection[ContextState],
        to: ContextState,
        *,
        at: datetime,
        error: ErrorInfo | None = None,
    ) -> bool:
        sources = context_sources(to, allowed_from)

        def move() -> bool:
            record = self._store.contexts.get(fence.context_id)
            if record is None or record.state not in sources:
                return False
            ended_at = at if to.final else record.ended_at
            return self._store.change_context(fence, state=to, error=error, ended_at=ended_at)

        return await self._call("move_context", move)

    async def record_driver(self, fence: Fence, driver: DriverRecord | None) -> bool:
        return await self._call("record_driver", lambda: self._store.change_context(fence, driver=driver))

    async def record_failover(self, fence: Fence, failover: Failover) -> bool:
        return await self._call(
            "record_failover", lambda: self._store.change_context(fence, last_failover=failover)
        )

    async def request_stop(self, context_id: str) -> bool:
        def stop() -> bool:
            record = self._store.contexts.get(context_id)
            if record is None or record.state not in ACCEPTING_CONTEXT_STATES:
                return False
            self._store.contexts[context_id] = replace(record, state=ContextState.STOPPING)
            return True

        return await self._call("request_stop", stop)

    async def fence(self, context_id: str) -> FenceRow | None:
        return await self._call("fence", lambda: self._store.fences.get(context_id))

    async def fences(self, ids: Collection[str]) -> dict[str, FenceRow]:
        def some() -> dict[str, FenceRow]:
            return {one: self._store.fences[one] for one in ids if one in self._store.fences}

        return await self._call("fences", some)

    async def grant(
        self, context_id: str, expected_epoch: int, owner: str, incarnation: str, token: str
    ) -> bool:
        def raise_fence() -> bool:
            row = self._store.fences.get(context_id)
            if row is None or row.epoch != expected_epoch:
                return False
            self._store.fences[context_id] = FenceRow(
                context_id, expected_epoch + 1, owner, incarnation, token
            )
            return True

        return await self._call("grant", raise_fence)
