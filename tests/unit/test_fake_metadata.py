"""The store in memory has the port of the real one, and loses replies where its link says so."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import pytest

from jobserver.errors import OutcomeUnknown, StoreUnavailable
from jobserver.model import ContextRecord, ContextState
from jobserver.store.metadata import Metadata
from tests.fakes.metadata import FakeMetadata, FakeStore, Link

METHODS = [
    name for name, _ in inspect.getmembers(Metadata, inspect.iscoroutinefunction) if not name.startswith("_")
]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "open"])
def test_the_fake_takes_what_the_real_store_takes(name: str) -> None:
    assert inspect.signature(getattr(FakeMetadata, name)) == inspect.signature(getattr(Metadata, name))


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
