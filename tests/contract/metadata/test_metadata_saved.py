"""Configs, queries and callbacks: what every metadata store promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from store_records import PROBLEM, T0, Store, a_job, after, an_outcome, end, owned, running

from jobserver.errors import BadRequest, QueueFull
from jobserver.model import ContextState, JobState
from jobserver.saved import Callback, CallbackState, SavedConfig, SavedQuery

CONFIG = SavedConfig("nightly", {"input": {"ü": [1, 2.5, None]}, "half": "\ud800"}, "eve", T0, T0)
QUERY = SavedQuery(
    "top", "select :n, '\ud800 ü'", "eve", T0, T0, {"n": {"type": "int"}}, "ctx", {"n": 10, "limit": None}
)
URL = "http://127.0.0.1:9/ü?x=%20"


async def test_a_config_is_read_back_as_it_was_saved(store: Store, other: Store) -> None:
    assert await store.saved.put_config(CONFIG)
    assert await other.saved.config("nightly") == CONFIG
    assert await other.saved.config("Nightly") is None
    assert await other.saved.config("\udc80") is None


async def test_saving_again_replaces_all_but_the_first_time(store: Store, other: Store) -> None:
    await store.saved.put_config(CONFIG)
    later = replace(CONFIG, body={}, principal="ann", created_at=after(9), changed_at=after(9))
    assert not await other.saved.put_config(later)
    assert await store.saved.config("nightly") == replace(later, created_at=T0)
    await store.saved.put_query(QUERY)
    changed = replace(QUERY, text="select 2", created_at=after(9), changed_at=after(9))
    assert not await other.saved.put_query(changed)
    assert await store.saved.query("top") == replace(changed, created_at=T0)


async def test_of_servers_that_save_one_name_at_once_one_makes_it(store: Store, other: Store) -> None:
    calls = [server.saved.put_config(CONFIG) for server in [store, other] * 5]
    assert (await asyncio.gather(*calls)).count(True) == 1


async def test_a_query_is_read_back_as_it_was_saved(store: Store, other: Store) -> None:
    assert await store.saved.put_query(QUERY)
    assert await other.saved.query("top") == QUERY
    plain = SavedQuery("plain", "select 1", "eve", T0, T0)
    await store.saved.put_query(plain)
    assert await other.saved.query("plain") == plain


async def test_saved_things_are_listed_by_name_in_pages(store: Store) -> None:
    for name in ("b", "a", "C", "d"):
        await store.saved.put_config(replace(CONFIG, name=name))
        await store.saved.put_query(replace(QUERY, name=name))
    for listing in (store.saved.configs, store.saved.queries):
        assert [one.name for one in await listing(10)] == ["C", "a", "b", "d"]
        assert [one.name for one in await listing(2, "a")] == ["b", "d"]
        assert await listing(0) == []
        assert await listing(10, "d") == []


async def test_saved_things_are_deleted_once(store: Store, other: Store) -> None:
    await store.saved.put_config(CONFIG)
    await store.saved.put_query(QUERY)
    for delete, name in (
        (other.saved.delete_config, "nightly"),
        (other.saved.delete_query, "top"),
    ):
        assert await delete(name)
        assert not await delete(name)
        assert not await delete("\udc80")
    assert await store.saved.config("nightly") is None


async def test_names_that_no_encoding_holds_are_refused(store: Store) -> None:
    with pytest.raises(BadRequest):
        await store.saved.put_config(replace(CONFIG, name="\udc80"))
    with pytest.raises(BadRequest):
        await store.saved.put_query(replace(QUERY, context="\udc80"))


# Callbacks


async def test_a_callback_is_on_record_with_its_job_and_due_once_that_has_ended(
    store: Store, other: Store
) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=1, callback_url=URL)
    pending = Callback("j1", URL, CallbackState.PENDING, 0, T0)
    assert await other.callbacks.of_job("j1") == pending
    assert await other.callbacks.due(after(60), 10) == []
    await store.start_attempt(fence, "j1", 1, after(1))
    await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
    assert await other.callbacks.due(after(60), 10) == [pending]
    assert await other.callbacks.due(after(-1), 10) == []
    assert await other.callbacks.due(after(60), 0) == []


async def test_a_refused_job_leaves_no_callback_and_one_started_at_once_has_it(store: Store) -> None:
    fence = await owned(store)
    await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=T0)
    await store.insert_started_job(fence, a_job(), queue_limit=1, at=T0, callback_url=URL)
    with pytest.raises(QueueFull):
        await store.insert_job(a_job("j2"), queue_limit=1, callback_url=URL)
    assert await store.callbacks.of_job("j1") is not None
    assert await store.callbacks.of_job("j2") is None


async def test_the_jobs_of_an_ended_context_are_told_of_too(store: Store) -> None:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=1, callback_url=URL)
    await end(store, fence)
    await store.end_jobs_of_ended_context("c1", PROBLEM, after(60))
    assert [one.job_id for one in await store.callbacks.due(after(60), 10)] == ["j1"]


async def ended_with_callback(store: Store) -> Callback:
    fence = await owned(store)
    await store.insert_job(a_job(), queue_limit=1, callback_url=URL)
    await store.start_attempt(fence, "j1", 1, after(1))
    await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
    (due,) = await store.callbacks.due(after(3), 10)
    return due


async def test_of_servers_that_begin_one_try_exactly_one_has_it_until_its_lease_is_over(
    store: Store, other: Store
) -> None:
    due = await ended_with_callback(store)
    taken = await asyncio.gather(*(one.callbacks.take(due, after(30)) for one in [store, other] * 4))
    assert taken.count(True) == 1
    assert await other.callbacks.due(after(29), 10) == []
    assert await other.callbacks.due(after(30), 10) == [replace(due, tries=1, next_at=after(30))]


async def test_a_failed_try_is_followed_by_the_next_and_a_delivered_one_by_none(
    store: Store, other: Store
) -> None:
    due = await ended_with_callback(store)
    assert await store.callbacks.take(due, after(30))
    assert await store.callbacks.failed("j1", 1, "answered 503 \ud800", after(40))
    (again,) = await other.callbacks.due(after(40), 10)
    assert again == replace(due, tries=1, next_at=after(40), last_error="answered 503 \ud800")
    assert await other.callbacks.take(again, after(70))
    assert not await store.callbacks.failed("j1", 1, "an older try", after(80))
    assert await other.callbacks.delivered("j1", 2, after(50))
    assert not await other.callbacks.given_up("j1", 2, "too late", after(51))
    assert await store.callbacks.due(after(999), 10) == []
    assert await store.callbacks.of_job("j1") == Callback("j1", URL, CallbackState.DELIVERED, 2, after(50))


async def test_a_callback_that_was_given_up_says_why(store: Store) -> None:
    due = await ended_with_callback(store)
    assert await store.callbacks.take(due, after(30))
    assert await store.callbacks.given_up("j1", 1, "refused", after(31))
    assert not await store.callbacks.take(replace(due, tries=1), after(60))
    assert await store.callbacks.of_job("j1") == Callback(
        "j1", URL, CallbackState.FAILED, 1, after(31), "refused"
    )


async def test_the_longest_overdue_comes_first(store: Store) -> None:
    fence = await owned(store)
    for number, seconds in enumerate([20, 10, 30]):
        job = a_job(f"j{number}", submitted_at=after(seconds))
        await store.insert_job(job, queue_limit=10, callback_url=URL)
        await store.start_attempt(fence, job.id, 1, after(40))
        await store.finish_job(fence, an_outcome(job.id), JobState.FINISHED, after(41))
    await running(store, fence, a_job("j9"))
    assert [one.job_id for one in await store.callbacks.due(after(99), 2)] == ["j1", "j0"]
