"""Accepting jobs: bounds, keys, the end of a context. What every metadata store promises."""

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
    outcome_of,
    owned,
    running,
    the_job,
)

from jobserver.errors import BadRequest, ContextStopping, JobServerError, KeyReused, NotFound, QueueFull
from jobserver.lifecycle import IllegalMove
from jobserver.listing import JobQuery
from jobserver.model import (
    BinaryRef,
    BinaryType,
    ContextState,
    Fence,
    JobRecord,
    JobSpec,
    JobState,
    OnFailover,
)


async def test_an_accepted_job_is_read_back_as_it_was_submitted(store: Store, other: Store) -> None:
    await owned(store)
    refs = (BinaryRef("a", BinaryType.WHEEL, "1" * 64), BinaryRef("b", BinaryType.ZIP, "2" * 64))
    spec = JobSpec("x.Y", refs, '{"ü": "\\ud800"}', 5, OnFailover.FAIL, priority=-7)
    job = a_job(spec=spec, principal="eve", idempotency_key="k ü", request_digest="f" * 64)
    assert await store.insert_job(job, queue_limit=1) == job
    assert await other.job("j1") == job
    assert await other.job("j2") is None


async def test_a_job_for_an_unknown_or_ended_context_is_refused(store: Store) -> None:
    with pytest.raises(NotFound, match=r"^context ctx not found$"):
        await store.insert_job(a_job(), queue_limit=100)
    await end(store, await owned(store))
    with pytest.raises(NotFound, match=r"^context ctx not found$"):
        await store.insert_job(a_job(), queue_limit=100)
    assert await store.job("j1") is None


async def test_a_job_for_a_stopping_context_is_refused(store: Store) -> None:
    await owned(store)
    await store.request_stop("c1")
    with pytest.raises(ContextStopping, match=r"^Context stop in progress$"):
        await store.insert_job(a_job(), queue_limit=100)
    assert await store.job("j1") is None


@pytest.mark.parametrize("state", [ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING])
async def test_a_job_is_accepted_also_before_and_during_a_failover(store: Store, state: ContextState) -> None:
    await store.create_context(a_context(state=state))
    assert await store.insert_job(a_job(), queue_limit=1) == a_job()


@pytest.mark.parametrize(("adhoc", "shown"), [(False, "ctx"), (True, "ad-hoc")])
async def test_a_full_queue_refuses_in_the_words_of_the_contract(
    store: Store, adhoc: bool, shown: str
) -> None:
    await owned(store, a_context(adhoc=adhoc))
    for number in range(2):
        await store.insert_job(a_job(f"j{number}"), queue_limit=2)
    with pytest.raises(QueueFull, match=rf"^Too many running jobs \(2\) for job context '{shown}'$"):
        await store.insert_job(a_job("j2"), queue_limit=2)
    assert await store.job("j2") is None


async def test_only_unfinished_jobs_of_the_context_itself_fill_its_queue(store: Store) -> None:
    fence = await owned(store)
    await owned(store, a_context("c2", "other"))
    await store.insert_job(a_job("theirs", "c2"), queue_limit=1)
    await running(store, fence, a_job("done"))
    await store.finish_job(fence, an_outcome("done"), JobState.FINISHED, after(2))
    await store.insert_job(a_job("next"), queue_limit=1)
    with pytest.raises(QueueFull):
        await store.insert_job(a_job("one more"), queue_limit=1)


async def test_many_submissions_at_once_never_overfill_the_queue(store: Store, other: Store) -> None:
    await owned(store)
    servers = [store, other] * 15
    calls = [server.insert_job(a_job(f"j{n}"), queue_limit=7) for n, server in enumerate(servers)]
    results = await asyncio.gather(*map(outcome_of, calls))
    assert sum(isinstance(one, JobRecord) for one in results) == 7
    assert sum(isinstance(one, QueueFull) for one in results) == 23
    assert len(await store.unfinished_jobs("c1")) == 7


