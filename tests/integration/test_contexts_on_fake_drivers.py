"""Whole servers in one process, over real sockets to drivers without Spark: failovers, fences, kills, waiting clients."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ha.coordination import OwnerNode
from ha.ownership import Phase
from jobserver.contexts.drivers_word import DriversWord
from jobserver.contexts.link import DriverLink
from jobserver.errors import (
    ContextExists,
    ContextInitFailed,
    ContextStopping,
    NotFound,
    ObjectRefused,
    OwnerUnavailable,
    TimedOut,
)
from jobserver.model import AttemptRef, ContextState, JobState, ObjectDeed, ObjectOrder
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


def job_of(cluster, job_id):
    return cluster.store.jobs[job_id]


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


async def test_a_job_that_kills_its_driver_every_time_ends_in_error_and_the_others_finish(cluster, three):
    await three[0].contexts.create("ctx", {})
    deadly = asyncio.create_task(three[0].jobs.submit(submission("die", wait=10)))
    await until(lambda: len(cluster.launcher.drivers) >= 2, "a second driver")
    good = await three[1].jobs.submit(submission("answer:1", wait=10))
    failed = await deadly
    assert good.job.state is JobState.FINISHED
    assert (failed.job.state, failed.job.attempt) == (JobState.ERROR, 3)
    assert "max_attempts is 3" in failed.job.error.message


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


async def test_an_adhoc_job_has_a_context_of_its_own_that_ends_with_it(cluster, three):
    done = await three[0].jobs.submit(submission("answer:8", context=None))
    assert done.job.result == "8"
    assert done.job.context_name.endswith("-answer:8")
    await until(lambda: cluster.store.contexts[done.job.context_id].state is ContextState.FINISHED, "ended")
    await until(lambda: not cluster.launcher.living(), "no driver is left")


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
