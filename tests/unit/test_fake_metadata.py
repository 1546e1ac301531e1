"""The store in memory has the port of the real one, and loses replies where its link says so."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import pytest

from jobserver.errors import OutcomeUnknown, StoreUnavailable
from jobserver.model import ContextRecord, ContextState
from jobserver.store.audit import AuditLog
from jobserver.store.callbacks import Callbacks
from jobserver.store.metadata import Metadata
from jobserver.store.saved import SavedItems
from tests.fakes.database import FakeStore, Link
from tests.fakes.metadata import FakeMetadata
from tests.fakes.saved import FakeAuditLog, FakeCallbacks, FakeSavedItems

PARTS: list[tuple[type, type]] = [
    (Metadata, FakeMetadata),
    (SavedItems, FakeSavedItems),
    (Callbacks, FakeCallbacks),
    (AuditLog, FakeAuditLog),
]
METHODS = [
    (real, fake, name)
    for real, fake in PARTS
    for name, _ in inspect.getmembers(real, inspect.iscoroutinefunction)
    if not name.startswith("_") and name != "open"
]


@pytest.mark.parametrize(
    ("real", "fake", "name"), METHODS, ids=[f"{real.__name__}.{name}" for real, _, name in METHODS]
)
def test_the_fake_takes_what_the_real_store_takes(real: type, fake: type, name: str) -> None:
    assert inspect.signature(getattr(fake, name)) == inspect.signature(getattr(real, name))


class LinkThatLosesTheReply(Link):
    async def after(self, operation: str) -> None:
        raise OutcomeUnknown(f"the reply to {operation} was lost")


class LinkThatIsDown(Link):
    async def before(self, operation: str) -> None:
        raise StoreUnavailable(f"{operation} did not arrive")


CONTEXT = ContextRecord("c1", "ctx", {}, ContextState.STARTED, False, datetime(2026, 1, 1, tzinfo=UTC))


async def test_a_lost_reply_leaves_the_write_done() -> None:
    store = FakeStore()
    with pytest.raises(OutcomeUnknown):
        await FakeMetadata(store, LinkThatLosesTheReply()).create_context(CONTEXT)
    assert await FakeMetadata(store).context("c1") == CONTEXT


async def test_a_call_that_did_not_arrive_leaves_nothing() -> None:
    store = FakeStore()
    with pytest.raises(StoreUnavailable):
        await FakeMetadata(store, LinkThatIsDown()).create_context(CONTEXT)
    assert store == FakeStore()