async def test_repeated_submissions_among_others_take_no_room_in_the_queue(store: Store) -> None:
    await owned(store)
    first = a_job("first", idempotency_key="k", request_digest="a")
    await store.insert_job(first, queue_limit=10)
    repeated = [store.insert_job(replace(first, id=f"r{n}"), queue_limit=10) for n in range(20)]
    new = [store.insert_job(a_job(f"j{n}"), queue_limit=10) for n in range(9)]
    jobs = await asyncio.gather(*repeated, *new)
    assert jobs[:20] == [first] * 20
    assert {job.id for job in jobs[20:]} == {f"j{n}" for n in range(9)}


async def test_no_job_waits_in_a_context_that_ended_while_jobs_came_in(store: Store, other: Store) -> None:
    for number in range(5):
        context_id = f"c{number}"
        fence = await owned(store, a_context(context_id))
        calls = [
            other.insert_job(a_job(f"{context_id}-{n}", context_id), queue_limit=1000) for n in range(20)
        ]
        results, _ = await asyncio.gather(
            asyncio.gather(*map(outcome_of, calls)), _stop_and_end(store, fence)
        )
        refused = [one for one in results if isinstance(one, JobServerError)]
        assert all(isinstance(one, ContextStopping | NotFound) for one in refused)
        assert await store.unfinished_jobs(context_id) == []
        for job in results:
            if isinstance(job, JobRecord):
                assert (await the_job(store, job.id)).state is JobState.ERROR


async def _stop_and_end(store: Store, fence: Fence) -> None:
    assert await store.request_stop(fence.context_id)
    assert await store.move_context(fence, [ContextState.STOPPING], ContextState.FINISHED, at=after(5))
    await store.end_jobs_of_ended_context(fence.context_id, PROBLEM, after(6))


async def test_repeating_a_submission_with_its_key_gives_the_same_job(store: Store, other: Store) -> None:
    await owned(store)
    first = a_job("j1", idempotency_key="k", request_digest="a")
    again = a_job("j2", idempotency_key="k", request_digest="a", submitted_at=after(9))
    assert await store.insert_job(first, queue_limit=100) == first
    assert await other.insert_job(again, queue_limit=100) == first
    assert await store.job("j2") is None


async def test_a_repeated_submission_finds_its_job_though_the_queue_is_full(store: Store) -> None:
    await owned(store)
    job = a_job(idempotency_key="k", request_digest="a")
    await store.insert_job(job, queue_limit=1)
    assert await store.insert_job(replace(job, id="j2"), queue_limit=1) == job


async def test_a_repeated_submission_finds_its_ended_job_though_the_context_has_ended(
    store: Store, other: Store
) -> None:
    fence = await owned(store)
    job = await running(store, fence, a_job(idempotency_key="k", request_digest="a"))
    await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
    await end(store, fence)
    found = await other.insert_job(replace(job, id="j2"), queue_limit=100)
    assert (found.id, found.state, found.result) == ("j1", JobState.FINISHED, '{"n":1}')


async def test_a_key_used_for_another_request_is_refused(store: Store, other: Store) -> None:
    await owned(store)
    await store.insert_job(a_job("j1", idempotency_key="k", request_digest="a"), queue_limit=100)
    with pytest.raises(KeyReused):
        await other.insert_job(a_job("j2", idempotency_key="k", request_digest="b"), queue_limit=100)
    assert await store.job("j2") is None


async def test_a_key_belongs_to_one_user_and_is_compared_letter_by_letter(store: Store) -> None:
    await owned(store)
    for number, (user, key) in enumerate(
        [("ann", "k"), ("bob", "k"), ("ann", "K"), ("ann", None), ("ann", None)]
    ):
        job = a_job(f"j{number}", principal=user, idempotency_key=key, request_digest=str(number))
        assert await store.insert_job(job, queue_limit=100) == job


async def test_servers_that_submit_one_key_at_once_get_one_job(store: Store, other: Store) -> None:
    await owned(store)
    jobs = [a_job(f"j{number}", idempotency_key="k", request_digest="a") for number in range(12)]
    calls = [
        server.insert_job(job, queue_limit=100) for job, server in zip(jobs, [store, other] * 6, strict=True)
    ]
    results = await asyncio.gather(*calls)
    assert len({job.id for job in results}) == 1
    assert [job.id for job in await store.unfinished_jobs("c1")] == [results[0].id]


