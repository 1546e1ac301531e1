"""Fences: of many owners one may write. What every metadata store promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from store_records import GUARDED_WRITES, GuardedWrite, Store, a_context, a_job, owned, running

from jobserver.model import Fence, FenceRow


async def test_a_grant_raises_the_fence_by_one(store: Store, other: Store) -> None:
    await store.create_context(a_context())
    assert await store.grant("c1", 0, "s1", "i1", "t1")
    assert await other.fence("c1") == FenceRow("c1", 1, "s1", "i1", "t1")
    assert await other.grant("c1", 1, "s2", "i2", "t2")
    assert await store.fences(["c1", "c2"]) == {"c1": FenceRow("c1", 2, "s2", "i2", "t2")}


async def test_a_grant_from_an_epoch_that_has_passed_is_refused(store: Store, other: Store) -> None:
    await owned(store)
    before = await store.fence("c1")
    assert not await other.grant("c1", 0, "s2", "i2", "t2")
    assert not await other.grant("c1", 2, "s2", "i2", "t2")
    assert not await other.grant("unknown", 0, "s2", "i2", "t2")
    assert await store.fence("c1") == before


async def test_of_servers_that_grant_themselves_one_epoch_exactly_one_wins(
    store: Store, other: Store
) -> None:
    await store.create_context(a_context())
    for epoch in range(10):
        servers = [store, other] * 4
        calls = [one.grant("c1", epoch, f"s{n}", "i", f"t{epoch}-{n}") for n, one in enumerate(servers)]
        won = await asyncio.gather(*calls)
        assert won.count(True) == 1
        fence = await other.fence("c1")
        assert fence is not None
        assert (fence.epoch, fence.token) == (epoch + 1, f"t{epoch}-{won.index(True)}")


@pytest.mark.parametrize("write", GUARDED_WRITES.values(), ids=GUARDED_WRITES)
async def test_a_superseded_owner_changes_nothing(store: Store, other: Store, write: GuardedWrite) -> None:
    stale = await owned(store)
    await running(store, stale, a_job("running"))
    await store.insert_job(a_job("waiting"), queue_limit=100)
    assert await other.grant("c1", 1, "s2", "i2", "t2")
    before = (await store.context("c1"), await store.job("running"), await store.job("waiting"))
    assert not await write(store, stale)
    assert not await write(store, replace(stale, epoch=2))
    assert not await write(store, replace(stale, epoch=1, token="t2"))
    assert (await store.context("c1"), await store.job("running"), await store.job("waiting")) == before
    assert await write(other, Fence("c1", 2, "t2"))


@pytest.mark.parametrize("name", ["start_attempt", "finish_job", "restart_job", "end_waiting_job"])
async def test_the_owner_of_another_context_changes_no_job_of_this_one(store: Store, name: str) -> None:
    fence = await owned(store)
    stranger = await owned(store, a_context("c2", "other"))
    await running(store, fence, a_job("running"))
    await store.insert_job(a_job("waiting"), queue_limit=100)
    assert not await GUARDED_WRITES[name](store, stranger)
    assert await GUARDED_WRITES[name](store, fence)
