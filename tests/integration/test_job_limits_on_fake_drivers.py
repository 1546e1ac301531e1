"""Time limits of jobs, and jobs that no kill ends: what owners do about them, over real sockets to drivers without Spark."""

from __future__ import annotations

import asyncio

import pytest

from jobserver.model import JobState
from tests.fakes.cluster import FakeCluster, submission, until


@pytest.fixture
async def cluster(tmp_path):
    made = FakeCluster(tmp_path)
    yield made
    await made.close()
    assert not made.launcher.living()


def job_of(cluster, job_id):
    return cluster.store.jobs[job_id]


async def test_a_job_is_killed_when_its_time_is_over_and_who_waits_is_told_why(cluster):
    server = await cluster.start("s1")
    await server.contexts.create("ctx", {})
    answer = await server.jobs.submit(submission("hold", time_limit=0.1))
    assert answer.job.state is JobState.KILLED
    assert "ran longer than its time limit of 0.1 s" in answer.job.error.message
    await until(lambda: not server.registry.owned()[0].jobs.running, "its slot is free")
    quick = await server.jobs.submit(submission("answer:1", time_limit=60.0))
    assert quick.job.state is JobState.FINISHED


async def test_a_time_limit_goes_on_with_the_next_owner(cluster):
    three = [await cluster.start(name) for name in ("s1", "s2", "s3")]
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    waiting = asyncio.create_task(other.jobs.submit(submission("hold", time_limit=1.0)))
    await until(lambda: cluster.driver().started, "the job runs")
    await cluster.kill(owner)
    answer = await waiting
    assert (answer.job.state, answer.job.attempt) == (JobState.KILLED, 1)
    assert "time limit" in answer.job.error.message
    assert len(cluster.launcher.drivers) == 1, "its driver was adopted"


async def test_a_time_limit_goes_on_where_the_driver_never_heard_of_the_attempt(cluster):
    three = [await cluster.start(name) for name in ("s1", "s2", "s3")]
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    job = (await owner.jobs.submit(submission("hold", sync=False, time_limit=1.0))).job
    cluster.driver().jobs.clear()
    cluster.driver().started.clear()
    await cluster.kill(owner)
    await until(lambda: cluster.driver().started, "the next owner gave the attempt to the driver")
    await until(lambda: job_of(cluster, job.id).state.final, "its time is over")
    ended = job_of(cluster, job.id)
    assert (ended.state, ended.attempt) == (JobState.KILLED, 1)
    assert "time limit" in ended.error.message


@pytest.mark.parametrize("replace", [True, False])
async def test_a_driver_with_a_job_that_no_kill_ends_is_replaced_if_the_settings_say_so(cluster, replace):
    contexts = cluster.settings.contexts.model_copy(update={"replace_when_stuck": replace})
    cluster.settings = cluster.settings.model_copy(update={"contexts": contexts})
    server = await cluster.start("s1")
    await server.contexts.create("ctx", {})
    other = (await server.jobs.submit(submission("hold", sync=False))).job
    cluster.driver().abandoned = 1
    if not replace:
        await until(lambda: server.registry.owned()[0].watch.stuck_jobs == 1, "it is noticed")
        assert len(cluster.launcher.drivers) == 1
        return
    await until(lambda: len(cluster.launcher.drivers) == 2, "another driver was started")
    await until(lambda: job_of(cluster, other.id).attempt == 2, "the other job runs again")
    assert (await server.contexts.view("ctx")).epoch == 2
    assert server.registry.owned()[0].watch.stuck_jobs == 0


@pytest.mark.parametrize("adopted", [False, True], ids=["told", "held by an adopted driver"])
async def test_an_outcome_that_cannot_be_recorded_ends_its_job_and_not_the_ownership(cluster, adopted):
    """Every next owner would stumble over it again."""
    servers = [await cluster.start(name) for name in ("s1", "s2")]
    context = await servers[0].contexts.create("ctx", {})
    for server in servers:
        _refuse(server.store, "13")
    owner = cluster.owner(context.id)
    if adopted:
        other = next(server for server in servers if server is not owner)
        running = asyncio.create_task(other.jobs.submit(submission("hold")))
        await until(lambda: cluster.driver().started, "it runs")
        await cluster.kill(owner)
        cluster.driver().finish(next(iter(cluster.driver().jobs)).job_id, "13")
        owner = other
        done = await running
    else:
        done = await owner.jobs.submit(submission("answer:13"))
    assert done.job.state is JobState.ERROR
    assert "could not be recorded: ValueError" in done.job.error.message
    epoch = 1 + adopted
    assert (await owner.jobs.submit(submission("answer:1"))).job.result == "1"
    assert (await owner.store.fence(context.id)).epoch == epoch


def _refuse(store, result):
    """A store that cannot take this result."""
    finish = store.finish_job

    async def finish_job(fence, outcome, state, at):
        if outcome.result == result:
            raise ValueError("poison")
        return await finish(fence, outcome, state, at)

    store.finish_job = finish_job