async def test_repeating_an_insert_after_a_lost_reply_gives_the_same_job(store: Store) -> None:
    await owned(store)
    await store.insert_job(a_job(), queue_limit=1)
    assert await store.insert_job(a_job(), queue_limit=1) == a_job()
    assert len(await store.find_jobs(JobQuery(10))) == 1


async def test_a_job_begins_queued(store: Store) -> None:
    await owned(store)
    with pytest.raises(IllegalMove):
        await store.insert_job(a_job(state=JobState.FINISHED), queue_limit=100)


@pytest.mark.parametrize("priority", [2**31, -(2**31), 2**70])
async def test_a_priority_that_no_column_holds_is_refused(store: Store, priority: int) -> None:
    await owned(store)
    with pytest.raises(BadRequest, match="priority"):
        await store.insert_job(a_job(spec=JobSpec("x.Y", (), priority=priority)), queue_limit=100)


@pytest.mark.parametrize("field", ["idempotency_key", "principal"])
async def test_a_key_or_a_user_that_no_column_holds_is_refused_and_not_cut(store: Store, field: str) -> None:
    await owned(store)
    for last in "ab":  # cut, these two were one
        with pytest.raises(BadRequest, match="256 characters; it may have 255"):
            await store.insert_job(a_job(f"j-{last}", **{field: "k" * 255 + last}), queue_limit=100)
    assert await store.unfinished_jobs("c1") == []


# Acceptance and start in one write


async def test_the_owner_accepts_and_starts_in_one_write(store: Store, other: Store) -> None:
    fence = await owned(store, a_context(state=ContextState.RUNNING))
    started = a_job(state=JobState.RUNNING, attempt=1, started_at=after(1))
    assert await store.insert_started_job(fence, a_job(), queue_limit=1, at=after(1)) == started
    assert await other.job("j1") == started
    assert not await store.start_attempt(fence, "j1", 1, after(2))
    assert await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(3))


@pytest.mark.parametrize("state", [ContextState.STARTED, ContextState.RESTARTING])
async def test_a_job_of_a_context_that_does_not_run_is_accepted_and_not_started(
    store: Store, state: ContextState
) -> None:
    fence = await owned(store, a_context(state=state))
    assert await store.insert_started_job(fence, a_job(), queue_limit=1, at=after(1)) == a_job()
    assert await store.job("j1") == a_job()


async def test_a_superseded_owner_accepts_a_job_and_does_not_start_it(store: Store, other: Store) -> None:
    stale = await owned(store, a_context(state=ContextState.RUNNING))
    stranger = await owned(store, a_context("c2", "other", state=ContextState.RUNNING))
    assert await other.grant("c1", 1, "s2", "i2", "t2")
    for number, fence in enumerate([stale, replace(stale, epoch=2), replace(stale, token="t2"), stranger]):
        job = a_job(f"j{number}")
        assert await store.insert_started_job(fence, job, queue_limit=100, at=after(1)) == job
        assert await store.job(job.id) == job


async def test_accepting_and_starting_refuses_as_acceptance_does(store: Store) -> None:
    fence = await owned(store, a_context(state=ContextState.RUNNING))
    keyed = a_job(idempotency_key="k", request_digest="a")
    first = await store.insert_started_job(fence, keyed, queue_limit=1, at=after(1))
    again = await store.insert_started_job(fence, replace(keyed, id="j2"), queue_limit=1, at=after(2))
    assert again == first
    with pytest.raises(KeyReused):
        await store.insert_started_job(fence, replace(keyed, request_digest="b"), queue_limit=1, at=after(2))
    with pytest.raises(QueueFull):
        await store.insert_started_job(fence, a_job("j3"), queue_limit=1, at=after(2))
    assert await store.request_stop("c1")
    with pytest.raises(ContextStopping):
        await store.insert_started_job(fence, a_job("j3"), queue_limit=100, at=after(2))
