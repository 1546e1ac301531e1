"""The history of jobs, and what operators did: what every metadata store promises.

The history is written with the move, so it never says what did not happen, and never misses what did.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from store_records import (
    PROBLEM,
    Store,
    a_context,
    a_job,
    after,
    an_outcome,
    end,
    owned,
    running,
)

from jobserver.errors import BadRequest
from jobserver.history import JobMove, Operation
from jobserver.model import ContextState, Fence, JobState


async def states_of(store: Store, job_id: str = "j1") -> list[tuple[int, JobState]]:
    return [(move.attempt, move.state) for move in await store.job_history(job_id)]


async def test_the_life_of_a_job_is_told_with_times_servers_epochs_and_reasons(
    store: Store, other: Store
) -> None:
    fence = await owned(store)
    await other.insert_job(a_job(), queue_limit=100)
    assert await store.start_attempt(fence, "j1", 1, after(1))
    assert await store.restart_job(fence, "j1", 1, died=True, error=PROBLEM, at=after(2))
    assert await other.grant("c1", 1, "s2", "i2", "t2")
    successor = Fence("c1", 2, "t2")
    assert await other.start_attempt(successor, "j1", 2, after(3))
    assert await other.finish_job(successor, an_outcome(attempt=2), JobState.FINISHED, after(4))
    assert await store.job_history("j1") == [
        JobMove(0, JobState.QUEUED, after(0), "s2"),
        JobMove(1, JobState.RUNNING, after(1), "s1", 1),
        JobMove(1, JobState.RESTARTING, after(2), "s1", 1, PROBLEM.message),
        JobMove(2, JobState.RUNNING, after(3), "s2", 2),
        JobMove(2, JobState.FINISHED, after(4), "s2", 2),
    ]


async def test_an_unknown_job_has_no_history(store: Store) -> None:
    assert await store.job_history("j9") == []
    assert await store.job_history("\udc80") == []


async def test_the_order_is_that_of_the_jobs_life_whatever_the_servers_clocks_say(store: Store) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=100)
    assert await store.start_attempt(fence, "j1", 1, after(-5))
    assert await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(-10))
    assert await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(-20))
    assert await states_of(store) == [
        (0, JobState.QUEUED),
        (1, JobState.RUNNING),
        (1, JobState.RESTARTING),
        (1, JobState.FINISHED),
    ]


async def test_a_refused_write_leaves_no_history(store: Store, other: Store) -> None:
    stale = await owned(store)
    await running(store, stale)
    await store.insert_job(a_job("waiting"), queue_limit=100)
    assert await other.grant("c1", 1, "s2", "i2", "t2")
    before = await store.job_history("j1"), await store.job_history("waiting")
    assert not await store.start_attempt(stale, "waiting", 1, after(5))
    assert not await store.restart_job(stale, "j1", 1, died=True, error=None, at=after(5))
    assert not await store.finish_job(stale, an_outcome(), JobState.FINISHED, after(5))
    assert not await store.end_waiting_job(stale, "waiting", JobState.KILLED, None, after(5))
    assert (await store.job_history("j1"), await store.job_history("waiting")) == before


async def test_of_outcomes_that_arrive_at_once_the_taken_one_alone_is_on_record(
    store: Store, other: Store
) -> None:
    fence = await owned(store)
    await running(store, fence)
    calls = [
        server.finish_job(fence, an_outcome(), JobState.FINISHED, after(number))
        for number, server in enumerate([store, other] * 5)
    ]
    taken = (await asyncio.gather(*calls)).index(True)
    last = (await store.job_history("j1"))[-1]
    assert last == JobMove(1, JobState.FINISHED, after(taken), "s2" if taken % 2 else "s1", 1)


async def test_a_refused_submission_has_no_history_and_a_repeated_one_has_it_once(store: Store) -> None:
    await owned(store)
    job = a_job(idempotency_key="k", request_digest="a")
    for again in (job, job, replace(job, id="j2")):
        await store.insert_job(again, queue_limit=1)
    assert await states_of(store) == [(0, JobState.QUEUED)]
    assert await states_of(store, "j2") == []


async def test_a_job_that_was_accepted_and_started_in_one_write_began_running(store: Store) -> None:
    fence = await owned(store, a_context(state=ContextState.RUNNING))
    await store.insert_started_job(fence, a_job(), queue_limit=1, at=after(1))
    assert await store.job_history("j1") == [JobMove(1, JobState.RUNNING, after(1), "s1", 1)]


async def test_a_job_killed_while_it_waits_says_in_which_attempt_and_why(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    await store.restart_job(fence, "j1", 1, died=False, error=None, at=after(2))
    assert await store.end_waiting_job(fence, "j1", JobState.KILLED, PROBLEM, after(3))
    assert (await store.job_history("j1"))[-1] == JobMove(
        1, JobState.KILLED, after(3), "s1", 1, PROBLEM.message
    )


async def test_the_jobs_that_end_with_their_context_say_so_and_the_others_stay_as_they_were(
    store: Store, other: Store
) -> None:
    fence = await owned(store)
    for name in ("running", "done", "failed"):
        await running(store, fence, a_job(name))
    await store.insert_job(a_job("waiting"), queue_limit=100)
    await store.finish_job(fence, an_outcome("done"), JobState.FINISHED, after(60))
    await store.finish_job(fence, an_outcome("failed"), JobState.ERROR, after(60))
    await end(store, fence)
    assert await other.end_jobs_of_ended_context("c1", PROBLEM, after(60)) == 2
    last = {name: (await store.job_history(name))[-1] for name in ("running", "waiting", "done", "failed")}
    assert last["running"] == JobMove(1, JobState.ERROR, after(60), "s2", None, PROBLEM.message)
    assert last["waiting"] == JobMove(0, JobState.ERROR, after(60), "s2", None, PROBLEM.message)
    assert last["done"] == JobMove(1, JobState.FINISHED, after(60), "s1", 1)
    assert last["failed"] == JobMove(1, JobState.ERROR, after(60), "s1", 1)


async def test_operations_are_listed_newest_first_with_the_server_that_did_them(
    store: Store, other: Store
) -> None:
    await store.audit.add(Operation(after(1), "eve", "switchover", "ctx", {"to": "s2", "ü": [1, None]}))
    await other.audit.add(Operation(after(3), "ann", "drain", "s1"))
    await other.audit.add(Operation(after(2), "bob", "kill", "j1", server="s9"))
    await store.audit.add(Operation(after(2), "bob", "kill", "j2"))
    assert await store.audit.newest(10) == [
        Operation(after(3), "ann", "drain", "s1", {}, "s2"),
        Operation(after(2), "bob", "kill", "j2", {}, "s1"),
        Operation(after(2), "bob", "kill", "j1", {}, "s9"),
        Operation(after(1), "eve", "switchover", "ctx", {"to": "s2", "ü": [1, None]}, "s1"),
    ]
    assert len(await store.audit.newest(2)) == 2
    assert await store.audit.newest(0) == []


async def test_a_target_too_long_for_its_column_is_cut_and_a_name_without_encoding_refused(
    store: Store,
) -> None:
    await store.audit.add(Operation(after(1), "eve", "delete", "x" * 300))
    assert (await store.audit.newest(1))[0].target == "x" * 255
    with pytest.raises(BadRequest):
        await store.audit.add(Operation(after(1), "\udc80", "delete", "x"))


async def test_what_a_group_of_writes_did_and_did_not_do_is_told_of_each(store: Store, other: Store) -> None:
    fence = await owned(store)
    names = [f"j{number}" for number in range(40)]
    await asyncio.gather(
        *(store.insert_job(a_job(name), queue_limit=30) for name in names), return_exceptions=True
    )
    taken = {job.id for job in await store.unfinished_jobs("c1")}
    assert len(taken) == 30
    started = await asyncio.gather(
        *(server.start_attempt(fence, name, 1, after(1)) for name in names for server in (store, other))
    )
    assert started.count(True) == 30
    for name in names:
        moves = await states_of(store, name)
        assert moves == ([(0, JobState.QUEUED), (1, JobState.RUNNING)] if name in taken else [])
