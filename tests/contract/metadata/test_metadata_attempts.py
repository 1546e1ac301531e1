"""Attempts and outcomes of jobs: what every metadata store promises."""

from __future__ import annotations

import asyncio
import json

import pytest
from store_records import PROBLEM, Store, a_job, after, an_outcome, owned, running, the_job

from jobserver.lifecycle import IllegalMove
from jobserver.model import AttemptOutcome, JobState, OutcomeKind


async def test_an_attempt_starts_once_and_in_order(store: Store) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=100)
    assert not await store.start_attempt(fence, "j1", 2, after(1))
    assert await store.start_attempt(fence, "j1", 1, after(1))
    assert not await store.start_attempt(fence, "j1", 1, after(2))
    assert not await store.start_attempt(fence, "j1", 2, after(2))
    assert await store.job("j1") == a_job(state=JobState.RUNNING, attempt=1, started_at=after(1))


async def test_a_job_starts_again_after_the_death_of_its_driver(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    assert await store.restart_job(fence, "j1", 1, died=True, error=PROBLEM, at=after(2))
    restarting = a_job(state=JobState.RESTARTING, attempt=1, deaths=1, started_at=after(1), error=PROBLEM)
    assert await store.job("j1") == restarting
    assert await store.start_attempt(fence, "j1", 2, after(3))
    expected = a_job(state=JobState.RUNNING, attempt=2, deaths=1, started_at=after(1))
    assert await store.job("j1") == expected


async def test_a_planned_restart_is_no_death(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    assert await store.restart_job(fence, "j1", 1, died=False, error=None, at=after(2))
    job = await the_job(store)
    assert (job.state, job.deaths) == (JobState.RESTARTING, 0)


async def test_only_the_running_attempt_restarts(store: Store) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=100)
    assert not await store.restart_job(fence, "j1", 0, died=True, error=None, at=after(1))
    assert await store.start_attempt(fence, "j1", 1, after(1))
    assert not await store.restart_job(fence, "j1", 2, died=True, error=None, at=after(2))
    assert await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(2))
    assert not await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(3))
    assert (await the_job(store)).deaths == 1


async def test_the_first_result_stands(store: Store, other: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    assert await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
    late = AttemptOutcome("j1", 1, OutcomeKind.FAILED, None, PROBLEM)
    assert not await other.finish_job(fence, late, JobState.ERROR, after(3))
    expected = a_job(
        state=JobState.FINISHED,
        attempt=1,
        started_at=after(1),
        ended_at=after(2),
        result='{"n":1}',
        outcome=OutcomeKind.FINISHED,
    )
    assert await other.job("j1") == expected


async def test_of_results_that_arrive_at_once_exactly_one_is_taken(store: Store, other: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    outcomes = [an_outcome(result=str(number)) for number in range(10)]
    calls = [
        server.finish_job(fence, outcome, JobState.FINISHED, after(2))
        for outcome, server in zip(outcomes, [store, other] * 5, strict=True)
    ]
    taken = await asyncio.gather(*calls)
    assert taken.count(True) == 1
    assert (await the_job(store)).result == outcomes[taken.index(True)].result


async def test_the_outcome_of_an_older_attempt_is_refused(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(2))
    assert await store.start_attempt(fence, "j1", 2, after(3))
    assert not await store.finish_job(fence, an_outcome(attempt=1), JobState.FINISHED, after(4))
    assert not await store.finish_job(fence, an_outcome(attempt=3), JobState.FINISHED, after(4))
    assert await store.finish_job(fence, an_outcome(attempt=2, result="2"), JobState.FINISHED, after(4))
    assert (await the_job(store)).result == "2"


async def test_the_outcome_of_an_attempt_that_was_thought_lost_is_taken_until_the_next_starts(
    store: Store,
) -> None:
    fence = await owned(store)
    await running(store, fence)
    await store.restart_job(fence, "j1", 1, died=True, error=PROBLEM, at=after(2))
    assert await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(3))
    job = await the_job(store)
    assert (job.state, job.result, job.error) == (JobState.FINISHED, '{"n":1}', None)


async def test_a_job_that_never_ran_has_no_outcome(store: Store) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=100)
    assert not await store.finish_job(fence, an_outcome(attempt=0), JobState.FINISHED, after(1))
    assert await store.job("j1") == a_job()


@pytest.mark.parametrize("state", [JobState.ERROR, JobState.KILLED])
async def test_a_job_that_did_not_finish_has_an_error_and_no_result(store: Store, state: JobState) -> None:
    fence = await owned(store)
    await running(store, fence)
    outcome = AttemptOutcome("j1", 1, OutcomeKind.FAILED, '"left over"', PROBLEM)
    assert await store.finish_job(fence, outcome, state, after(2))
    job = await the_job(store)
    assert (job.state, job.error, job.result, job.outcome) == (state, PROBLEM, None, OutcomeKind.FAILED)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.RESTARTING])
async def test_a_job_cannot_end_in_a_state_that_is_not_final(store: Store, state: JobState) -> None:
    fence = await owned(store)
    await running(store, fence)
    with pytest.raises(IllegalMove):
        await store.finish_job(fence, an_outcome(), state, after(2))
    with pytest.raises(IllegalMove):
        await store.end_waiting_job(fence, "j1", state, None, after(2))
    assert (await the_job(store)).state is JobState.RUNNING


async def test_a_result_with_half_a_surrogate_pair_stays_the_same_json(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    value = {"half \udc80": "\ud800", "ü": "\U0001f600", "nul": "\x00"}
    outcome = an_outcome(result=json.dumps(value, ensure_ascii=False))
    assert await store.finish_job(fence, outcome, JobState.FINISHED, after(2))
    assert json.loads((await the_job(store)).result or "") == value


async def test_a_waiting_job_can_be_ended_and_a_running_one_cannot_this_way(store: Store) -> None:
    fence = await owned(store)
    await store.insert_job(a_job("waiting"), queue_limit=100)
    await running(store, fence, a_job("running"))
    assert await store.end_waiting_job(fence, "waiting", JobState.KILLED, PROBLEM, after(2))
    ended = a_job("waiting", state=JobState.KILLED, error=PROBLEM, ended_at=after(2))
    assert await store.job("waiting") == ended
    assert not await store.end_waiting_job(fence, "waiting", JobState.ERROR, None, after(3))
    assert not await store.end_waiting_job(fence, "running", JobState.KILLED, None, after(3))
    assert not await store.start_attempt(fence, "waiting", 1, after(3))


async def test_a_job_between_attempts_can_be_ended(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence)
    await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(2))
    assert await store.end_waiting_job(fence, "j1", JobState.ERROR, PROBLEM, after(3))
    assert not await store.start_attempt(fence, "j1", 2, after(4))
