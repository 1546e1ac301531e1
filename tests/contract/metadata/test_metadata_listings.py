"""Listings, the jobs of an ended context, and texts that nothing can hold: what every metadata store promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_records import (
    PROBLEM,
    Store,
    a_binary,
    a_context,
    a_job,
    after,
    an_outcome,
    end,
    owned,
    running,
    the_job,
)

from jobserver.errors import BadRequest
from jobserver.model import JobSpec, JobState


async def test_jobs_are_listed_newest_first_without_their_results(store: Store) -> None:
    fence = await owned(store)
    for number, seconds in enumerate([20, 10, 30]):
        await running(store, fence, a_job(f"j{number}", submitted_at=after(seconds)))
    await store.finish_job(fence, an_outcome("j2"), JobState.FINISHED, after(40))
    listed = await store.list_jobs(50, None)
    assert [job.id for job in listed] == ["j2", "j0", "j1"]
    assert listed[0] == replace(await the_job(store, "j2"), result=None)
    assert [job.id for job in await store.list_jobs(2, None)] == ["j2", "j0"]
    assert [job.id for job in await store.list_jobs(50, JobState.RUNNING)] == ["j0", "j1"]
    assert await store.list_jobs(50, JobState.KILLED) == []


@pytest.mark.parametrize("limit", [0, -1, -(2**31)])
async def test_a_limit_below_one_lists_nothing(store: Store, limit: int) -> None:
    await owned(store)
    await store.insert_job(a_job(), queue_limit=100)
    assert await store.list_jobs(limit, None) == []


async def test_unfinished_jobs_come_by_priority_and_then_by_submission(store: Store) -> None:
    fence = await owned(store)
    wanted = [("late", 0, 30), ("urgent", 5, 40), ("early", 0, 10), ("last", -1, 5), ("done", 9, 1)]
    for name, priority, seconds in wanted:
        job = a_job(name, submitted_at=after(seconds), spec=JobSpec("x.Y", (), priority=priority))
        await store.insert_job(job, queue_limit=100)
    await store.start_attempt(fence, "early", 1, after(50))
    await store.end_waiting_job(fence, "done", JobState.KILLED, None, after(50))
    assert [job.id for job in await store.unfinished_jobs("c1")] == ["urgent", "early", "late", "last"]
    assert await store.unfinished_jobs("c2") == []


async def test_the_jobs_of_a_context_end_after_it_and_never_before(store: Store, other: Store) -> None:
    fence = await owned(store)
    await owned(store, a_context("c2", "other"))
    await store.insert_job(a_job("theirs", "c2"), queue_limit=100)
    for name in ("running", "done", "restarting"):
        await running(store, fence, a_job(name))
    await store.finish_job(fence, an_outcome("done"), JobState.FINISHED, after(2))
    await store.restart_job(fence, "restarting", 1, died=True, error=None, at=after(2))
    await store.insert_job(a_job("waiting"), queue_limit=100)
    assert await store.end_jobs_of_ended_context("c1", PROBLEM, after(3)) == 0
    await end(store, fence)
    assert await other.end_jobs_of_ended_context("c1", PROBLEM, after(60)) == 3
    assert await store.end_jobs_of_ended_context("c1", PROBLEM, after(61)) == 0
    for name in ("running", "restarting", "waiting"):
        job = await the_job(store, name)
        assert (job.state, job.error, job.ended_at) == (JobState.ERROR, PROBLEM, after(60))
    assert (await the_job(store, "done")).state is JobState.FINISHED
    assert (await the_job(store, "theirs")).state is JobState.QUEUED


async def test_a_context_that_does_not_exist_has_no_jobs_to_end(store: Store) -> None:
    assert await store.end_jobs_of_ended_context("c9", PROBLEM, after(1)) == 0


# Bad input


async def test_texts_that_no_encoding_holds_exist_nowhere(store: Store) -> None:
    await owned(store)
    bad = "\udc80"
    assert await store.find_binary(bad) is None
    assert not await store.delete_binary(bad)
    assert await store.jobs_using_binary(bad) == []
    assert await store.context(bad) is None
    assert await store.latest_context(bad) is None
    assert await store.job(bad) is None
    assert await store.fence(bad) is None
    with pytest.raises(BadRequest):
        await store.put_binary(a_binary(bad))
    with pytest.raises(BadRequest):
        await store.create_context(a_context("c2", bad))
    with pytest.raises(BadRequest):
        await store.insert_job(a_job(idempotency_key=bad), queue_limit=100)
