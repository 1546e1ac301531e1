"""Planned moves on whole servers with drivers without Spark: switchover, drain, and what can go wrong in the middle."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from jobserver.errors import MoveRefused, NotFound
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


@pytest.fixture
async def moved(cluster, three):
    """A context, its owner, and another server."""
    context = await three[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    other = next(server for server in three if server is not owner)
    return context, owner, other


async def test_a_switchover_moves_the_context_to_a_driver_of_the_other_server_and_ends_the_old_one(
    cluster, moved
):
    context, owner, other = moved
    old = cluster.driver()
    report = await other.switchover.by_name("ctx", other.me.id, 5.0, keep_driver=False)
    assert (report.source, report.target, report.epoch) == (owner.me.id, other.me.id, 2)
    assert cluster.owner(context.id) is other
    await until(lambda: not old.alive, "the old driver has ended")
    assert cluster.driver().standby_of == context.id, "it was made ready before the move"
    assert cluster.driver().filled, "it has cached what the old one had cached"
    record = (await other.contexts.view("ctx")).record
    assert record.state is ContextState.RUNNING
    done = await owner.jobs.submit(submission("answer:1"))
    assert done.job.result == "1"
    assert (await other.contexts.view("ctx")).record.last_failover.kind == "moved-hot"


async def test_a_move_waits_for_the_rehearsal_of_its_driver_while_the_old_one_serves(
    cluster, moved, monkeypatch
):
    """Of an older release, which knows nothing of filling caches ahead."""
    context, owner, other = moved
    old, before = cluster.driver(), cluster.launcher.start

    async def start(spec, *, warm_up):
        record = await before(spec, warm_up=warm_up)
        cluster.launcher.drivers[-1].rehearsing = cluster.launcher.drivers[-1].of_older_release = warm_up
        return record

    monkeypatch.setattr(cluster.launcher, "start", start)
    moving = asyncio.create_task(other.switchover.by_name("ctx", other.me.id, 5.0, keep_driver=False))
    await until(lambda: cluster.launcher.drivers[-1].standby_of == context.id, "the next driver is bound")
    done = await owner.jobs.submit(submission("answer:1"))
    assert done.job.result == "1"
    assert (old.alive, moving.done()) == (True, False)
    cluster.launcher.drivers[-1].rehearsing = False
    assert (await moving).target == other.me.id


async def test_a_switchover_that_keeps_the_driver_leaves_running_jobs_untouched(cluster, moved):
    context, owner, other = moved
    waiting = asyncio.create_task(owner.jobs.submit(submission("hold")))
    await until(lambda: cluster.driver().started, "the job runs")
    await owner.switchover.by_name("ctx", other.me.id, 0.0, keep_driver=True)
    assert cluster.owner(context.id) is other
    cluster.driver().finish(cluster.driver().started[0].job_id, '"done"')
    answer = await waiting
    assert (answer.job.result, answer.job.attempt) == ('"done"', 1)
    assert len(cluster.launcher.drivers) == 1
    assert (await other.contexts.view("ctx")).record.last_failover.kind == "moved-adopted"


async def test_a_running_job_has_the_grace_to_end_and_jobs_that_come_meanwhile_start(cluster, moved):
    context, owner, other = moved
    old = cluster.driver()
    waiting = asyncio.create_task(other.jobs.submit(submission("hold")))
    await until(lambda: old.started, "the job runs")
    moving = asyncio.create_task(other.switchover.by_name("ctx", other.me.id, 5.0, keep_driver=False))
    await until(lambda: owner.registry.keeper(context.id).phase == "quiescing", "the move has begun")
    during = await other.jobs.submit(submission("answer:2"))
    assert during.job.result == "2"
    old.finish(old.started[0].job_id, '"in time"')
    assert (await waiting).job.result == '"in time"'
    await moving
    assert cluster.store.jobs[old.started[0].job_id].attempt == 1


async def test_a_job_that_outlasts_the_grace_runs_again_on_the_other_server_and_its_client_gets_the_answer(
    cluster, moved
):
    _, _, other = moved
    old = cluster.driver()
    waiting = asyncio.create_task(other.jobs.submit(submission("hold", max_attempts=2)))
    await until(lambda: old.started, "the job runs")
    await other.switchover.by_name("ctx", other.me.id, 0.05, keep_driver=False)
    new = cluster.driver()
    await until(lambda: new.started, "the job runs again")
    assert new.started[0].attempt == 2
    new.finish(new.started[0].job_id, '"second"')
    assert (await waiting).job.result == '"second"'


@pytest.mark.parametrize("once", [{"on_failover": "fail"}, {"max_attempts": 1}], ids=["fail", "last attempt"])
async def test_a_job_that_may_not_run_twice_refuses_the_move_and_runs_on(cluster, moved, once):
    context, owner, other = moved
    waiting = asyncio.create_task(other.jobs.submit(submission("hold", **once)))
    await until(lambda: cluster.driver().started, "the job runs")
    with pytest.raises(MoveRefused, match="may not run a second time"):
        await other.switchover.by_name("ctx", other.me.id, 0.05, keep_driver=False)
    assert cluster.owner(context.id) is owner
    assert (await other.jobs.submit(submission("answer:3"))).job.result == "3"
    old = next(driver for driver in cluster.launcher.living() if driver.started)
    old.finish(old.started[0].job_id, '"whole"')
    assert (await waiting).job.result == '"whole"'
    assert (await other.contexts.view("ctx")).epoch == 1


async def test_updates_that_cannot_be_sealed_refuse_the_move_and_nothing_changes(cluster, moved):
    context, owner, other = moved
    cluster.driver().seals = False
    with pytest.raises(MoveRefused, match="could not be sealed"):
        await owner.switchover.by_name("ctx", other.me.id, 1.0, keep_driver=False)
    assert cluster.owner(context.id) is owner
    assert (await other.jobs.submit(submission("answer:4"))).job.result == "4"


async def test_a_put_back_job_goes_on_here_when_the_next_owner_dies_before_it_is_elected(cluster, moved):
    context, owner, other = moved
    old = cluster.driver()
    waiting = asyncio.create_task(owner.jobs.submit(submission("hold")))
    await until(lambda: old.started, "the job runs")
    await other.registry.leave()  # it answers, and takes nothing any more
    with pytest.raises(MoveRefused, match="drains or leaves"):
        await owner.switchover.by_name("ctx", other.me.id, 0.05, keep_driver=False)
    assert cluster.owner(context.id) is owner
    await until(lambda: len(old.started) == 2, "it runs again here")
    old.finish(old.started[1].job_id, '"again"')
    assert (await waiting).job.result == '"again"'


async def test_a_driver_that_dies_in_the_middle_of_a_move_is_replaced_here_and_the_job_runs_again(
    cluster, moved
):
    context, owner, other = moved
    old = cluster.driver()
    waiting = asyncio.create_task(other.jobs.submit(submission("hold")))
    await until(lambda: old.started, "the job runs")
    moving = asyncio.create_task(other.switchover.by_name("ctx", other.me.id, 5.0, keep_driver=False))
    await until(lambda: owner.registry.keeper(context.id).phase == "quiescing", "the move has begun")
    old.kill()
    with pytest.raises(MoveRefused, match="driver is lost"):
        await moving
    assert cluster.owner(context.id) is owner
    await until(lambda: any(driver.started for driver in cluster.launcher.living()), "it runs again")
    new = next(driver for driver in cluster.launcher.living() if driver.started)
    new.finish(new.started[0].job_id, '"here"')
    assert (await waiting).job.result == '"here"'


async def test_an_owner_that_dies_in_the_middle_of_a_move_is_taken_over_from_as_ever(cluster, moved):
    context, owner, other = moved
    old = cluster.driver()
    waiting = asyncio.create_task(other.jobs.submit(submission("hold")))
    await until(lambda: old.started, "the job runs")
    moving = asyncio.create_task(other.switchover.by_name("ctx", other.me.id, 5.0, keep_driver=False))
    await until(lambda: owner.registry.keeper(context.id).phase == "quiescing", "the move has begun")
    await cluster.kill(owner)
    await asyncio.wait([moving])
    assert moving.exception() is not None
    await until(lambda: context.id in cluster.ensemble.owners, "it is owned")
    await until(lambda: cluster.owner(context.id).registry.owned(), "the gate is open")
    old.finish(old.started[0].job_id, '"adopted"')
    assert (await waiting).job.result == '"adopted"'


@pytest.mark.parametrize("dies_after", [Request.BIND, Request.ACTIVATE])
async def test_a_new_driver_that_dies_under_the_move_costs_no_job(cluster, moved, dies_after):
    _, _, other = moved
    cluster.launcher.die_after = {dies_after}
    with contextlib.suppress(MoveRefused):  # it may go either way: what counts is the context
        await other.switchover.by_name("ctx", other.me.id, 1.0, keep_driver=False)
    assert (await other.jobs.submit(submission("answer:5"))).job.result == "5"


async def test_the_targets_that_cannot_be_are_refused_with_a_reason(three, moved):
    _, owner, other = moved
    switchover = other.switchover
    with pytest.raises(NotFound, match="servers are s1, s2, s3"):
        await switchover.by_name("ctx", "s9", 0.0, keep_driver=False)
    with pytest.raises(MoveRefused, match="owns the context already"):
        await switchover.by_name("ctx", owner.me.id, 0.0, keep_driver=False)
    with pytest.raises(NotFound, match="context nix not found"):
        await switchover.by_name("nix", None, 0.0, keep_driver=False)


async def test_two_moves_at_once_end_in_one_owner(cluster, three, moved):
    context, owner, _ = moved
    others = [server for server in three if server is not owner]
    await asyncio.gather(
        *(other.switchover.by_name("ctx", other.me.id, 0.2, keep_driver=False) for other in others),
        return_exceptions=True,
    )
    assert cluster.owner(context.id) in others
    assert (await owner.jobs.submit(submission("answer:6"))).job.result == "6"


async def test_a_drained_server_owns_nothing_and_gets_nothing_until_it_is_undrained(cluster, three):
    contexts = [await three[0].contexts.create(f"ctx{n}", {}) for n in range(3)]
    full = three[0]
    await full.drainer.begin(grace=1.0, keep_drivers=False)
    await until(lambda: not full.registry.held(), "it is drained")
    new = await three[1].contexts.create("new", {})
    assert all(cluster.owner(context.id) is not full for context in [*contexts, new])
    with pytest.raises(MoveRefused, match="draining"):
        await three[1].switchover.by_name("new", full.me.id, 0.0, keep_driver=False)
    for n in range(3):
        done = await full.jobs.submit(submission("answer:7", context=f"ctx{n}"))
        assert done.job.state is JobState.FINISHED
    await full.drainer.end()
    await until(lambda: not three[1].coordination.servers[full.me.id].draining, "the others know")
    await three[1].switchover.by_name("new", full.me.id, 0.0, keep_driver=False)
    assert cluster.owner(new.id) is full


async def test_no_request_fails_while_the_context_goes_round_under_load(cluster, three, moved):
    context, _, _ = moved
    going = True
    answers = []

    async def client(server):
        while going:
            done = await server.jobs.submit(submission("answer:8"))
            answers.append((done.job.state, done.job.result, done.job.attempt))

    clients = [asyncio.create_task(client(server)) for server in three]
    for n in range(9):
        target = three[n % 3]
        if cluster.owner(context.id) is not target:
            await three[0].switchover.by_name("ctx", target.me.id, 0.5, keep_driver=n % 2 == 0)
    going = False
    await asyncio.gather(*clients)
    assert set(answers) == {(JobState.FINISHED, "8", 1)}
    assert len(answers) > 9
