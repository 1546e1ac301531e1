"""Removing the past: what the metadata stores in SQL promise (the one in memory keeps everything)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from store_records import (
    PROBLEM,
    T0,
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

from jobserver.errors import StoreUnavailable
from jobserver.history import Operation
from jobserver.listing import JobQuery, Place
from jobserver.model import BinaryRef, BinaryType, Fence, JobSpec, JobState
from jobserver.store import retention as queries
from jobserver.store.metadata import Metadata

OLD, NEW = "d" * 64, "e" * 64


@pytest.fixture(params=["sqlite", "mariadb"])
def servers(request: pytest.FixtureRequest) -> tuple[Store, Store]:
    servers: tuple[Store, Store] = request.getfixturevalue(f"{request.param}_servers")
    return servers


async def done(store: Store, fence, name: str, seconds: float, **fields) -> None:
    """A job that was submitted and ended at that time."""
    await store.insert_job(a_job(name, submitted_at=after(seconds), **fields), queue_limit=1000)
    assert await store.start_attempt(fence, name, 1, after(seconds))
    assert await store.finish_job(fence, an_outcome(name), JobState.FINISHED, after(seconds))


async def granted(store: Store, context_id: str) -> Fence:
    assert await store.grant(context_id, 0, "s1", "i1", "t")
    return Fence(context_id, 1, "t")


async def ids(store: Metadata) -> list[str]:
    return sorted(job.id for job in await store.find_jobs(JobQuery(100)))


async def test_old_jobs_are_those_that_were_submitted_and_ended_before(store: Metadata) -> None:
    fence = await owned(store)
    await done(store, fence, "old", 1)
    await done(store, fence, "older", 0)
    await done(store, fence, "young", 9)
    await running(store, fence, a_job("long"))
    await running(store, fence, a_job("just ended"))
    await store.finish_job(fence, an_outcome("just ended"), JobState.FINISHED, after(9))
    await store.insert_job(a_job("waiting"), queue_limit=100)
    found = queries.old_jobs(after(5))
    assert await store.retention.keys(found, 10) == ["older", "old"]
    assert await store.retention.keys(found, 1) == ["older"]
    assert await store.retention.count(found) == 2


async def test_a_job_goes_with_its_history_its_callback_and_its_key(store: Metadata, other: Metadata) -> None:
    fence = await owned(store)
    keyed = {"idempotency_key": "k", "request_digest": "a"}
    await done(store, fence, "gone", 1, **keyed)
    await done(store, fence, "kept", 2)
    assert await other.retention.delete_jobs(["gone", "unknown"]) == 1
    assert await ids(store) == ["kept"]
    assert await store.job_history("gone") == []
    assert len(await store.job_history("kept")) == 3
    again = a_job("again", idempotency_key="k", request_digest="another")
    assert await store.insert_job(again, queue_limit=100) == again


async def test_an_unfinished_job_is_never_deleted(store: Metadata) -> None:
    fence = await owned(store)
    await running(store, fence, a_job("running"))
    await store.insert_job(a_job("waiting"), queue_limit=100)
    assert await store.retention.delete_jobs(["running", "waiting"]) == 0
    assert await ids(store) == ["running", "waiting"]


async def test_a_job_whose_end_is_still_to_be_told_is_not_old(store: Metadata) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=1, callback_url="http://x")
    await store.start_attempt(fence, "j1", 1, after(1))
    await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
    assert await store.retention.keys(queries.old_jobs(after(99)), 10) == []
    (callback,) = await store.callbacks.due(after(3), 10)
    await store.callbacks.take(callback, after(9))
    await store.callbacks.delivered("j1", 1, after(4))
    assert await store.retention.keys(queries.old_jobs(after(99)), 10) == ["j1"]
    assert await store.retention.delete_jobs(["j1"]) == 1


async def test_of_too_many_jobs_the_oldest_ended_ones_go(store: Metadata) -> None:
    fence = await owned(store)
    await running(store, fence, a_job("j0"))
    for number in range(1, 6):
        await done(store, fence, f"j{number}", number // 2)
    assert await store.retention.job_beyond(6) is None
    beyond = await store.retention.job_beyond(2)
    assert beyond == Place(after(1), "j3")
    assert await store.retention.keys(queries.jobs_up_to(beyond), 10) == ["j1", "j2", "j3"]


async def test_results_are_dropped_and_their_jobs_stay(store: Metadata) -> None:
    fence = await owned(store)
    await done(store, fence, "j1", 1)
    await done(store, fence, "j2", 2)
    await running(store, fence, a_job("j3"))
    assert await store.retention.count(queries.old_results(after(2))) == 1
    assert await store.retention.drop_results(["j1", "j3"]) == 1
    assert await store.retention.drop_results(["j1"]) == 0
    assert (await the_job(store, "j1")).result is None
    assert (await the_job(store, "j1")).state is JobState.FINISHED
    assert (await the_job(store, "j2")).result == '{"n":1}'


async def test_jobs_are_walked_through_from_place_to_place_with_their_ends(store: Metadata) -> None:
    fence = await owned(store)
    for number in range(5):
        await done(store, fence, f"j{number}", number // 2)
    await running(store, fence, a_job("j9"))
    first = await store.retention.submitted_jobs(None, after(2), 3)
    assert [place.job_id for place, _ in first] == ["j0", "j1", "j9"]
    assert first[-1][1] is None
    assert None not in (first[0][1], first[1][1])
    rest = await store.retention.submitted_jobs(first[-1][0], after(2), 3)
    assert [place.job_id for place, _ in rest] == ["j2", "j3"]
    assert await store.retention.ends_of(["j0", "j9", "gone"]) == {"j0": first[0][1], "j9": None}


async def test_ended_contexts_without_jobs_go_with_their_fences(store: Metadata) -> None:
    for number in (1, 2, 3):
        fence = await owned(store, a_context(f"c{number}", f"n{number}"))
        if number == 2:
            await done(store, fence, "j", 1, context_id="c2")
        await end(store, fence)
    await owned(store, a_context("c4", "n4"))
    old = await store.retention.old_contexts(None, after(60), 10)
    assert [place.job_id for place in old] == ["c1", "c3"]
    assert await store.retention.old_contexts(old[0], after(60), 10) == old[1:]
    assert await store.retention.old_contexts(None, after(50), 10) == []
    assert await store.retention.context_beyond(1) == after(50)
    assert await store.retention.context_beyond(3) is None
    assert await store.retention.delete_contexts(["c1", "c2", "c4"]) == 1
    assert await store.context("c1") is None
    assert await store.fence("c1") is None
    assert await store.fence("c2") is not None
    assert await store.fence("c4") is not None


async def test_operations_go_by_age(store: Metadata) -> None:
    for seconds in (3, 1, 2):
        await store.audit.add(Operation(after(seconds), "eve", "kill", f"j{seconds}"))
    keys = await store.retention.keys(queries.old_operations(after(3)), 10)
    assert await store.retention.delete_operations(keys) == 2
    assert [one.target for one in await store.audit.newest(10)] == ["j3"]


# Code


async def accept_with(store: Store, context_id: str, digest: str) -> None:
    spec = JobSpec("x.Y", (BinaryRef("demo", BinaryType.EGG, digest),))
    await store.insert_job(a_job(f"j-{context_id}", context_id, spec=spec), queue_limit=100)


async def forget(store: Metadata, fence: Fence) -> None:
    """The context ends, and retention removes its jobs and then itself."""
    await end(store, fence)
    await store.end_jobs_of_ended_context("c1", PROBLEM, after(1))
    await store.retention.delete_jobs(["j-c1"])
    assert await store.retention.delete_contexts(["c1"]) == 1


async def versions(store: Metadata, query) -> int:
    return await store.retention.delete_versions(await store.retention.keys(query, 10))


async def test_replaced_uploads_go_by_age_and_number_and_the_latest_never(store: Metadata) -> None:
    for number in range(4):
        await store.put_binary(a_binary("demo", str(number) * 64, after(number)))
    await store.put_binary(a_binary("other", OLD, T0))
    assert await store.retention.keys(queries.old_versions(None, None), 10) == []
    assert await store.retention.count(queries.old_versions(after(1), None)) == 1
    assert await store.retention.count(queries.old_versions(None, 3)) == 1
    assert await store.retention.count(queries.old_versions(None, 0)) == 3
    assert await versions(store, queries.old_versions(after(99), 2)) == 3
    assert [one.digest[0] for one in await store.list_binaries()] == ["3", "d"]


async def test_a_replaced_upload_stays_while_a_context_that_took_jobs_with_it_is_on_record(
    store: Metadata,
) -> None:
    fence = await owned(store)
    await store.put_binary(a_binary(digest=OLD))
    await store.put_binary(a_binary(digest=NEW))
    await accept_with(store, "c1", OLD)
    assert await store.retention.count(queries.old_versions(after(99), 1)) == 0
    await forget(store, fence)
    assert await store.retention.count(queries.old_versions(after(99), 1)) == 1


async def test_bytes_go_when_nobody_has_needed_them_for_the_whole_grace(store: Metadata) -> None:
    fence = await owned(store)
    await store.put_binary(a_binary())
    await accept_with(store, "c1", OLD)
    await store.delete_binary("demo")
    await store.retention.look_at_bytes(after(10))
    assert await store.retention.keys(queries.unused_bytes(after(99)), 10) == [], "a context needs them"
    await forget(store, fence)
    await store.retention.look_at_bytes(after(20))
    await store.retention.look_at_bytes(after(30))
    assert await store.retention.keys(queries.unused_bytes(after(20)), 10) == []
    assert await store.retention.keys(queries.unused_bytes(after(21)), 10) == [OLD]
    assert not await store.retention.begin_removal(OLD, after(20), after(40))
    assert await store.retention.begin_removal(OLD, after(21), after(40))
    assert not await store.retention.begin_removal(OLD, after(99), after(40))


async def test_a_context_that_starts_from_anothers_checkpoint_keeps_the_bytes_that_this_one_needs(
    store: Metadata,
) -> None:
    await store.put_binary(a_binary())
    fence = await owned(store)
    await accept_with(store, "c1", OLD)
    await store.delete_binary("demo")
    await end(store, fence)
    copy = a_context("c2", "copy")
    for _ in range(2):
        await store.create_context(copy, restored_from="c1")
    await store.end_jobs_of_ended_context("c1", PROBLEM, after(1))
    await store.retention.delete_jobs(await store.retention.keys(queries.old_jobs(after(50)), 10))
    assert await store.retention.delete_contexts(["c1"]) == 1
    await store.retention.look_at_bytes(after(20))
    assert await store.retention.keys(queries.unused_bytes(after(99)), 10) == []
    await end(store, await granted(store, "c2"))
    await store.retention.delete_contexts(["c2"])
    await store.retention.look_at_bytes(after(30))
    assert await store.retention.keys(queries.unused_bytes(after(99)), 10) == [OLD]


async def test_bytes_that_are_uploaded_again_are_kept_and_their_grace_begins_anew(
    store: Metadata, other: Metadata
) -> None:
    await store.put_binary(a_binary())
    await store.delete_binary("demo")
    await store.retention.look_at_bytes(after(10))
    await other.keep_binary(OLD, 1234, after(20))
    assert not await store.retention.begin_removal(OLD, after(99), after(30))
    await store.retention.look_at_bytes(after(40))
    assert await store.retention.keys(queries.unused_bytes(after(41)), 10) == [OLD]
    await other.put_binary(a_binary())
    assert not await store.retention.begin_removal(OLD, after(99), after(50))
    await store.retention.look_at_bytes(after(60))
    await store.delete_binary("demo")
    assert await store.retention.keys(queries.unused_bytes(after(99)), 10) == []


async def test_bytes_that_are_being_removed_take_no_upload_until_they_are_gone(
    store: Metadata, other: Metadata
) -> None:
    await store.put_binary(a_binary())
    await store.delete_binary("demo")
    await store.retention.look_at_bytes(after(10))
    assert await store.retention.begin_removal(OLD, after(11), after(20))
    with pytest.raises(StoreUnavailable, match="being removed"):
        await other.keep_binary(OLD, 1234, after(21))
    with pytest.raises(StoreUnavailable, match="being removed"):
        await other.put_binary(a_binary())
    assert await other.find_binary("demo") is None
    assert await store.retention.keys(queries.interrupted_removals(after(20)), 10) == []
    assert await store.retention.keys(queries.interrupted_removals(after(21)), 10) == [OLD]
    await store.retention.end_removal(OLD)
    await other.put_binary(a_binary())
    await store.retention.end_removal(OLD)
    assert not await store.retention.begin_removal(OLD, after(99), after(30))
    assert await other.find_binary("demo") == a_binary()


async def test_of_uploads_and_a_removal_at_once_no_record_is_left_without_its_bytes(
    store: Metadata, other: Metadata
) -> None:
    for number in range(5):
        digest = f"{number:064x}"
        await store.put_binary(a_binary("demo", digest))
        await store.delete_binary("demo")
        await store.retention.look_at_bytes(after(10))
        removing, *puts = await asyncio.gather(
            store.retention.begin_removal(digest, after(99), after(20)),
            *(other.put_binary(a_binary(f"again{n}", digest)) for n in range(3)),
            return_exceptions=True,
        )
        stored = [put for put in puts if put is None]
        assert bool(stored) != removing, (removing, puts)


async def test_the_jobs_of_an_ended_context_that_never_ran_go_too(store: Metadata) -> None:
    fence = await owned(store)
    await store.insert_job(replace(a_job(), submitted_at=T0), queue_limit=1)
    await end(store, fence)
    await store.end_jobs_of_ended_context("c1", PROBLEM, after(1))
    keys = await store.retention.keys(queries.old_jobs(after(2)), 10)
    assert await store.retention.delete_jobs(keys) == 1
    assert await store.retention.delete_contexts(["c1"]) == 1
