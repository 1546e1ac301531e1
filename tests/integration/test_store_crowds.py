"""Crowds of changes in one packet on a real MariaDB, of which some contradict each other: each has the outcome of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from jobserver.errors import ContextStopping, KeyReused, QueueFull
from jobserver.model import (
    AttemptOutcome,
    ContextRecord,
    ContextState,
    Fence,
    JobRecord,
    JobSpec,
    JobState,
    OutcomeKind,
)
from jobserver.store import packets
from jobserver.store.metadata import Metadata

T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LATER = datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)


@pytest.fixture
async def store(mariadb_url: str) -> AsyncIterator[Metadata]:
    store = await Metadata.open(mariadb_url, timeout=10, server="s1")
    yield store
    await store.close()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each packet that was sent, whether it was one in bulk."""
    seen: list[bool] = []
    send = packets._send

    def noted(engine: Any, texts: Sequence[str]) -> Any:
        seen.append(any("INTO @'gate" in text for text in texts))
        return send(engine, texts)

    monkeypatch.setattr(packets, "_send", noted)
    return seen


async def owned(store: Metadata, context_id: str = "c1") -> Fence:
    fence = Fence(context_id, 1, "t1")
    await store.create_context(
        ContextRecord(context_id, f"name-{context_id}", {}, ContextState.STARTED, False, T0)
    )
    assert await store.grant(context_id, 0, "s1", "i1", "t1")
    assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=T0)
    return fence


def job(job_id: str, context_id: str = "c1", **more: Any) -> JobRecord:
    return JobRecord(job_id, context_id, f"name-{context_id}", JobSpec("d", ()), JobState.QUEUED, T0, **more)


async def together(store: Metadata, *calls: Awaitable[Any]) -> list[Any]:
    """What becomes of calls that wait for one group while another write is under way."""
    blocker = asyncio.create_task(store.request_stop("nobody"))
    await asyncio.sleep(0)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    await blocker
    return ends


def ends(job_id: str, kind: OutcomeKind, result: str | None = None) -> AttemptOutcome:
    return AttemptOutcome(job_id, 1, kind, result)


@pytest.mark.parametrize("started", [False, True], ids=["accepted", "accepted and started"])
async def test_one_new_key_several_times_in_a_packet_makes_one_job(
    store: Metadata, tried: list[bool], started: bool
) -> None:
    fence = await owned(store)

    def insert(record: JobRecord) -> Awaitable[JobRecord]:
        if started:
            return store.insert_started_job(fence, record, queue_limit=9, at=T0)
        return store.insert_job(record, queue_limit=9)

    tried.clear()
    keyed = [job(f"j{n}", idempotency_key="k", request_digest="a" if n < 3 else "b") for n in range(4)]
    answers = await together(store, *(insert(record) for record in (*keyed, job("other"))))
    assert True in tried, "no packet was tried in bulk: the test shows nothing"
    assert {one.id for one in answers[:3]} == {"j0"}
    assert [type(one) for one in answers[3:]] == [KeyReused, JobRecord]
    assert {one.id for one in await store.unfinished_jobs("c1")} == {"j0", "other"}
    assert [len(await store.job_history(one)) for one in ("j0", "j1", "j3", "other")] == [1, 0, 0, 1]


async def test_a_queue_that_fills_up_in_the_middle_of_a_packet_refuses_the_rest_of_its_context_only(
    store: Metadata, tried: list[bool]
) -> None:
    await owned(store)
    await owned(store, "c2")
    tried.clear()
    calls = [
        store.insert_job(job(f"{context}-{n}", context), queue_limit=limit)
        for n in range(4)
        for context, limit in (("c1", 2), ("c2", 4))
    ]
    answers = await together(store, *calls)
    assert True in tried, "no packet was tried in bulk: the test shows nothing"
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert [one.message for one in refused] == ["Too many running jobs (2) for job context 'name-c1'"] * 2
    counts = Counter({name: len(await store.unfinished_jobs(name)) for name in ("c1", "c2")})
    assert counts == {"c1": 2, "c2": 4}


async def test_of_two_ends_of_a_job_in_one_packet_one_is_accepted_and_never_changes(
    store: Metadata, tried: list[bool]
) -> None:
    fence = await owned(store)
    for name in ("twice", "same", "other"):
        await store.insert_started_job(fence, job(name), queue_limit=9, at=T0)
    tried.clear()
    finish = store.finish_job
    committed = await together(
        store,
        finish(fence, ends("twice", OutcomeKind.FINISHED, "1"), JobState.FINISHED, T0),
        finish(fence, ends("twice", OutcomeKind.KILLED), JobState.KILLED, LATER),
        finish(fence, ends("same", OutcomeKind.FINISHED, "2"), JobState.FINISHED, T0),
        finish(fence, ends("same", OutcomeKind.FINISHED, "3"), JobState.FINISHED, T0),
        finish(fence, ends("other", OutcomeKind.FINISHED, "4"), JobState.FINISHED, T0),
    )
    assert True in tried, "no packet was tried in bulk: the test shows nothing"
    assert committed == [True, False, True, False, True]
    found = [await store.job(name) for name in ("twice", "same", "other")]
    assert [one and one.result for one in found] == ["1", "2", "4"]
    assert [len(await store.job_history(name)) for name in ("twice", "same", "other")] == [2, 2, 2]


async def test_a_jobs_start_and_its_end_in_one_packet_are_both_on_record(
    store: Metadata, tried: list[bool]
) -> None:
    fence = await owned(store)
    for name in ("a", "b"):
        await store.insert_job(job(name), queue_limit=9)
    tried.clear()
    calls = [
        call
        for name in ("a", "b")
        for call in (
            store.start_attempt(fence, name, 1, T0),
            store.finish_job(fence, ends(name, OutcomeKind.FINISHED, "1"), JobState.FINISHED, LATER),
        )
    ]
    assert await together(store, *calls) == [True] * 4
    assert True in tried, "no packet was tried in bulk: the test shows nothing"
    states = [[move.state for move in await store.job_history(name)] for name in ("a", "b")]
    assert states == [[JobState.QUEUED, JobState.RUNNING, JobState.FINISHED]] * 2


async def test_a_context_that_is_stopped_among_acceptances_has_only_those_that_were_told_so(
    store: Metadata,
) -> None:
    await owned(store)
    calls = [store.insert_job(job(f"j{n}"), queue_limit=99) for n in range(6)]
    answers = await together(store, *calls[:3], store.request_stop("c1"), *calls[3:])
    accepted = {one.id for one in answers if isinstance(one, JobRecord)}
    assert {type(one) for one in answers if not isinstance(one, JobRecord | bool)} <= {ContextStopping}
    assert {one.id for one in await store.unfinished_jobs("c1")} == accepted
    late = await together(store, *(store.insert_job(job(f"l{n}"), queue_limit=99) for n in range(3)))
    assert [type(one) for one in late] == [ContextStopping] * 3
