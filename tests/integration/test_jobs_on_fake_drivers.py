"""Jobs of whole servers in one process with drivers without Spark: given, lost, killed, waited for, repeated."""

from __future__ import annotations

import asyncio

import pytest

from jobserver.errors import (
    NotFound,
    OutcomeUnknown,
    OwnerUnavailable,
    TimedOut,
)
from jobserver.model import AttemptRef, ContextState, JobState
from tests.fakes.cluster import FakeCluster, submission, until
from tests.fakes.database import Link


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


async def test_an_outcome_reached_while_nobody_owned_the_driver_is_accepted(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    job = (await other.jobs.submit(submission("hold", sync=False))).job
    await cluster.kill(owner, notice=False)
    cluster.driver().finish(job.id, "7")
    cluster.ensemble.expire(owner.me.id)
    await until(lambda: job_of(cluster, job.id).state is JobState.FINISHED, "the outcome is committed")
    assert job_of(cluster, job.id).result == "7"
    assert job_of(cluster, job.id).attempt == 1


async def lost_before_it_reached_the_driver(cluster, server, **fields):
    """A job whose attempt its owner put on record, and died before the driver heard of it."""
    job = (await server.jobs.submit(submission("hold", sync=False, **fields))).job
    cluster.driver().jobs.clear()
    cluster.driver().started.clear()
    return job


async def test_an_attempt_that_never_reached_the_driver_is_given_to_it_and_no_attempt_is_added(
    cluster, three
):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    job = await lost_before_it_reached_the_driver(cluster, owner, max_attempts=1)
    await cluster.kill(owner)
    await until(lambda: cluster.driver().started, "the attempt reached the driver")
    assert cluster.driver().started == [AttemptRef(job.id, 1)]
    cluster.driver().finish(job.id, "3")
    await until(lambda: job_of(cluster, job.id).state.final, "the outcome is committed")
    assert (job_of(cluster, job.id).result, job_of(cluster, job.id).attempt) == ("3", 1)
    assert [move.state for move in cluster.store.history[job.id]] == [JobState.RUNNING, JobState.FINISHED]


async def test_an_attempt_that_never_reached_the_driver_can_be_killed_and_leaves_its_slot(tmp_path):
    cluster = FakeCluster(tmp_path, max_jobs=1)
    servers = [await cluster.start(name) for name in ("s1", "s2")]
    try:
        context = await servers[0].contexts.create("ctx", {})
        owner = cluster.owner(context.id)
        other = next(server for server in servers if server is not owner)
        job = await lost_before_it_reached_the_driver(cluster, owner)
        await cluster.kill(owner)
        assert (await other.jobs.kill(job.id)).state is JobState.KILLED
        assert (await other.jobs.submit(submission("answer:1"))).job.result == "1"
    finally:
        await cluster.close()


async def test_an_attempt_that_the_driver_began_and_lost_is_followed_by_the_next(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    job = await lost_before_it_reached_the_driver(cluster, owner)
    cluster.driver().begun.add(AttemptRef(job.id, 1))
    await cluster.kill(owner)
    await until(lambda: cluster.driver().started, "the next attempt began")
    cluster.driver().finish(job.id, "4")
    await until(lambda: job_of(cluster, job.id).state.final, "the outcome is committed")
    assert (job_of(cluster, job.id).attempt, job_of(cluster, job.id).deaths) == (2, 0)


async def test_a_job_that_kills_its_driver_every_time_ends_in_error_and_the_others_finish(cluster, three):
    await three[0].contexts.create("ctx", {})
    deadly = asyncio.create_task(three[0].jobs.submit(submission("die", wait=10)))
    await until(lambda: len(cluster.launcher.drivers) >= 2, "a second driver")
    good = await three[1].jobs.submit(submission("answer:1", wait=10))
    failed = await deadly
    assert good.job.state is JobState.FINISHED
    assert (failed.job.state, failed.job.attempt) == (JobState.ERROR, 3)
    assert "max_attempts is 3" in failed.job.error.message


async def test_kill_ends_running_and_waiting_jobs_and_frees_the_slot(tmp_path):
    cluster = FakeCluster(tmp_path, max_jobs=1)
    server = await cluster.start("s1")
    try:
        await server.contexts.create("ctx", {})
        running = (await server.jobs.submit(submission("hold", sync=False))).job
        waiting = (await server.jobs.submit(submission("hold", sync=False))).job
        sync = asyncio.create_task(server.jobs.submit(submission("answer:1")))
        assert (await server.jobs.kill(waiting.id)).state is JobState.KILLED
        assert (await server.jobs.kill(running.id)).state is JobState.KILLED
        assert (await sync).job.result == "1"
        with pytest.raises(NotFound, match="No running job"):
            await server.jobs.kill(running.id)
        with pytest.raises(NotFound, match="No such job"):
            await server.jobs.kill("nobody")
    finally:
        await cluster.close()


async def test_all_jobs_of_a_context_are_killed_through_any_server_and_none_starts_in_a_freed_slot(tmp_path):
    cluster = FakeCluster(tmp_path, max_jobs=2)
    servers = [await cluster.start(name) for name in ("s1", "s2")]
    try:
        context = await servers[0].contexts.create("ctx", {})
        await servers[0].contexts.create("other", {})
        jobs = [(await servers[0].jobs.submit(submission("hold", sync=False))).job.id for _ in range(5)]
        theirs = (await servers[0].jobs.submit(submission("hold", context="other", sync=False))).job.id
        stranger = next(server for server in servers if server is not cluster.owner(context.id))
        assert sorted(await stranger.jobs.kill_all("ctx")) == sorted(jobs)
        assert {job_of(cluster, job).state for job in jobs} == {JobState.KILLED}
        assert [job_of(cluster, job).attempt for job in jobs] == [1, 1, 0, 0, 0]
        assert job_of(cluster, theirs).state is JobState.RUNNING
        assert await stranger.jobs.kill_all("ctx") == []
        with pytest.raises(NotFound, match="context nobody not found"):
            await stranger.jobs.kill_all("nobody")
    finally:
        await cluster.close()


async def test_a_waiting_client_is_told_at_once_when_its_job_is_killed(cluster, three):
    await three[0].contexts.create("ctx", {})
    waiting = asyncio.create_task(three[1].jobs.submit(submission("hold", wait=30)))
    await until(lambda: cluster.driver().started, "the job runs")
    await three[2].jobs.kill(cluster.driver().started[0].job_id)
    answer = await asyncio.wait_for(waiting, 2)
    assert answer.job.state is JobState.KILLED


async def test_a_sync_wait_that_ends_names_the_job_which_goes_on(cluster, three):
    await three[0].contexts.create("ctx", {})
    with pytest.raises(TimedOut) as caught:
        await three[0].jobs.submit(submission("hold", wait=0.2))
    assert job_of(cluster, caught.value.job_id).state is JobState.RUNNING


async def test_the_same_key_gets_the_same_job(cluster, three):
    await three[0].contexts.create("ctx", {})
    first = await three[0].jobs.submit(submission("answer:1", idempotency_key="k", request_digest="d"))
    again = await three[1].jobs.submit(submission("answer:1", idempotency_key="k", request_digest="d"))
    assert again.job.id == first.job.id
    assert len(cluster.driver().started) == 1


async def test_an_adhoc_job_has_a_context_of_its_own_that_ends_with_it(cluster, three):
    done = await three[0].jobs.submit(submission("answer:8", context=None))
    assert done.job.result == "8"
    assert done.job.context_name.endswith("-answer:8")
    await until(lambda: cluster.store.contexts[done.job.context_id].state is ContextState.FINISHED, "ended")
    await until(lambda: not cluster.launcher.living(), "no driver is left")


async def test_a_job_of_which_no_message_came_is_found_by_the_sweep(cluster, three):
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)

    async def lost(*args, **kwargs):
        raise OwnerUnavailable("lost")

    other.peers.submit = other.peers.follow = lost
    with pytest.raises(TimedOut) as caught:
        await other.jobs.submit(submission("answer:1", wait=0.2))
    await owner.registry.sweep()
    await until(lambda: job_of(cluster, caught.value.job_id).state is JobState.FINISHED, "it ran")


class LosesTheReplyOfAnAcceptance(Link):
    """Once, and only when the test says so."""

    def __init__(self):
        self.written, self.lost = asyncio.Event(), asyncio.Event()

    async def after(self, operation):
        if operation == "insert_started_job" and not self.written.is_set():
            self.written.set()
            await self.lost.wait()
            raise OutcomeUnknown("the reply was lost")


async def test_an_owner_keeps_its_context_when_who_offered_a_job_has_gone_before_its_outcome_is_unknown(
    cluster, three
):
    """As at the end of a connection between two servers: nobody waits for the answer any more."""
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    owner.store._link = link = LosesTheReplyOfAnAcceptance()
    offered = asyncio.create_task(other.jobs.submit(submission("answer:1")))
    await link.written.wait()
    offered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await offered
    link.lost.set()
    (job_id,) = cluster.store.jobs
    await until(lambda: job_of(cluster, job_id).state is JobState.FINISHED, "the accepted job ran")
    assert (job_of(cluster, job_id).attempt, cluster.store.fences[context.id].epoch) == (1, 1)


async def test_who_waits_at_a_living_server_for_a_frozen_owner_is_answered_by_the_next_one(cluster):
    """The call to the frozen owner would last as long as the client is willing to wait."""
    servers = [await cluster.start(name) for name in ("s1", "s2")]
    context = await servers[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in servers if server is not owner)
    asked = asyncio.Event()

    async def frozen(*_):
        asked.set()
        await asyncio.Event().wait()

    owner.registry.submit = owner.registry.follow_id = frozen
    waiting = asyncio.create_task(other.jobs.submit(submission("answer:7", wait=3600.0)))
    await asked.wait()
    cluster.ensemble.expire(owner.me.id)
    async with asyncio.timeout(30):
        assert (await waiting).job.result == "7"
    assert cluster.owner(context.id) is other


async def test_who_waits_for_an_owner_that_goes_and_comes_back_at_once_is_answered(cluster):
    """As the watches tell it that were held up: both before the call that the first one ends has ended."""
    servers = [await cluster.start(name) for name in ("s1", "s2")]
    context = await servers[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in servers if server is not owner)
    asked = asyncio.Event()

    async def silent(*_):
        asked.set()
        await asyncio.Event().wait()

    owner.registry.submit = silent
    waiting = asyncio.create_task(other.jobs.submit(submission("answer:7")))
    await asked.wait()
    node = other.coordination._owners.pop(context.id)
    other.registry._tell_changed()
    other.coordination._owners[context.id] = node
    assert (await waiting).job.result == "7"
    assert cluster.owner(context.id) is owner
