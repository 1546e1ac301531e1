"""Whole servers in one process, over real sockets to drivers without Spark: contexts made, taken over, ended."""

from __future__ import annotations

import asyncio

import pytest

from jobserver.errors import (
    ContextExists,
    ContextInitFailed,
    ContextStopping,
    NotFound,
)
from jobserver.model import ContextState, JobState
from jobserver.protocol import Request
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


async def test_every_server_takes_every_request(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    assert context.state is ContextState.RUNNING
    for server in three:
        done = await server.jobs.submit(submission("answer:42"))
        assert (done.job.state, done.job.result) == (JobState.FINISHED, "42")
        assert (await server.contexts.view("ctx")).epoch == 1
    assert len(cluster.launcher.drivers) == 1


async def test_a_second_context_of_the_name_is_refused(three):
    await three[0].contexts.create("ctx", {})
    with pytest.raises(ContextExists):
        await three[1].contexts.create("ctx", {})


async def test_a_driver_that_cannot_start_fails_the_creation_and_leaves_no_living_context(cluster, three):
    cluster.launcher.broken = "no memory"
    with pytest.raises(ContextInitFailed, match="no memory"):
        await three[0].contexts.create("ctx", {})
    assert (await three[1].contexts.view("ctx")).record.state is ContextState.ERROR
    cluster.launcher.broken = None
    await three[1].contexts.create("ctx", {})


async def test_a_dead_servers_driver_is_adopted_and_its_running_job_is_untouched(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    waiting = asyncio.create_task(other.jobs.submit(submission("hold")))
    await until(lambda: cluster.driver().started, "the job runs")
    await cluster.kill(owner)
    await until(lambda: context.id in cluster.ensemble.owners, "another server owns it")
    await until(lambda: cluster.owner(context.id).registry.owned(), "the gate is open")
    assert len(cluster.launcher.drivers) == 1
    cluster.driver().finish(cluster.driver().started[0].job_id, '"done"')
    answer = await waiting
    assert (answer.job.result, answer.job.attempt) == ('"done"', 1)
    view = await other.contexts.view("ctx")
    assert view.epoch == 2
    assert view.record.last_failover.kind == "adopted"


async def test_a_dead_driver_is_replaced_by_its_own_server_and_the_job_runs_again(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    waiting = asyncio.create_task(three[1].jobs.submit(submission("hold")))
    await until(lambda: cluster.driver().started, "the job runs")
    cluster.driver().kill()
    await until(lambda: cluster.launcher.living() and cluster.driver().started, "it runs in another driver")
    cluster.driver().finish(cluster.driver().started[0].job_id, "1")
    answer = await waiting
    assert (answer.job.attempt, answer.job.deaths, answer.job.result) == (2, 1, "1")
    assert cluster.owner(context.id) is owner
    assert cluster.store.fences[context.id].epoch == 2


async def test_server_and_driver_lost_together_are_both_replaced(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    waiting = asyncio.create_task(other.jobs.submit(submission("hold")))
    await until(lambda: cluster.driver().started, "the job runs")
    await cluster.kill(owner, notice=False)
    cluster.driver().kill()
    cluster.ensemble.expire(owner.me.id)
    await until(lambda: cluster.launcher.living() and cluster.driver().started, "it runs again")
    cluster.driver().finish(cluster.driver().started[0].job_id, "2")
    assert (await waiting).job.result == "2"


async def test_an_adopt_whose_reply_is_lost_spends_the_epoch(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    cluster.driver().lose_replies_to.add(Request.ADOPT)
    await cluster.kill(cluster.owner(context.id))
    await until(lambda: cluster.driver().epoch == 3, "adopted under the next epoch")
    assert len(cluster.launcher.drivers) == 1


async def test_a_restarted_server_adopts_its_own_drivers(cluster):
    alone = await cluster.start("s1")
    context = await alone.contexts.create("ctx", {})
    driver = cluster.driver()
    await cluster.kill(alone)
    again = await cluster.start("s1")
    await until(lambda: again.registry.owned(), "owned again")
    assert cluster.driver() is driver
    assert (await again.jobs.submit(submission("answer:3"))).job.result == "3"
    assert cluster.store.fences[context.id].epoch == 2


async def test_a_frozen_driver_is_ended_and_replaced(cluster, three):
    await three[0].contexts.create("ctx", {})
    frozen = cluster.driver()
    frozen.freeze()
    await until(lambda: not frozen.alive, "it was ended")
    done = await three[1].jobs.submit(submission("answer:5"))
    assert done.job.result == "5"


async def test_deleting_a_context_ends_it_first_and_its_jobs_second(cluster, three):
    await three[0].contexts.create("ctx", {})
    waiting = asyncio.create_task(three[1].jobs.submit(submission("hold")))
    await until(lambda: cluster.driver().started, "the job runs")
    assert await three[2].contexts.delete("ctx", force=False)
    answer = await waiting
    assert answer.job.state is JobState.ERROR
    assert answer.job.error.message == "Context (ctx) for this job was terminated"
    assert (await three[0].contexts.view("ctx")).record.state is ContextState.FINISHED
    with pytest.raises(NotFound):
        await three[0].contexts.delete("ctx", force=False)
    with pytest.raises(NotFound):
        await three[0].jobs.submit(submission("answer:1"))
    await until(lambda: not cluster.ensemble.owners, "the owner node is gone")


async def test_a_context_whose_owner_died_while_stopping_is_stopped_by_the_next(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    await cluster.kill(owner, notice=False)
    other = next(server for server in three if server is not owner)
    await other.store.request_stop(context.id)
    with pytest.raises(ContextStopping):
        await other.jobs.submit(submission("answer:1"))
    cluster.ensemble.expire(owner.me.id)
    await until(lambda: cluster.store.contexts[context.id].state is ContextState.FINISHED, "stopped")


async def test_a_server_that_leaves_hands_its_contexts_over_with_their_drivers(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    waiting = asyncio.create_task(owner.jobs.submit(submission("hold")))
    await until(lambda: cluster.driver().started, "the job runs")
    driver = cluster.driver()
    await owner.registry.leave()
    await until(lambda: context.id in cluster.ensemble.owners, "another server owns it")
    driver.finish(driver.started[0].job_id, "6")
    assert (await waiting).job.result == "6", "also for who waited at the leaving server"
    assert cluster.driver() is driver
    assert cluster.owner(context.id) is not owner
    assert (await other.jobs.submit(submission("answer:1"))).job.attempt == 1


@pytest.mark.parametrize("request_kind", [Request.ADOPT, Request.ACTIVATE])
async def test_a_driver_that_goes_right_after_it_confirmed_is_replaced(cluster, three, request_kind):
    """The end of the connection is read together with the reply, before the owner has looked at either."""
    context = await three[0].contexts.create("ctx", {})
    if request_kind is Request.ADOPT:
        cluster.driver().die_after.add(Request.ADOPT)
        await cluster.kill(cluster.owner(context.id))
    else:
        cluster.launcher.die_after.add(Request.ACTIVATE)
        cluster.driver().kill()
    alive = next(server for server in three if server.alive)
    done = await alive.jobs.submit(submission("answer:1"))
    assert done.job.result == "1"
    assert cluster.driver().epoch == cluster.store.fences[context.id].epoch
