"""Named objects asked of whole servers in one process with drivers without Spark, through takeovers."""

from __future__ import annotations

import asyncio

import pytest

from jobserver.errors import (
    NotFound,
    ObjectRefused,
    OwnerUnavailable,
)
from jobserver.model import ObjectDeed, ObjectOrder
from jobserver.protocol import Request
from tests.fakes.cluster import FakeCluster


@pytest.fixture
async def cluster(tmp_path):
    made = FakeCluster(tmp_path)
    yield made
    await made.close()
    assert not made.launcher.living()


@pytest.fixture
async def three(cluster):
    return [await cluster.start(name) for name in ("s1", "s2", "s3")]


ROWS = {"name": "rows", "kind": "dataframe", "version": "1-1", "strategy": "materialize"}


async def test_every_server_shows_and_destroys_the_named_objects_of_a_context(cluster, three):
    await three[0].contexts.create("ctx", {})
    for server in three:
        cluster.driver().objects["rows"] = ROWS
        assert [item.name for item in await server.objects.list("ctx")] == ["rows"]
        found = await server.objects.carry_out("ctx", ObjectOrder("rows"))
        assert (found.kind, found.details) == ("dataframe", {"strategy": "materialize"})
        with pytest.raises(ObjectRefused, match="it was materialized"):
            await server.objects.carry_out("ctx", ObjectOrder("rows", ObjectDeed.REFRESH))
        assert await server.objects.carry_out("ctx", ObjectOrder("rows", ObjectDeed.DESTROY)) is None
        with pytest.raises(NotFound, match="no such object"):
            await server.objects.carry_out("ctx", ObjectOrder("rows", ObjectDeed.DESTROY))
        with pytest.raises(NotFound, match="nowhere"):
            await server.objects.list("nowhere")


async def test_a_request_for_objects_in_the_middle_of_a_takeover_is_answered_after_it(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    cluster.driver().objects["rows"] = ROWS
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    await cluster.kill(owner, notice=False)
    asked = asyncio.create_task(other.objects.carry_out("ctx", ObjectOrder("rows")))
    await asyncio.sleep(0)
    cluster.ensemble.expire(owner.me.id)
    assert (await asked).version == "1-1"


async def test_a_request_for_objects_of_a_context_that_nobody_takes_is_unavailable(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    other.objects._patience = 0.3
    await cluster.kill(owner, notice=False)
    with pytest.raises(OwnerUnavailable):
        await other.objects.list("ctx")


async def test_an_object_whose_destruction_was_confirmed_to_nobody_is_destroyed_once(cluster, three):
    await three[0].contexts.create("ctx", {})
    cluster.driver().objects["rows"] = ROWS
    cluster.driver().lose_replies_to.add(Request.OBJECT)
    assert await three[1].objects.carry_out("ctx", ObjectOrder("rows", ObjectDeed.DESTROY)) is None
