"""Who owns a context, on whole servers in one process: fences, incumbents, latecomers, what drivers say, late statements."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ha.coordination import OwnerNode
from ha.ownership import Phase
from jobserver.contexts.drivers_word import DriversWord
from jobserver.contexts.link import DriverLink
from jobserver.errors import (
    OwnerUnavailable,
)
from jobserver.model import ContextState, JobState
from tests.fakes.cluster import FakeCluster, submission, until


@pytest.fixture
async def cluster(tmp_path):
    made = FakeCluster(tmp_path)
    yield made
    await made.close()
    assert not made.launcher.living()


@pytest.fixture
async def three(cluster):
    return [await cluster.start(name) for name in ("s1", "s2", "s3")]


def job_of(cluster, job_id):
    return cluster.store.jobs[job_id]


async def test_a_superseded_owner_commits_nothing_and_steps_down(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    job = (await owner.jobs.submit(submission("hold", sync=False))).job
    owner.coordination.cut()
    cluster.ensemble.expire(owner.me.id)
    await until(lambda: context.id in cluster.ensemble.owners, "another server was elected")
    successor = cluster.owner(context.id)
    assert successor is not owner
    await until(lambda: successor.registry.owned(), "the gate is open")
    await until(lambda: not owner.registry.owned(), "the old owner stepped down")
    cluster.driver().finish(job.id, "9")
    await until(lambda: job_of(cluster, job.id).state is JobState.FINISHED, "the new owner committed it")
    owner.coordination.heal()
    assert cluster.owner(context.id) is successor


async def test_an_incumbent_keeps_its_context_when_the_session_was_lost_and_is_back(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    for server in three:
        server.coordination.cut()
    for server in three:
        cluster.ensemble.expire(server.me.id)
    assert (await owner.jobs.submit(submission("answer:1"))).job.result == "1", "it serves throughout"
    for server in three:
        server.coordination.heal()
    await until(lambda: context.id in cluster.ensemble.owners, "the node stands again")
    assert cluster.owner(context.id) is owner
    assert cluster.store.fences[context.id].epoch == 1
    assert (await three[1].jobs.submit(submission("answer:2"))).job.result == "2"


async def test_a_late_picture_of_the_replaced_owner_does_not_make_its_successor_step_down(cluster, three):
    """The election's reply comes before the watch: until then the caches still show the dead owner's node."""
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    await cluster.kill(owner, notice=False)
    cluster.ensemble.late = []
    others = [server for server in three if server is not owner]
    for server in others:
        server.registry._server_died(owner.me)
    await until(lambda: cluster.owner(context.id) is not owner, "another server was elected")
    successor = cluster.owner(context.id)
    await until(lambda: successor.registry.owned(), "the gate is open")
    assert (await successor.jobs.submit(submission("answer:1"))).job.result == "1"
    cluster.ensemble.tell_late()
    assert (await others[0].jobs.submit(submission("answer:2"))).job.result == "2"
    assert cluster.owner(context.id) is successor
    assert cluster.store.fences[context.id].epoch == 2


async def test_after_a_wipe_of_zookeeper_a_successor_with_a_lower_count_is_seen(cluster, three):
    """Counts of elections begin anew with the nodes, so a lower one does not mean an older picture."""
    context = await three[0].contexts.create("ctx", {})
    await cluster.kill(cluster.owner(context.id))
    await until(lambda: context.id in cluster.ensemble.owners, "another server owns it")
    owner = cluster.owner(context.id)
    await until(lambda: owner.registry.owned(), "the gate is open")
    assert cluster.ensemble.elections[context.id] == 2
    successor = next(server for server in three if server.alive and server is not owner)
    cluster.ensemble.elections[context.id] = 1
    cluster.ensemble.owners[context.id] = OwnerNode(context.id, successor.me.id, successor.me.incarnation, 1)
    cluster.ensemble.tell_owner(context.id)
    await until(lambda: not owner.registry.is_mine(context.id), "the owner has stepped down")


async def test_a_server_that_has_left_is_asked_in_vain_to_own_a_context(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    gone = cluster.owner(context.id)
    await gone.registry.leave()
    with pytest.raises(OwnerUnavailable, match="leaving"):
        await gone.registry.claim(context.id, 1.0)
    assert not gone.registry.is_mine(context.id)


async def test_drivers_say_whether_they_have_lost_a_server_that_is_asked_about(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    one, other = (server for server in three if server is not owner)
    word = DriversWord(other.coordination, other.store, DriverLink.connect)

    async def lost(server):
        said = []
        await word(server.me, said.append)
        return said

    assert await lost(owner) == await lost(one) == []
    await cluster.kill(owner, notice=False)
    await until(lambda: cluster.driver().owner_lost, "the driver's owner is gone")
    assert await lost(owner) == [context.id]
    cluster.driver().freeze()
    assert await lost(owner) == [], "who says nothing has said nothing"
    cluster.driver().thaw()
    cluster.ensemble.expire(owner.me.id)
    await until(lambda: one.registry.owned() or other.registry.owned(), "another server has it")
    assert await lost(owner) == await lost(cluster.owner(context.id)) == []


async def test_a_drivers_word_about_an_epoch_that_is_over_counts_for_nothing(cluster, three):
    """An owner that replaces a driver has raised the epoch before it lets go of the old one."""
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    await cluster.kill(owner, notice=False)
    await until(lambda: cluster.driver().owner_lost, "the driver's owner is gone")
    fence = cluster.store.fences[context.id]
    cluster.store.fences[context.id] = replace(fence, epoch=fence.epoch + 1)
    said = []
    await DriversWord(other.coordination, other.store, DriverLink.connect)(owner.me, said.append)
    assert said == []


async def test_a_late_repetition_of_the_takeovers_own_statement_is_repaired_by_the_sweep(cluster, three):
    """A connection broke, the statement was repeated, and the first one was carried out at last: the gate is open by then."""
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    cluster.driver().kill()
    await until(lambda: cluster.store.contexts[context.id].last_failover, "restored")
    cluster.store.contexts[context.id] = replace(
        cluster.store.contexts[context.id], state=ContextState.RESTARTING
    )
    await owner.registry.sweep()
    await until(lambda: cluster.store.contexts[context.id].state is ContextState.RUNNING, "it runs")


async def test_after_zookeeper_was_away_nobody_takes_a_context_from_an_owner_that_comes_back_last(
    cluster, three
):
    """All sessions are over; the others are back first, look at the missing owner node more than once, and one leads."""
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    others = [server for server in three if server is not owner]
    for server in three:
        server.coordination.cut()
    for server in three:
        cluster.ensemble.expire(server.me.id)
    for server in others:
        server.coordination.heal()
    for _ in range(3):
        cluster.ensemble.tell_owner(context.id)
        await asyncio.gather(*(server.contexts.claim_unowned(older_than=0.0) for server in others))
    phases = [server.registry.keeper(context.id) for server in others]
    await until(lambda: all(keeper.phase is Phase.WATCHING for keeper in phases), "they have asked the owner")
    assert context.id not in cluster.ensemble.owners
    owner.coordination.heal()
    await until(lambda: context.id in cluster.ensemble.owners, "the owner makes its node again")
    assert cluster.owner(context.id) is owner
    assert (await others[0].contexts.view("ctx")).epoch == 1
