"""Contexts whose takeover cannot succeed: they are tried at a pace, can still be deleted, and nothing is started to be ended."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ha.ownership import BACK_OFF
from jobserver.model import ContextState
from tests.fakes.cluster import FakeCluster, until


@pytest.fixture
async def cluster(tmp_path):
    made = FakeCluster(tmp_path)
    yield made
    await made.close()
    assert not made.launcher.living()


async def test_a_context_that_no_driver_can_be_started_for_is_tried_at_a_pace(cluster, caplog):
    server = await cluster.start("s1")
    await server.contexts.create("ctx", {})
    cluster.launcher.broken = "no memory"
    caplog.set_level(logging.INFO, logger="jobserver.contexts.keeper")
    cluster.driver().kill()
    await until(lambda: "give the context back" in caplog.text, "the first takeover has failed")
    await asyncio.sleep(BACK_OFF / 2)  # nothing may happen meanwhile: that is what is tested
    assert caplog.text.count("give the context back") == 1
    cluster.launcher.broken = None
    await until(lambda: server.registry.owned(), "it is tried again", BACK_OFF + 5)


async def test_a_context_that_cannot_be_restored_can_be_deleted_without_another_driver(cluster):
    first, second = [await cluster.start(name) for name in ("s1", "s2")]
    context = await first.contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = second if owner is first else first
    cluster.launcher.broken = "no memory"
    started = len(cluster.launcher.drivers)
    cluster.driver().kill()
    await cluster.kill(owner)
    assert await other.contexts.delete("ctx", force=False)
    assert (await other.contexts.view("ctx")).record.state is ContextState.FINISHED
    assert len(cluster.launcher.drivers) == started


async def test_a_forced_deletion_replaces_no_driver(cluster):
    server = await cluster.start("s1")
    await server.contexts.create("ctx", {})
    assert await server.contexts.delete("ctx", force=True)
    assert len(cluster.launcher.drivers) == 1
    assert (await server.contexts.view("ctx")).record.state is ContextState.FINISHED
