"""A job is accepted with a guessed binary only while that is the latest of its name. What every metadata store promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

import pytest
from store_records import Store, a_binary, a_context, a_job, after, outcome_of, owned, the_job

from jobserver.errors import ContextStopping, JobServerError, NotFound, Outdated, QueueFull
from jobserver.model import BinaryRef, BinaryType, ContextState, JobRecord, JobState

FIRST, SECOND = "1" * 64, "2" * 64


UPLOADS = count()


async def uploaded(store: Store, digest: str, kind: BinaryType = BinaryType.WHEEL) -> BinaryRef:
    await store.put_binary(replace(a_binary("demo", digest, after(next(UPLOADS))), type=kind))
    return BinaryRef("demo", kind, digest)


async def test_the_latest_of_its_name_is_taken(store: Store, other: Store) -> None:
    fence = await owned(store, a_context(state=ContextState.RUNNING))
    first = await uploaded(other, FIRST)
    assert await store.insert_job(a_job(), queue_limit=9, latest=first) == a_job()
    begun = await store.insert_started_job(fence, a_job("j3"), queue_limit=9, at=after(1), latest=first)
    assert (begun.state, begun.attempt) == (JobState.RUNNING, 1)
    second = await uploaded(other, SECOND)
    assert await store.insert_job(a_job("j4"), queue_limit=9, latest=second) == a_job("j4")


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("change", ["replaced", "deleted", "of another type", "deleted and uploaded"])
async def test_an_outdated_one_is_refused(store: Store, other: Store, change: str, started: bool) -> None:
    """Also where the number of its row is given out again."""
    fence = await owned(store, a_context(state=ContextState.RUNNING))
    guess = await uploaded(store, FIRST)
    if change.startswith("deleted"):
        await other.delete_binary("demo")
    if change == "of another type":
        await uploaded(other, FIRST, BinaryType.EGG)
    if change in ("replaced", "deleted and uploaded"):
        await uploaded(other, SECOND)
    if started:
        insertion = store.insert_started_job(fence, a_job(), queue_limit=9, at=after(1), latest=guess)
    else:
        insertion = store.insert_job(a_job(), queue_limit=9, latest=guess)
    with pytest.raises(Outdated, match="replaced or deleted"):
        await insertion
    assert await store.job("j1") is None
    assert await store.job_history("j1") == []


async def test_the_same_bytes_uploaded_again_are_the_latest(store: Store) -> None:
    await owned(store)
    guess = await uploaded(store, FIRST)
    await uploaded(store, SECOND)
    await uploaded(store, FIRST)
    assert await store.insert_job(a_job(), queue_limit=9, latest=guess) == a_job()


async def test_other_refusals_keep_their_names(store: Store) -> None:
    await owned(store)
    guess = await uploaded(store, FIRST)
    await store.insert_job(a_job(), queue_limit=1, latest=guess)
    with pytest.raises(QueueFull):
        await store.insert_job(a_job("j2"), queue_limit=1, latest=guess)
    with pytest.raises(NotFound):
        await store.insert_job(a_job("j2", context_id="c9"), queue_limit=1, latest=guess)
    await store.request_stop("c1")
    with pytest.raises(ContextStopping):
        await store.insert_job(a_job("j2"), queue_limit=1, latest=guess)


async def test_a_request_that_was_accepted_before_is_answered_whatever_became_of_its_binary(
    store: Store,
) -> None:
    await owned(store)
    guess = await uploaded(store, FIRST)
    asked = a_job(idempotency_key="k", request_digest="d" * 64)
    await store.insert_job(asked, queue_limit=9, latest=guess)
    await store.delete_binary("demo")
    assert await store.insert_job(replace(asked, id="j2"), queue_limit=9, latest=guess) == asked


async def test_of_uploads_and_submissions_at_once_no_job_gets_an_outdated_binary(
    store: Store, other: Store
) -> None:
    """Once an upload is committed, no job that is submitted after it is accepted with the one before."""
    await owned(store)
    guess = await uploaded(store, FIRST)

    async def submit(number: int) -> JobRecord | JobServerError:
        return await outcome_of(store.insert_job(a_job(f"j{number}"), queue_limit=999, latest=guess))

    early = [asyncio.create_task(submit(number)) for number in range(20)]
    await uploaded(other, SECOND)
    late = await asyncio.gather(*(submit(number) for number in range(20, 40)))
    assert all(isinstance(one, Outdated) for one in late)
    for number, news in enumerate(await asyncio.gather(*early)):
        if isinstance(news, Outdated):
            assert await store.job(f"j{number}") is None
        else:
            assert (await the_job(store, f"j{number}")).state is JobState.QUEUED
