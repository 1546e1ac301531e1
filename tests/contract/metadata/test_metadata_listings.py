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
from jobserver.listing import JobQuery, Place
from jobserver.model import JobSpec, JobState, listed


async def test_jobs_are_listed_newest_first(store: Store) -> None:
    fence = await owned(store)
    for number, seconds in enumerate([20, 10, 30]):
        await running(store, fence, a_job(f"j{number}", submitted_at=after(seconds)))
    await store.finish_job(fence, an_outcome("j2"), JobState.FINISHED, after(40))
    found = await store.find_jobs(JobQuery(50))
    assert [job.id for job in found] == ["j2", "j0", "j1"]
    assert found[0] == listed(await the_job(store, "j2"))
    assert [job.id for job in await store.find_jobs(JobQuery(2))] == ["j2", "j0"]
    assert [job.id for job in await store.find_jobs(in_state(JobState.RUNNING))] == ["j0", "j1"]
    assert await store.find_jobs(in_state(JobState.KILLED)) == []


def in_state(*states: JobState) -> JobQuery:
    return JobQuery(50, states=frozenset(states))


async def ids(store: Store, query: JobQuery) -> list[str]:
    return [job.id for job in await store.find_jobs(query)]


async def many(store: Store) -> None:
    """j0 to j7, submitted in pairs at the same moment, in two contexts and three classes; j6 and j7 run."""
    fences = {"c1": await owned(store), "c2": await owned(store, a_context("c2", "other"))}
    for number in range(8):
        context = f"c{1 + number % 2}"
        job = a_job(
            f"j{number}",
            context,
            context_name="other" if number % 2 else "ctx",
            spec=JobSpec(f"demo.Class{number % 3}", ()),
            submitted_at=after(number // 2),
        )
        await store.insert_job(job, queue_limit=100)
        if number > 5:
            assert await store.start_attempt(fences[context], job.id, 1, after(50))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (JobQuery(50), "76543210"),
        (JobQuery(3, offset=2), "543"),
        (JobQuery(3, offset=7), "0"),
        (JobQuery(50, context="ctx"), "6420"),
        (JobQuery(50, context="CTX"), ""),
        (JobQuery(50, main_class="demo.Class0"), "630"),
        (JobQuery(50, main_class="demo.Class"), ""),
        (JobQuery(50, states=frozenset({JobState.RUNNING}), context="other"), "7"),
        (JobQuery(50, states=frozenset({JobState.QUEUED}), main_class="demo.Class0", context="other"), "3"),
        (JobQuery(50, states=frozenset({JobState.QUEUED, JobState.RUNNING}), main_class="demo.Class2"), "52"),
        (JobQuery(50, states=frozenset()), ""),
        (JobQuery(50, since=after(2)), "7654"),
        (JobQuery(50, until=after(2)), "3210"),
        (JobQuery(50, since=after(1), until=after(3), context="ctx"), "42"),
        (JobQuery(50, after=Place(after(2), "j5")), "43210"),
        (JobQuery(2, after=Place(after(2), "j4"), context="ctx"), "20"),
        (JobQuery(50, after=Place(after(2), "j"), offset=1), "210"),
        (JobQuery(50, context="\udc80"), ""),
        (JobQuery(50, main_class="\udc80"), ""),
    ],
)
async def test_a_list_shows_what_every_filter_takes(store: Store, query: JobQuery, expected: str) -> None:
    await many(store)
    assert await ids(store, query) == [f"j{number}" for number in expected]


@pytest.mark.parametrize("size", [1, 3, 8])
async def test_pages_show_every_job_once_though_others_are_submitted_meanwhile(
    store: Store, size: int
) -> None:
    await many(store)
    seen: list[str] = []
    query = JobQuery(size)
    while page := await store.find_jobs(query):
        seen += [job.id for job in page]
        query = replace(query, after=Place(page[-1].submitted_at, page[-1].id))
        await store.insert_job(a_job(f"new{len(seen)}", submitted_at=after(60)), queue_limit=100)
    assert seen == [f"j{number}" for number in (7, 6, 5, 4, 3, 2, 1, 0)]


async def test_a_very_long_class_is_found_by_its_name(store: Store) -> None:
    await owned(store)
    name = "demo." + "x" * 250
    await store.insert_job(a_job(spec=JobSpec(name, ())), queue_limit=100)
    assert await ids(store, JobQuery(50, main_class=name)) == ["j1"]
    assert [job.main_class for job in await store.find_jobs(JobQuery(50))] == [name]


@pytest.mark.parametrize("limit", [0, -1, -(2**31)])
async def test_a_limit_below_one_lists_nothing(store: Store, limit: int) -> None:
    await owned(store)
    await store.insert_job(a_job(), queue_limit=100)
    assert await store.find_jobs(JobQuery(limit)) == []


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
