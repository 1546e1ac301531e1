"""The promises of the metadata store, kept by SQL and by the store in memory that the simulation uses.

Every test has two servers on one store; what must hold between servers is tried through both.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobserver.errors import (
    BadRequest,
    ContextExists,
    ContextStopping,
    JobServerError,
    KeyReused,
    NotFound,
    QueueFull,
)
from jobserver.lifecycle import IllegalMove
from jobserver.model import (
    AttemptOutcome,
    BinaryRecord,
    BinaryRef,
    BinaryType,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    Fence,
    FenceRow,
    JobRecord,
    JobSpec,
    JobState,
    OnFailover,
    OutcomeKind,
)
from jobserver.store.metadata import Metadata
from tests.fakes.metadata import FakeMetadata, FakeStore

Store = Metadata | FakeMetadata

T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ALL_LIVING = [state for state in ContextState if not state.final]
DRIVER = DriverRecord("d1", "127.0.0.1", 4711, 99, 123456, "secret", 1, jvm_pid=100, ui_url="http://x:4040")
PROBLEM = ErrorInfo("it broke", "demo.Broken", "line 1\n\tline 2 \ud800")


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def a_context(context_id: str = "c1", name: str = "ctx", **fields: object) -> ContextRecord:
    record = ContextRecord(context_id, name, {"num-cpu-cores": "2"}, ContextState.STARTED, False, T0)
    return replace(record, **fields)  # type: ignore[arg-type]


def a_job(job_id: str = "j1", context_id: str = "c1", **fields: object) -> JobRecord:
    spec = JobSpec("demo.Job", (BinaryRef("demo", BinaryType.EGG, "d" * 64),))
    record = JobRecord(job_id, context_id, "ctx", spec, JobState.QUEUED, T0)
    return replace(record, **fields)  # type: ignore[arg-type]


def an_outcome(job_id: str = "j1", attempt: int = 1, result: str | None = '{"n":1}') -> AttemptOutcome:
    return AttemptOutcome(job_id, attempt, OutcomeKind.FINISHED, result)


def a_binary(name: str = "demo", digest: str = "d" * 64, at: datetime = T0) -> BinaryRecord:
    return BinaryRecord(name, BinaryType.EGG, digest, 1234, at)


async def owned(store: Store, record: ContextRecord | None = None) -> Fence:
    """A context of which somebody is the owner at epoch 1."""
    record = record or a_context()
    await store.create_context(record)
    assert await store.grant(record.id, 0, "s1", "i1", f"token-{record.id}")
    return Fence(record.id, 1, f"token-{record.id}")


async def running(store: Store, fence: Fence, job: JobRecord | None = None) -> JobRecord:
    """A job whose first attempt runs."""
    job = await store.insert_job(job or a_job(), queue_limit=100)
    assert await store.start_attempt(fence, job.id, 1, after(1))
    return job


async def end(store: Store, fence: Fence, state: ContextState = ContextState.KILLED) -> None:
    assert await store.move_context(fence, ALL_LIVING, state, at=after(50))


async def the_job(store: Store, job_id: str = "j1") -> JobRecord:
    job = await store.job(job_id)
    assert job is not None
    return job


async def state_of(store: Store, context_id: str = "c1") -> ContextState:
    record = await store.context(context_id)
    assert record is not None
    return record.state


async def outcome_of(call: Awaitable[JobRecord]) -> JobRecord | JobServerError:
    try:
        return await call
    except JobServerError as error:
        return error


GuardedWrite = Callable[[Store, Fence], Awaitable[bool]]

GUARDED_WRITES: dict[str, GuardedWrite] = {
    "move_context": lambda store, fence: store.move_context(
        fence, [ContextState.STARTED], ContextState.RUNNING, at=after(5)
    ),
    "record_driver": lambda store, fence: store.record_driver(fence, DRIVER),
    "record_failover": lambda store, fence: store.record_failover(fence, Failover(T0, "adopted", 0.2)),
    "start_attempt": lambda store, fence: store.start_attempt(fence, "waiting", 1, after(5)),
    "finish_job": lambda store, fence: store.finish_job(
        fence, an_outcome("running"), JobState.FINISHED, after(5)
    ),
    "restart_job": lambda store, fence: store.restart_job(
        fence, "running", 1, died=True, error=PROBLEM, at=after(5)
    ),
    "end_waiting_job": lambda store, fence: store.end_waiting_job(
        fence, "waiting", JobState.KILLED, PROBLEM, after(5)
    ),
}


class MetadataPromises:
    """One class of promises for every store. A subclass gives the fixture `servers`."""

    @pytest.fixture
    def store(self, servers: tuple[Store, Store]) -> Store:
        return servers[0]

    @pytest.fixture
    def other(self, servers: tuple[Store, Store]) -> Store:
        return servers[1]

    # Binaries

    async def test_the_binary_uploaded_last_counts_whatever_the_servers_clocks_say(
        self, store: Store, other: Store
    ) -> None:
        await store.put_binary(a_binary(digest="a" * 64, at=after(10)))
        await other.put_binary(a_binary(digest="b" * 64, at=after(5)))
        assert await store.find_binary("demo") == a_binary(digest="b" * 64, at=after(5))
        assert await store.find_binary("other") is None

    async def test_binaries_are_listed_by_name_with_their_latest_version(self, store: Store) -> None:
        await store.put_binary(a_binary("b", "1" * 64))
        await store.put_binary(a_binary("a", "2" * 64))
        await store.put_binary(a_binary("b", "3" * 64))
        assert [(one.name, one.digest[0]) for one in await store.list_binaries()] == [("a", "2"), ("b", "3")]

    async def test_names_of_binaries_are_compared_letter_by_letter(self, store: Store) -> None:
        await store.put_binary(a_binary("Demo"))
        assert await store.find_binary("demo") is None
        assert await store.find_binary("Demo ") is None

    async def test_deleting_a_binary_deletes_all_its_versions(self, store: Store, other: Store) -> None:
        for digest in "123":
            await store.put_binary(a_binary(digest=digest * 64))
        await store.put_binary(a_binary("kept"))
        assert await other.delete_binary("demo")
        assert await store.find_binary("demo") is None
        assert not await store.delete_binary("demo")
        assert [one.name for one in await store.list_binaries()] == ["kept"]

    async def test_a_binary_is_in_use_by_the_jobs_that_have_not_ended(self, store: Store) -> None:
        fence = await owned(store)
        await running(store, fence, a_job("j1"))
        await running(store, fence, a_job("j2"))
        await store.insert_job(a_job("j3"), queue_limit=100)
        await store.insert_job(a_job("j4", spec=JobSpec("other.Job", ())), queue_limit=100)
        assert await store.finish_job(fence, an_outcome("j1"), JobState.FINISHED, after(2))
        assert await store.jobs_using_binary("demo") == ["j2", "j3"]
        assert await store.jobs_using_binary("other") == []

    async def test_a_digest_is_in_use_while_an_upload_or_an_unfinished_job_needs_it(
        self, store: Store
    ) -> None:
        digest = "d" * 64
        assert not await store.digest_in_use(digest)
        await store.put_binary(a_binary())
        assert await store.digest_in_use(digest)
        fence = await owned(store)
        await running(store, fence)
        await store.delete_binary("demo")
        assert await store.digest_in_use(digest)
        await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
        assert not await store.digest_in_use(digest)

    # Contexts

    async def test_a_context_is_read_back_as_it_was_written(self, store: Store, other: Store) -> None:
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

    async def test_a_new_context_has_a_fence_that_nobody_holds(self, store: Store) -> None:
        await store.create_context(a_context())
        assert await store.fence("c1") == FenceRow("c1", 0, "", "", "")
        assert await store.fence("c2") is None

    async def test_a_name_has_one_living_context(self, store: Store, other: Store) -> None:
        await store.create_context(a_context("c1"))
        with pytest.raises(ContextExists, match=r"^context ctx exists$"):
            await other.create_context(a_context("c2"))
        assert await store.context("c2") is None
        assert await store.fence("c2") is None

    async def test_of_servers_that_create_one_name_at_once_exactly_one_wins(
        self, store: Store, other: Store
    ) -> None:
        records = [a_context(f"c{number}") for number in range(10)]
        calls = [server.create_context(one) for one, server in zip(records, [store, other] * 5, strict=True)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert all(result is None or isinstance(result, ContextExists) for result in results)
        assert len(await store.active_contexts()) == 1

    async def test_creating_a_context_again_with_its_id_changes_nothing(
        self, store: Store, other: Store
    ) -> None:
        fence = await owned(store)
        assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=after(1))
        await other.create_context(a_context())
        assert await state_of(store) is ContextState.RUNNING
        assert await store.fence("c1") == FenceRow("c1", 1, "s1", "i1", fence.token)

    async def test_a_name_is_free_again_once_its_context_has_ended(self, store: Store) -> None:
        await end(store, await owned(store))
        await store.create_context(a_context("c2", started_at=after(60)))
        latest = await store.latest_context("ctx")
        assert latest is not None
        assert latest.id == "c2"

    async def test_the_living_context_of_a_name_is_its_latest_whatever_the_clocks_say(
        self, store: Store
    ) -> None:
        await end(store, await owned(store))
        await store.create_context(a_context("c2", started_at=after(-60)))
        latest = await store.latest_context("ctx")
        assert latest is not None
        assert latest.id == "c2"

    async def test_the_latest_of_ended_contexts_is_the_one_started_last(self, store: Store) -> None:
        for number, seconds in ((1, 10), (2, 30), (3, 20)):
            record = a_context(f"c{number}", started_at=after(seconds))
            await end(store, await owned(store, record))
        latest = await store.latest_context("ctx")
        assert latest is not None
        assert latest.id == "c2"

    async def test_active_contexts_are_those_that_have_not_ended(self, store: Store) -> None:
        await end(store, await owned(store, a_context("c1", "one")))
        await store.create_context(a_context("c3", "three", started_at=after(3)))
        await store.create_context(a_context("c2", "two", started_at=after(2)))
        assert [one.id for one in await store.active_contexts()] == ["c2", "c3"]

    async def test_listed_contexts_run_restart_or_stop_newest_first(self, store: Store) -> None:
        states = [ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING, ContextState.STOPPING]
        for number, state in enumerate(states):
            record = a_context(f"c{number}", f"n{number}", state=state, started_at=after(number))
            await store.create_context(record)
        assert [one.id for one in await store.listed_contexts()] == ["c3", "c2", "c1"]

    async def test_a_context_moves_only_from_the_states_that_were_named(self, store: Store) -> None:
        fence = await owned(store)
        assert not await store.move_context(
            fence, [ContextState.RESTARTING], ContextState.RUNNING, at=after(1)
        )
        assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=after(1))
        assert await state_of(store) is ContextState.RUNNING

    async def test_an_ended_context_keeps_when_and_why(self, store: Store) -> None:
        fence = await owned(store)
        assert await store.move_context(fence, ALL_LIVING, ContextState.ERROR, at=after(9), error=PROBLEM)
        assert await store.context("c1") == a_context(
            state=ContextState.ERROR, ended_at=after(9), error=PROBLEM
        )
        assert not await store.move_context(fence, ALL_LIVING, ContextState.KILLED, at=after(10))

    async def test_a_move_that_is_in_no_table_is_refused(self, store: Store) -> None:
        fence = await owned(store)
        with pytest.raises(IllegalMove):
            await store.move_context(fence, [ContextState.STARTED], ContextState.FINISHED, at=after(1))
        assert await state_of(store) is ContextState.STARTED

    async def test_a_context_is_finished_only_from_stopping_whatever_else_was_allowed(
        self, store: Store
    ) -> None:
        fence = await owned(store)
        assert not await store.move_context(fence, ALL_LIVING, ContextState.FINISHED, at=after(1))
        assert await store.request_stop("c1")
        assert await store.move_context(fence, ALL_LIVING, ContextState.FINISHED, at=after(1))

    async def test_the_driver_is_recorded_and_forgotten(self, store: Store) -> None:
        fence = await owned(store)
        assert await store.record_driver(fence, DRIVER)
        assert await store.context("c1") == a_context(driver=DRIVER)
        assert await store.record_driver(fence, None)
        assert await store.context("c1") == a_context()

    async def test_the_last_failover_is_recorded(self, store: Store) -> None:
        fence = await owned(store)
        failover = Failover(after(7), "adopted", 0.125)
        assert await store.record_failover(fence, failover)
        assert await store.context("c1") == a_context(last_failover=failover)

    @pytest.mark.parametrize("state", [ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING])
    async def test_any_server_may_ask_once_that_a_context_stops(
        self, store: Store, other: Store, state: ContextState
    ) -> None:
        await store.create_context(a_context(state=state))
        assert await other.request_stop("c1")
        assert await state_of(store) is ContextState.STOPPING
        assert not await store.request_stop("c1")
        assert not await store.request_stop("unknown")

    async def test_a_stop_that_was_asked_for_is_never_undone(self, store: Store, other: Store) -> None:
        fence = await owned(store)
        assert await other.request_stop("c1")
        assert not await store.move_context(fence, ALL_LIVING, ContextState.RUNNING, at=after(1))
        assert await state_of(store) is ContextState.STOPPING

    async def test_an_ended_context_cannot_be_asked_to_stop(self, store: Store) -> None:
        await end(store, await owned(store))
        assert not await store.request_stop("c1")
        assert await state_of(store) is ContextState.KILLED

    # Fences

    async def test_a_grant_raises_the_fence_by_one(self, store: Store, other: Store) -> None:
        await store.create_context(a_context())
        assert await store.grant("c1", 0, "s1", "i1", "t1")
        assert await other.fence("c1") == FenceRow("c1", 1, "s1", "i1", "t1")
        assert await other.grant("c1", 1, "s2", "i2", "t2")
        assert await store.fences(["c1", "c2"]) == {"c1": FenceRow("c1", 2, "s2", "i2", "t2")}

    async def test_a_grant_from_an_epoch_that_has_passed_is_refused(self, store: Store, other: Store) -> None:
        await owned(store)
        before = await store.fence("c1")
        assert not await other.grant("c1", 0, "s2", "i2", "t2")
        assert not await other.grant("c1", 2, "s2", "i2", "t2")
        assert not await other.grant("unknown", 0, "s2", "i2", "t2")
        assert await store.fence("c1") == before

    async def test_of_servers_that_grant_themselves_one_epoch_exactly_one_wins(
        self, store: Store, other: Store
    ) -> None:
        await store.create_context(a_context())
        for epoch in range(10):
            servers = [store, other] * 4
            calls = [one.grant("c1", epoch, f"s{n}", "i", f"t{epoch}-{n}") for n, one in enumerate(servers)]
            won = await asyncio.gather(*calls)
            assert won.count(True) == 1
            fence = await other.fence("c1")
            assert fence is not None
            assert (fence.epoch, fence.token) == (epoch + 1, f"t{epoch}-{won.index(True)}")

    @pytest.mark.parametrize("write", GUARDED_WRITES.values(), ids=GUARDED_WRITES)
    async def test_a_superseded_owner_changes_nothing(
        self, store: Store, other: Store, write: GuardedWrite
    ) -> None:
        stale = await owned(store)
        await running(store, stale, a_job("running"))
        await store.insert_job(a_job("waiting"), queue_limit=100)
        assert await other.grant("c1", 1, "s2", "i2", "t2")
        before = (await store.context("c1"), await store.job("running"), await store.job("waiting"))
        assert not await write(store, stale)
        assert not await write(store, replace(stale, epoch=2))
        assert not await write(store, replace(stale, epoch=1, token="t2"))
        assert (await store.context("c1"), await store.job("running"), await store.job("waiting")) == before
        assert await write(other, Fence("c1", 2, "t2"))

    @pytest.mark.parametrize("name", ["start_attempt", "finish_job", "restart_job", "end_waiting_job"])
    async def test_the_owner_of_another_context_changes_no_job_of_this_one(
        self, store: Store, name: str
    ) -> None:
        fence = await owned(store)
        stranger = await owned(store, a_context("c2", "other"))
        await running(store, fence, a_job("running"))
        await store.insert_job(a_job("waiting"), queue_limit=100)
        assert not await GUARDED_WRITES[name](store, stranger)
        assert await GUARDED_WRITES[name](store, fence)

    # Acceptance

    async def test_an_accepted_job_is_read_back_as_it_was_submitted(self, store: Store, other: Store) -> None:
        await owned(store)
        refs = (BinaryRef("a", BinaryType.WHEEL, "1" * 64), BinaryRef("b", BinaryType.ZIP, "2" * 64))
        spec = JobSpec("x.Y", refs, '{"ü": "\\ud800"}', 5, OnFailover.FAIL, priority=-7)
        job = a_job(spec=spec, principal="eve", idempotency_key="k ü", request_digest="f" * 64)
        assert await store.insert_job(job, queue_limit=1) == job
        assert await other.job("j1") == job
        assert await other.job("j2") is None

    async def test_a_job_for_an_unknown_or_ended_context_is_refused(self, store: Store) -> None:
        with pytest.raises(NotFound, match=r"^context ctx not found$"):
            await store.insert_job(a_job(), queue_limit=100)
        await end(store, await owned(store))
        with pytest.raises(NotFound, match=r"^context ctx not found$"):
            await store.insert_job(a_job(), queue_limit=100)
        assert await store.job("j1") is None

    async def test_a_job_for_a_stopping_context_is_refused(self, store: Store) -> None:
        await owned(store)
        await store.request_stop("c1")
        with pytest.raises(ContextStopping, match=r"^Context stop in progress$"):
            await store.insert_job(a_job(), queue_limit=100)
        assert await store.job("j1") is None

    @pytest.mark.parametrize("state", [ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING])
    async def test_a_job_is_accepted_also_before_and_during_a_failover(
        self, store: Store, state: ContextState
    ) -> None:
        await store.create_context(a_context(state=state))
        assert await store.insert_job(a_job(), queue_limit=1) == a_job()

    @pytest.mark.parametrize(("adhoc", "shown"), [(False, "ctx"), (True, "ad-hoc")])
    async def test_a_full_queue_refuses_in_the_words_of_the_contract(
        self, store: Store, adhoc: bool, shown: str
    ) -> None:
        await owned(store, a_context(adhoc=adhoc))
        for number in range(2):
            await store.insert_job(a_job(f"j{number}"), queue_limit=2)
        with pytest.raises(QueueFull, match=rf"^Too many running jobs \(2\) for job context '{shown}'$"):
            await store.insert_job(a_job("j2"), queue_limit=2)
        assert await store.job("j2") is None

    async def test_only_unfinished_jobs_of_the_context_itself_fill_its_queue(self, store: Store) -> None:
        fence = await owned(store)
        await owned(store, a_context("c2", "other"))
        await store.insert_job(a_job("theirs", "c2"), queue_limit=1)
        await running(store, fence, a_job("done"))
        await store.finish_job(fence, an_outcome("done"), JobState.FINISHED, after(2))
        await store.insert_job(a_job("next"), queue_limit=1)
        with pytest.raises(QueueFull):
            await store.insert_job(a_job("one more"), queue_limit=1)

    async def test_many_submissions_at_once_never_overfill_the_queue(
        self, store: Store, other: Store
    ) -> None:
        await owned(store)
        servers = [store, other] * 15
        calls = [server.insert_job(a_job(f"j{n}"), queue_limit=7) for n, server in enumerate(servers)]
        results = await asyncio.gather(*map(outcome_of, calls))
        assert sum(isinstance(one, JobRecord) for one in results) == 7
        assert sum(isinstance(one, QueueFull) for one in results) == 23
        assert len(await store.unfinished_jobs("c1")) == 7

    async def test_no_job_waits_in_a_context_that_ended_while_jobs_came_in(
        self, store: Store, other: Store
    ) -> None:
        for number in range(5):
            context_id = f"c{number}"
            fence = await owned(store, a_context(context_id))
            calls = [
                other.insert_job(a_job(f"{context_id}-{n}", context_id), queue_limit=1000) for n in range(20)
            ]
            results, _ = await asyncio.gather(
                asyncio.gather(*map(outcome_of, calls)), self._stop_and_end(store, fence)
            )
            refused = [one for one in results if isinstance(one, JobServerError)]
            assert all(isinstance(one, ContextStopping | NotFound) for one in refused)
            assert await store.unfinished_jobs(context_id) == []
            for job in results:
                if isinstance(job, JobRecord):
                    assert (await the_job(store, job.id)).state is JobState.ERROR

    async def _stop_and_end(self, store: Store, fence: Fence) -> None:
        assert await store.request_stop(fence.context_id)
        assert await store.move_context(fence, [ContextState.STOPPING], ContextState.FINISHED, at=after(5))
        await store.end_jobs_of_ended_context(fence.context_id, PROBLEM, after(6))

    async def test_repeating_a_submission_with_its_key_gives_the_same_job(
        self, store: Store, other: Store
    ) -> None:
        await owned(store)
        first = a_job("j1", idempotency_key="k", request_digest="a")
        again = a_job("j2", idempotency_key="k", request_digest="a", submitted_at=after(9))
        assert await store.insert_job(first, queue_limit=100) == first
        assert await other.insert_job(again, queue_limit=100) == first
        assert await store.job("j2") is None

    async def test_a_repeated_submission_finds_its_job_though_the_queue_is_full(self, store: Store) -> None:
        await owned(store)
        job = a_job(idempotency_key="k", request_digest="a")
        await store.insert_job(job, queue_limit=1)
        assert await store.insert_job(replace(job, id="j2"), queue_limit=1) == job

    async def test_a_repeated_submission_finds_its_ended_job_though_the_context_has_ended(
        self, store: Store, other: Store
    ) -> None:
        fence = await owned(store)
        job = await running(store, fence, a_job(idempotency_key="k", request_digest="a"))
        await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
        await end(store, fence)
        found = await other.insert_job(replace(job, id="j2"), queue_limit=100)
        assert (found.id, found.state, found.result) == ("j1", JobState.FINISHED, '{"n":1}')

    async def test_a_key_used_for_another_request_is_refused(self, store: Store, other: Store) -> None:
        await owned(store)
        await store.insert_job(a_job("j1", idempotency_key="k", request_digest="a"), queue_limit=100)
        with pytest.raises(KeyReused):
            await other.insert_job(a_job("j2", idempotency_key="k", request_digest="b"), queue_limit=100)
        assert await store.job("j2") is None

    async def test_a_key_belongs_to_one_user_and_is_compared_letter_by_letter(self, store: Store) -> None:
        await owned(store)
        for number, (user, key) in enumerate(
            [("ann", "k"), ("bob", "k"), ("ann", "K"), ("ann", None), ("ann", None)]
        ):
            job = a_job(f"j{number}", principal=user, idempotency_key=key, request_digest=str(number))
            assert await store.insert_job(job, queue_limit=100) == job

    async def test_servers_that_submit_one_key_at_once_get_one_job(self, store: Store, other: Store) -> None:
        await owned(store)
        jobs = [a_job(f"j{number}", idempotency_key="k", request_digest="a") for number in range(12)]
        calls = [
            server.insert_job(job, queue_limit=100)
            for job, server in zip(jobs, [store, other] * 6, strict=True)
        ]
        results = await asyncio.gather(*calls)
        assert len({job.id for job in results}) == 1
        assert [job.id for job in await store.unfinished_jobs("c1")] == [results[0].id]

    async def test_repeating_an_insert_after_a_lost_reply_gives_the_same_job(self, store: Store) -> None:
        await owned(store)
        await store.insert_job(a_job(), queue_limit=1)
        assert await store.insert_job(a_job(), queue_limit=1) == a_job()
        assert len(await store.list_jobs(10, None)) == 1

    async def test_a_job_begins_queued(self, store: Store) -> None:
        await owned(store)
        with pytest.raises(IllegalMove):
            await store.insert_job(a_job(state=JobState.FINISHED), queue_limit=100)

    @pytest.mark.parametrize("priority", [2**31, -(2**31), 2**70])
    async def test_a_priority_that_no_column_holds_is_refused(self, store: Store, priority: int) -> None:
        await owned(store)
        with pytest.raises(BadRequest, match="priority"):
            await store.insert_job(a_job(spec=JobSpec("x.Y", (), priority=priority)), queue_limit=100)

    # Acceptance and start in one write

    async def test_the_owner_accepts_and_starts_in_one_write(self, store: Store, other: Store) -> None:
        fence = await owned(store, a_context(state=ContextState.RUNNING))
        started = a_job(state=JobState.RUNNING, attempt=1, started_at=after(1))
        assert await store.insert_started_job(fence, a_job(), queue_limit=1, at=after(1)) == started
        assert await other.job("j1") == started
        assert not await store.start_attempt(fence, "j1", 1, after(2))
        assert await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(3))

    @pytest.mark.parametrize("state", [ContextState.STARTED, ContextState.RESTARTING])
    async def test_a_job_of_a_context_that_does_not_run_is_accepted_and_not_started(
        self, store: Store, state: ContextState
    ) -> None:
        fence = await owned(store, a_context(state=state))
        assert await store.insert_started_job(fence, a_job(), queue_limit=1, at=after(1)) == a_job()
        assert await store.job("j1") == a_job()

    async def test_a_superseded_owner_accepts_a_job_and_does_not_start_it(
        self, store: Store, other: Store
    ) -> None:
        stale = await owned(store, a_context(state=ContextState.RUNNING))
        stranger = await owned(store, a_context("c2", "other", state=ContextState.RUNNING))
        assert await other.grant("c1", 1, "s2", "i2", "t2")
        for number, fence in enumerate(
            [stale, replace(stale, epoch=2), replace(stale, token="t2"), stranger]
        ):
            job = a_job(f"j{number}")
            assert await store.insert_started_job(fence, job, queue_limit=100, at=after(1)) == job
            assert await store.job(job.id) == job

    async def test_accepting_and_starting_refuses_as_acceptance_does(self, store: Store) -> None:
        fence = await owned(store, a_context(state=ContextState.RUNNING))
        keyed = a_job(idempotency_key="k", request_digest="a")
        first = await store.insert_started_job(fence, keyed, queue_limit=1, at=after(1))
        again = await store.insert_started_job(fence, replace(keyed, id="j2"), queue_limit=1, at=after(2))
        assert again == first
        with pytest.raises(KeyReused):
            await store.insert_started_job(
                fence, replace(keyed, request_digest="b"), queue_limit=1, at=after(2)
            )
        with pytest.raises(QueueFull):
            await store.insert_started_job(fence, a_job("j3"), queue_limit=1, at=after(2))
        assert await store.request_stop("c1")
        with pytest.raises(ContextStopping):
            await store.insert_started_job(fence, a_job("j3"), queue_limit=100, at=after(2))

    # Attempts

    async def test_an_attempt_starts_once_and_in_order(self, store: Store) -> None:
        fence = await owned(store)
        await store.insert_job(a_job(), queue_limit=100)
        assert not await store.start_attempt(fence, "j1", 2, after(1))
        assert await store.start_attempt(fence, "j1", 1, after(1))
        assert not await store.start_attempt(fence, "j1", 1, after(2))
        assert not await store.start_attempt(fence, "j1", 2, after(2))
        assert await store.job("j1") == a_job(state=JobState.RUNNING, attempt=1, started_at=after(1))

    async def test_a_job_starts_again_after_the_death_of_its_driver(self, store: Store) -> None:
        fence = await owned(store)
        await running(store, fence)
        assert await store.restart_job(fence, "j1", 1, died=True, error=PROBLEM, at=after(2))
        restarting = a_job(state=JobState.RESTARTING, attempt=1, deaths=1, started_at=after(1), error=PROBLEM)
        assert await store.job("j1") == restarting
        assert await store.start_attempt(fence, "j1", 2, after(3))
        expected = a_job(state=JobState.RUNNING, attempt=2, deaths=1, started_at=after(1))
        assert await store.job("j1") == expected

    async def test_a_planned_restart_is_no_death(self, store: Store) -> None:
        fence = await owned(store)
        await running(store, fence)
        assert await store.restart_job(fence, "j1", 1, died=False, error=None, at=after(2))
        job = await the_job(store)
        assert (job.state, job.deaths) == (JobState.RESTARTING, 0)

    async def test_only_the_running_attempt_restarts(self, store: Store) -> None:
        fence = await owned(store)
        await store.insert_job(a_job(), queue_limit=100)
        assert not await store.restart_job(fence, "j1", 0, died=True, error=None, at=after(1))
        assert await store.start_attempt(fence, "j1", 1, after(1))
        assert not await store.restart_job(fence, "j1", 2, died=True, error=None, at=after(2))
        assert await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(2))
        assert not await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(3))
        assert (await the_job(store)).deaths == 1

    async def test_the_first_result_stands(self, store: Store, other: Store) -> None:
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

    async def test_of_results_that_arrive_at_once_exactly_one_is_taken(
        self, store: Store, other: Store
    ) -> None:
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

    async def test_the_outcome_of_an_older_attempt_is_refused(self, store: Store) -> None:
        fence = await owned(store)
        await running(store, fence)
        await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(2))
        assert await store.start_attempt(fence, "j1", 2, after(3))
        assert not await store.finish_job(fence, an_outcome(attempt=1), JobState.FINISHED, after(4))
        assert not await store.finish_job(fence, an_outcome(attempt=3), JobState.FINISHED, after(4))
        assert await store.finish_job(fence, an_outcome(attempt=2, result="2"), JobState.FINISHED, after(4))
        assert (await the_job(store)).result == "2"

    async def test_the_outcome_of_an_attempt_that_was_thought_lost_is_taken_until_the_next_starts(
        self, store: Store
    ) -> None:
        fence = await owned(store)
        await running(store, fence)
        await store.restart_job(fence, "j1", 1, died=True, error=PROBLEM, at=after(2))
        assert await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(3))
        job = await the_job(store)
        assert (job.state, job.result, job.error) == (JobState.FINISHED, '{"n":1}', None)

    async def test_a_job_that_never_ran_has_no_outcome(self, store: Store) -> None:
        fence = await owned(store)
        await store.insert_job(a_job(), queue_limit=100)
        assert not await store.finish_job(fence, an_outcome(attempt=0), JobState.FINISHED, after(1))
        assert await store.job("j1") == a_job()

    @pytest.mark.parametrize("state", [JobState.ERROR, JobState.KILLED])
    async def test_a_job_that_did_not_finish_has_an_error_and_no_result(
        self, store: Store, state: JobState
    ) -> None:
        fence = await owned(store)
        await running(store, fence)
        outcome = AttemptOutcome("j1", 1, OutcomeKind.FAILED, '"left over"', PROBLEM)
        assert await store.finish_job(fence, outcome, state, after(2))
        job = await the_job(store)
        assert (job.state, job.error, job.result, job.outcome) == (state, PROBLEM, None, OutcomeKind.FAILED)

    @pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.RESTARTING])
    async def test_a_job_cannot_end_in_a_state_that_is_not_final(self, store: Store, state: JobState) -> None:
        fence = await owned(store)
        await running(store, fence)
        with pytest.raises(IllegalMove):
            await store.finish_job(fence, an_outcome(), state, after(2))
        with pytest.raises(IllegalMove):
            await store.end_waiting_job(fence, "j1", state, None, after(2))
        assert (await the_job(store)).state is JobState.RUNNING

    async def test_a_result_with_half_a_surrogate_pair_stays_the_same_json(self, store: Store) -> None:
        fence = await owned(store)
        await running(store, fence)
        value = {"half \udc80": "\ud800", "ü": "\U0001f600", "nul": "\x00"}
        outcome = an_outcome(result=json.dumps(value, ensure_ascii=False))
        assert await store.finish_job(fence, outcome, JobState.FINISHED, after(2))
        assert json.loads((await the_job(store)).result or "") == value

    async def test_a_waiting_job_can_be_ended_and_a_running_one_cannot_this_way(self, store: Store) -> None:
        fence = await owned(store)
        await store.insert_job(a_job("waiting"), queue_limit=100)
        await running(store, fence, a_job("running"))
        assert await store.end_waiting_job(fence, "waiting", JobState.KILLED, PROBLEM, after(2))
        ended = a_job("waiting", state=JobState.KILLED, error=PROBLEM, ended_at=after(2))
        assert await store.job("waiting") == ended
        assert not await store.end_waiting_job(fence, "waiting", JobState.ERROR, None, after(3))
        assert not await store.end_waiting_job(fence, "running", JobState.KILLED, None, after(3))
        assert not await store.start_attempt(fence, "waiting", 1, after(3))

    async def test_a_job_between_attempts_can_be_ended(self, store: Store) -> None:
        fence = await owned(store)
        await running(store, fence)
        await store.restart_job(fence, "j1", 1, died=True, error=None, at=after(2))
        assert await store.end_waiting_job(fence, "j1", JobState.ERROR, PROBLEM, after(3))
        assert not await store.start_attempt(fence, "j1", 2, after(4))

    # Listings, and the end of a context

    async def test_jobs_are_listed_newest_first_without_their_results(self, store: Store) -> None:
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
    async def test_a_limit_below_one_lists_nothing(self, store: Store, limit: int) -> None:
        await owned(store)
        await store.insert_job(a_job(), queue_limit=100)
        assert await store.list_jobs(limit, None) == []

    async def test_unfinished_jobs_come_by_priority_and_then_by_submission(self, store: Store) -> None:
        fence = await owned(store)
        wanted = [("late", 0, 30), ("urgent", 5, 40), ("early", 0, 10), ("last", -1, 5), ("done", 9, 1)]
        for name, priority, seconds in wanted:
            job = a_job(name, submitted_at=after(seconds), spec=JobSpec("x.Y", (), priority=priority))
            await store.insert_job(job, queue_limit=100)
        await store.start_attempt(fence, "early", 1, after(50))
        await store.end_waiting_job(fence, "done", JobState.KILLED, None, after(50))
        assert [job.id for job in await store.unfinished_jobs("c1")] == ["urgent", "early", "late", "last"]
        assert await store.unfinished_jobs("c2") == []

    async def test_the_jobs_of_a_context_end_after_it_and_never_before(
        self, store: Store, other: Store
    ) -> None:
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

    async def test_a_context_that_does_not_exist_has_no_jobs_to_end(self, store: Store) -> None:
        assert await store.end_jobs_of_ended_context("c9", PROBLEM, after(1)) == 0

    # Bad input

    async def test_texts_that_no_encoding_holds_exist_nowhere(self, store: Store) -> None:
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


class TestFakeMetadata(MetadataPromises):
    @pytest.fixture
    def servers(self) -> tuple[Store, Store]:
        store = FakeStore()
        return FakeMetadata(store), FakeMetadata(store)


@pytest.fixture(scope="module")
async def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables and nothing in them; copied, as migrations take longer than a test."""
    path = tmp_path_factory.mktemp("metadata") / "empty.db"
    metadata = await Metadata.open(f"sqlite:///{path}", timeout=5)
    await metadata.upgrade()
    await metadata.close()
    return path


class TestSqliteMetadata(MetadataPromises):
    @pytest.fixture
    async def servers(self, empty_file: Path, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
        path = tmp_path / "metadata.db"
        shutil.copy(empty_file, path)
        one = await Metadata.open(f"sqlite:///{path}", timeout=5, synchronous="NORMAL")
        two = await Metadata.open(f"sqlite+aiosqlite:///{path}", timeout=5, synchronous="NORMAL")
        yield one, two
        await one.close()
        await two.close()
