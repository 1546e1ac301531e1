"""What a client is told while the store comes and goes, and what a repeated ad-hoc submission makes: on drivers without Spark."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobserver.errors import KeyReused, NotFound, OwnerUnavailable, StoreUnavailable, TimedOut
from jobserver.model import BinaryRecord, BinaryType, ContextState, JobState
from tests.fakes.cluster import FakeCluster, submission, until


@pytest.fixture
async def cluster(tmp_path):
    made = FakeCluster(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def server(cluster):
    return await cluster.start("s1")


def keyed(main_class="answer:1", digest="a"):
    return submission(main_class, context=None, idempotency_key="k", request_digest=digest)


async def test_an_accepted_job_is_never_answered_without_its_id_while_the_store_is_away(server, monkeypatch):
    await server.contexts.create("ctx", {})
    asked = []

    async def away(job_id):
        asked.append(job_id)
        raise StoreUnavailable("away")

    async def gone(*args):
        raise OwnerUnavailable("gone")

    monkeypatch.setattr(server.store, "job", away)
    monkeypatch.setattr(server.registry, "submit", gone)
    monkeypatch.setattr(server.registry, "follow", gone)
    accepted = (await server.jobs.submit(submission("hold", sync=False, wait=0.3))).job
    assert accepted.state is JobState.QUEUED
    with pytest.raises(TimedOut) as told:
        await server.jobs.submit(submission("hold", wait=0.3))
    assert told.value.job_id in asked
    assert accepted.id in asked
    monkeypatch.undo()
    await asyncio.gather(server.jobs.kill(accepted.id), server.jobs.kill(told.value.job_id))


async def test_a_repeated_adhoc_submission_gets_its_job_and_makes_no_second_context(cluster, server):
    first = await server.jobs.submit(keyed())
    again = await server.jobs.submit(keyed())
    assert again.job.id == first.job.id
    assert (again.job.state, again.job.result) == (JobState.FINISHED, "1")
    assert len(cluster.store.contexts) == len(cluster.launcher.drivers) == 1


async def test_another_adhoc_request_under_a_used_key_makes_no_context(cluster, server):
    await server.jobs.submit(keyed())
    with pytest.raises(KeyReused):
        await server.jobs.submit(keyed(digest="b"))
    assert len(cluster.store.contexts) == 1


async def test_of_the_same_adhoc_request_twice_at_once_one_context_runs_and_the_other_ends(
    cluster, server, monkeypatch
):
    one = await server.jobs.submit(keyed())

    async def not_yet(principal, key):
        return None

    monkeypatch.setattr(server.store, "job_of_key", not_yet)  # as if both had looked before either inserted
    two = await server.jobs.submit(keyed())
    assert one.job.id == two.job.id
    assert len(cluster.launcher.drivers) == 1
    (other,) = (found for found in cluster.store.contexts.values() if found.id != one.job.context_id)
    assert other.state is ContextState.STOPPING
    await server.contexts.claim_unowned(older_than=0.0)
    await until(lambda: cluster.store.contexts[other.id].state.final, "the sweep ends it")
    await until(lambda: not cluster.launcher.living(), "no driver is left")


def of(*binaries):
    return replace(submission("answer:1"), binaries=binaries)


async def upload(server, digest):
    await server.store.put_binary(BinaryRecord("demo", BinaryType.ZIP, digest, 1, datetime.now(UTC)))


@pytest.fixture
def reads(server, monkeypatch):
    """Which names were read."""
    made, read = [], server.store.references

    async def noted(names, context):
        made.append((tuple(names), context))
        return await read(names, context)

    monkeypatch.setattr(server.store, "references", noted)
    return made


async def test_names_are_read_once_while_they_stay_what_they_are(server, reads):
    await server.contexts.create("ctx", {})
    await upload(server, "1" * 64)
    reads.clear()
    for _ in range(3):
        await server.jobs.submit(of("demo"))
        await server.jobs.submit(of())
    assert sorted(reads) == [((), "ctx"), (("demo",), "ctx")]


async def test_an_upload_is_used_by_the_next_job_though_its_name_was_known(cluster, server):
    other = await cluster.start("s2")
    await server.contexts.create("ctx", {})
    for digest in ("1" * 64, "2" * 64, "1" * 64):
        await upload(other, digest)
        for asked in (server, other):
            job = (await asked.jobs.submit(of("demo"))).job
            assert (job.state, [ref.digest for ref in job.spec.binaries]) == (JobState.FINISHED, [digest])
    await other.store.delete_binary("demo")
    for asked in (server, other):
        with pytest.raises(NotFound, match="appName demo not found"):
            await asked.jobs.submit(of("demo"))


async def test_a_context_made_anew_takes_the_jobs_of_its_name(server):
    first = await server.contexts.create("ctx", {})
    await server.jobs.submit(submission("answer:1"))
    assert await server.contexts.delete("ctx", force=False)
    with pytest.raises(NotFound, match="context ctx not found"):
        await server.jobs.submit(submission("answer:1"))
    second = await server.contexts.create("ctx", {})
    assert (await server.jobs.submit(submission("answer:1"))).job.context_id == second.id != first.id


async def test_a_driver_is_told_whether_anybody_waits_for_the_acceptance(cluster, server, monkeypatch):
    """Only then it is told at once; else it comes with the end of a quick job."""
    await server.contexts.create("ctx", {})
    runs, on_run = [], cluster.driver()._on_run

    def noted(message, writer):
        runs.append(message["awaited"])
        return on_run(message, writer)

    monkeypatch.setattr(cluster.driver(), "_on_run", noted)
    await server.jobs.submit(submission("answer:1"))
    await server.jobs.submit(submission("answer:1", sync=False))
    assert runs == [False, True]


@pytest.mark.parametrize("late", [0.0, 0.1], ids=["right behind it", "after its end is committed"])
async def test_a_jobs_progress_and_its_end_may_come_before_its_acceptance(cluster, monkeypatch, late):
    """Drivers send an acceptance for which nobody waits with what comes next, and progress at once."""
    server = await cluster.start("s1")
    await server.contexts.create("ctx", {})
    driver, loop, accepted = cluster.driver(), asyncio.get_running_loop(), []
    event = driver._event

    def accept(fields):
        event("accepted", fields)
        accepted.append(fields["job_id"])

    def reordered(name, fields):
        attempt = {"job_id": fields["job_id"], "attempt": fields["attempt"]}
        if name == "accepted":
            event("progress", {**attempt, "fraction": 0.5, "message": "half"})
            loop.call_later(late, accept, fields)
        else:
            event(name, fields)

    monkeypatch.setattr(driver, "_event", reordered)
    for sync in (True, False, True):
        job = (await server.jobs.submit(submission("answer:1", sync=sync))).job
        assert (job.state, job.attempt) == (JobState.FINISHED, 1)
    await until(lambda: len(accepted) == 3, "every acceptance was sent")
    monkeypatch.undo()
    await server.jobs.submit(submission("answer:1"))  # what was sent before it has been heard
    (keeper,) = server.registry.owned()
    table = keeper.jobs._table
    assert (table.rows, table.accepted, table.admission.running) == ({}, set(), set())
