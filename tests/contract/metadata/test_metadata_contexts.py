"""Contexts, one living one per name, moved by their owner: what every metadata store promises."""

from __future__ import annotations

import asyncio

import pytest
from store_records import ALL_LIVING, DRIVER, PROBLEM, Store, a_context, after, end, owned, state_of

from jobserver.errors import ContextExists
from jobserver.lifecycle import IllegalMove
from jobserver.model import ContextState, Failover, FenceRow


async def test_a_context_is_read_back_as_it_was_written(store: Store, other: Store) -> None:
    record = a_context(
        settings={"spark.x": "ü", "deep": {"list": [1, 2.5, None, True]}},
        adhoc=True,
        error=PROBLEM,
        driver=DRIVER,
        last_failover=Failover(after(3), "restored-hot", 0.75),
    )
    await store.create_context(record)
    assert await other.context("c1") == record
    assert await other.latest_context("ctx") == record
    assert await other.context("c2") is None
    assert await other.latest_context("CTX") is None


async def test_a_new_context_has_a_fence_that_nobody_holds(store: Store) -> None:
    await store.create_context(a_context())
    assert await store.fence("c1") == FenceRow("c1", 0, "", "", "")
    assert await store.fence("c2") is None


async def test_a_name_has_one_living_context(store: Store, other: Store) -> None:
    await store.create_context(a_context("c1"))
    with pytest.raises(ContextExists, match=r"^context ctx exists$"):
        await other.create_context(a_context("c2"))
    assert await store.context("c2") is None
    assert await store.fence("c2") is None


async def test_of_servers_that_create_one_name_at_once_exactly_one_wins(store: Store, other: Store) -> None:
    records = [a_context(f"c{number}") for number in range(10)]
    calls = [server.create_context(one) for one, server in zip(records, [store, other] * 5, strict=True)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert all(result is None or isinstance(result, ContextExists) for result in results)
    assert len(await store.active_contexts()) == 1


async def test_creating_a_context_again_with_its_id_changes_nothing(store: Store, other: Store) -> None:
    fence = await owned(store)
    assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=after(1))
    await other.create_context(a_context())
    assert await state_of(store) is ContextState.RUNNING
    assert await store.fence("c1") == FenceRow("c1", 1, "s1", "i1", fence.token)


async def test_a_name_is_free_again_once_its_context_has_ended(store: Store) -> None:
    await end(store, await owned(store))
    await store.create_context(a_context("c2", started_at=after(60)))
    latest = await store.latest_context("ctx")
    assert latest is not None
    assert latest.id == "c2"


async def test_the_living_context_of_a_name_is_its_latest_whatever_the_clocks_say(store: Store) -> None:
    await end(store, await owned(store))
    await store.create_context(a_context("c2", started_at=after(-60)))
    latest = await store.latest_context("ctx")
    assert latest is not None
    assert latest.id == "c2"


async def test_the_latest_of_ended_contexts_is_the_one_started_last(store: Store) -> None:
    for number, seconds in ((1, 10), (2, 30), (3, 20)):
        record = a_context(f"c{number}", started_at=after(seconds))
        await end(store, await owned(store, record))
    latest = await store.latest_context("ctx")
    assert latest is not None
    assert latest.id == "c2"


async def test_active_contexts_are_those_that_have_not_ended(store: Store) -> None:
    await end(store, await owned(store, a_context("c1", "one")))
    await store.create_context(a_context("c3", "three", started_at=after(3)))
    await store.create_context(a_context("c2", "two", started_at=after(2)))
    assert [one.id for one in await store.active_contexts()] == ["c2", "c3"]


async def test_listed_contexts_run_restart_or_stop_newest_first(store: Store) -> None:
    states = [ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING, ContextState.STOPPING]
    for number, state in enumerate(states):
        record = a_context(f"c{number}", f"n{number}", state=state, started_at=after(number))
        await store.create_context(record)
    assert [one.id for one in await store.listed_contexts()] == ["c3", "c2", "c1"]


async def test_a_context_moves_only_from_the_states_that_were_named(store: Store) -> None:
    fence = await owned(store)
    assert not await store.move_context(fence, [ContextState.RESTARTING], ContextState.RUNNING, at=after(1))
    assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=after(1))
    assert await state_of(store) is ContextState.RUNNING


async def test_an_ended_context_keeps_when_and_why(store: Store) -> None:
    fence = await owned(store)
    assert await store.move_context(fence, ALL_LIVING, ContextState.ERROR, at=after(9), error=PROBLEM)
    assert await store.context("c1") == a_context(state=ContextState.ERROR, ended_at=after(9), error=PROBLEM)
    assert not await store.move_context(fence, ALL_LIVING, ContextState.KILLED, at=after(10))


async def test_a_move_that_is_in_no_table_is_refused(store: Store) -> None:
    fence = await owned(store)
    with pytest.raises(IllegalMove):
        await store.move_context(fence, [ContextState.STARTED], ContextState.FINISHED, at=after(1))
    assert await state_of(store) is ContextState.STARTED


async def test_a_context_is_finished_only_from_stopping_whatever_else_was_allowed(store: Store) -> None:
    fence = await owned(store)
    assert not await store.move_context(fence, ALL_LIVING, ContextState.FINISHED, at=after(1))
    assert await store.request_stop("c1")
    assert await store.move_context(fence, ALL_LIVING, ContextState.FINISHED, at=after(1))


async def test_the_driver_is_recorded_and_forgotten(store: Store) -> None:
    fence = await owned(store)
    assert await store.record_driver(fence, DRIVER)
    assert await store.context("c1") == a_context(driver=DRIVER)
    assert await store.record_driver(fence, None)
    assert await store.context("c1") == a_context()


async def test_the_last_failover_is_recorded(store: Store) -> None:
    fence = await owned(store)
    failover = Failover(after(7), "adopted", 0.125, (), {"granting": 0.1, "adopting": 0.025})
    assert await store.record_failover(fence, failover)
    assert await store.context("c1") == a_context(last_failover=failover)


@pytest.mark.parametrize("state", [ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING])
async def test_any_server_may_ask_once_that_a_context_stops(
    store: Store, other: Store, state: ContextState
) -> None:
    await store.create_context(a_context(state=state))
    assert await other.request_stop("c1")
    assert await state_of(store) is ContextState.STOPPING
    assert not await store.request_stop("c1")
    assert not await store.request_stop("unknown")


async def test_a_stop_that_was_asked_for_is_never_undone(store: Store, other: Store) -> None:
    fence = await owned(store)
    assert await other.request_stop("c1")
    assert not await store.move_context(fence, ALL_LIVING, ContextState.RUNNING, at=after(1))
    assert await state_of(store) is ContextState.STOPPING


async def test_an_ended_context_cannot_be_asked_to_stop(store: Store) -> None:
    await end(store, await owned(store))
    assert not await store.request_stop("c1")
    assert await state_of(store) is ContextState.KILLED
