"""Retention carried out: on SQLite and a directory, with time and pauses of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from checkpoint import binaries as stored
from checkpoint import layout
from checkpoint.errors import StoreUnavailable
from checkpoint.local import LocalFiles
from jobserver.binaries import Binaries
from jobserver.history import Operation
from jobserver.listing import JobQuery
from jobserver.model import (
    AttemptOutcome,
    BinaryType,
    ContextRecord,
    ContextState,
    Fence,
    JobRecord,
    JobSpec,
    JobState,
    OutcomeKind,
)
from jobserver.pruning import PROMPT, Pace, Pruner
from jobserver.retention import Limits, Removed
from jobserver.store.metadata import Metadata

T0 = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400.0


def day(number: float) -> datetime:
    return T0 + timedelta(days=number)


class World:
    """A store with a past, and the pruner that looks at it on a day of the test's choice."""

    def __init__(self, store: Metadata, root: Path) -> None:
        self.store = store
        self.root = root
        self.files = LocalFiles(root)
        self.today = day(0)
        self.pauses: list[float] = []
        self.clock = 0.0

    def pruner(self, limits: Limits, batch: int = 2) -> Pruner:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        return Pruner(
            self.store.retention,
            self.files,
            limits,
            Pace(batch, 0.5),
            now=lambda: self.today,
            pause=pause,
            clock=lambda: self.clock,
        )

    async def context(self, name: str, started: float = 0) -> Fence:
        record = ContextRecord(name, name, {}, ContextState.STARTED, False, day(started))
        await self.store.create_context(record)
        assert await self.store.grant(name, 0, "s1", "i1", f"t-{name}")
        return Fence(name, 1, f"t-{name}")

    async def end(self, fence: Fence, at: float) -> None:
        states = [ContextState.STARTED]
        assert await self.store.move_context(fence, states, ContextState.KILLED, at=day(at))

    async def job(self, fence: Fence, name: str, at: float) -> None:
        """A job that was submitted and ended on that day, with output and a large result."""
        record = JobRecord(name, fence.context_id, fence.context_id, SPEC, JobState.QUEUED, day(at))
        await self.store.insert_job(record, queue_limit=100)
        assert await self.store.start_attempt(fence, name, 1, day(at))
        outcome = AttemptOutcome(name, 1, OutcomeKind.FINISHED, "1")
        assert await self.store.finish_job(fence, outcome, JobState.FINISHED, day(at))
        for kind in ("logs", "results"):
            self.files.write_new(f"{kind}/{name}/1/0", b"x")

    async def jobs(self) -> list[str]:
        return sorted(job.id for job in await self.store.find_jobs(JobQuery(100)))

    def kept(self, kind: str) -> list[str]:
        return self.files.names(kind)


SPEC = JobSpec("x.Y", ())


@pytest.fixture(scope="module")
async def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pruning") / "empty.db"
    store = await Metadata.open(f"sqlite:///{path}", timeout=5)
    await store.upgrade()
    await store.close()
    return path.read_bytes()


@pytest.fixture
async def world(empty: bytes, tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "metadata.db").write_bytes(empty)
    store = await Metadata.open(f"sqlite:///{tmp_path}/metadata.db", timeout=5, synchronous="NORMAL")
    root = tmp_path / "checkpoints"
    root.mkdir()
    yield World(store, root)
    await store.close()


async def test_without_limits_nothing_goes(world: World) -> None:
    fence = await world.context("c1")
    await world.job(fence, "j1", 0)
    await world.end(fence, 1)
    world.today = day(10_000)
    assert (await world.pruner(Limits()).prune()).total == 0
    assert await world.jobs() == ["j1"]


async def test_old_jobs_go_with_their_files_in_batches_with_pauses(world: World) -> None:
    fence = await world.context("c1")
    for number in range(7):
        await world.job(fence, f"j{number}", number)
    world.today = day(14.5)
    removed = await world.pruner(Limits(jobs_age=10 * DAY)).prune()
    assert removed == Removed(jobs=5)
    assert await world.jobs() == ["j5", "j6"]
    assert world.kept("logs") == world.kept("results") == ["j5", "j6"]
    assert world.pauses == [0.5, 0.5]


async def test_of_too_many_jobs_the_oldest_go(world: World) -> None:
    fence = await world.context("c1")
    for number in range(5):
        await world.job(fence, f"j{number}", number)
    assert (await world.pruner(Limits(jobs_count=2)).prune()).jobs == 3
    assert await world.jobs() == ["j3", "j4"]
    assert (await world.pruner(Limits(jobs_count=2)).prune()).jobs == 0


async def test_results_and_logs_may_go_before_their_jobs_and_are_looked_at_once(world: World) -> None:
    fence = await world.context("c1")
    for number in range(3):
        await world.job(fence, f"j{number}", number)
    world.today = day(11.5)
    pruner = world.pruner(Limits(results_age=10 * DAY, logs_age=11 * DAY))
    assert await pruner.prune() == Removed(results=2, logs=1)
    job = await world.store.job("j0")
    assert job is not None
    assert (job.result, job.state) == (None, JobState.FINISHED)
    assert (world.kept("results"), world.kept("logs")) == (["j2"], ["j1", "j2"])
    assert (await pruner.prune()).total == 0
    world.today = day(13.5)
    assert await pruner.prune() == Removed(results=1, logs=2)


async def test_an_ended_context_goes_when_its_jobs_have_gone(world: World) -> None:
    fence = await world.context("c1")
    await world.job(fence, "j1", 0)
    await world.end(fence, 1)
    await world.context("c2")
    world.today = day(32)
    assert await world.pruner(Limits(contexts_age=30 * DAY)).prune() == Removed()
    both = world.pruner(Limits(contexts_age=30 * DAY, jobs_age=30 * DAY))
    assert await both.count() == Removed(jobs=1)
    assert await both.prune() == Removed(jobs=1, contexts=1)
    assert await world.store.context("c1") is None
    assert await world.store.context("c2") is not None


async def test_an_ended_context_stays_on_record_while_its_checkpoint_is_there(world: World) -> None:
    for number in range(5):
        await world.end(await world.context(f"c{number}"), number)
    for name in ("c0", "c1", "c3"):
        world.files.write_new(layout.marker_path(name, 1, "t"), b"x")
    world.today = day(100)
    pruner = world.pruner(Limits(contexts_age=DAY))
    assert await pruner.prune() == Removed(contexts=2)
    assert [name for name in ("c0", "c1", "c2", "c3", "c4") if await world.store.context(name)] == [
        "c0",
        "c1",
        "c3",
    ]
    world.files.remove("c1")
    assert await pruner.prune() == Removed(contexts=1)
    assert world.files.read(layout.marker_path("c0", 1, "t")) == b"x"


async def test_of_too_many_ended_contexts_the_first_to_end_go(world: World) -> None:
    for number in range(4):
        await world.end(await world.context(f"c{number}"), 10 - number)
    assert (await world.pruner(Limits(contexts_count=2)).prune()).contexts == 2
    left = [name for name in ("c0", "c1", "c2", "c3") if await world.store.context(name)]
    assert left == ["c0", "c1"]


async def test_code_that_nobody_needs_goes_after_its_grace_and_is_uploaded_again(world: World) -> None:
    desk = Binaries(world.store, world.files)
    record = await desk.upload("demo", BinaryType.PYTHON, b"x = 1")
    await desk.delete("demo")
    pruner = world.pruner(Limits(bytes_grace=DAY))
    assert (await pruner.prune()).total == 0
    world.today = day(0.9)
    assert await pruner.count() == Removed()
    assert (await pruner.prune()).total == 0
    world.today = day(1.1)
    assert await pruner.count() == Removed(binaries=1)
    assert await pruner.prune() == Removed(binaries=1)
    assert world.kept("binaries") == []
    assert (await desk.upload("demo", BinaryType.PYTHON, b"x = 1")).digest == record.digest
    assert stored.read(world.files, record.digest) == b"x = 1"


async def test_replaced_uploads_go_and_their_bytes_after_them(world: World) -> None:
    desk = Binaries(world.store, world.files)
    for text in (b"x = 1", b"x = 2"):
        await desk.upload("demo", BinaryType.PYTHON, text)
    world.today = datetime.now(UTC) + timedelta(days=91)
    pruner = world.pruner(Limits(versions_age=90 * DAY, bytes_grace=DAY))
    assert await pruner.prune() == Removed(versions=1)
    world.today += timedelta(days=2)
    assert await pruner.prune() == Removed(binaries=1)
    assert len(world.kept("binaries")) == 1


async def test_a_removal_that_was_interrupted_is_ended_by_the_next_leader(world: World) -> None:
    desk = Binaries(world.store, world.files)
    record = await desk.upload("demo", BinaryType.PYTHON, b"x = 1")
    await desk.delete("demo")
    pruner = world.pruner(Limits(bytes_grace=DAY))
    await pruner.prune()
    assert await world.store.retention.begin_removal(record.digest, day(2), day(2))
    world.today = day(2)
    await pruner.prune()
    assert len(world.kept("binaries")) == 1, "the one who began may still be at it"
    world.today = day(2.1)
    await pruner.prune()
    assert world.kept("binaries") == []
    await desk.upload("demo", BinaryType.PYTHON, b"x = 1")


async def test_a_server_that_was_frozen_before_the_removal_of_bytes_leaves_them(world: World) -> None:
    desk = Binaries(world.store, world.files)
    record = await desk.upload("demo", BinaryType.PYTHON, b"x = 1")
    await desk.delete("demo")
    pruner = world.pruner(Limits(bytes_grace=DAY))
    await pruner.prune()
    world.today = day(2)
    begin = world.store.retention.begin_removal

    async def frozen(*args: object) -> bool:
        world.clock += PROMPT + 1
        return await begin(*args)  # type: ignore[arg-type]

    world.store.retention.begin_removal = frozen  # type: ignore[method-assign]
    assert (await pruner.prune()).binaries == 0
    assert stored.read(world.files, record.digest) == b"x = 1"


async def test_an_interrupted_removal_is_taken_over_by_one_server_and_promptly_or_left(world: World) -> None:
    desk = Binaries(world.store, world.files)
    record = await desk.upload("demo", BinaryType.PYTHON, b"x = 1")
    await desk.delete("demo")
    retention = world.store.retention
    pruner = world.pruner(Limits(bytes_grace=DAY))
    await pruner.prune()
    assert await retention.begin_removal(record.digest, day(2), day(2))
    take_over = retention.take_over_removal
    frozen_for = 0.0

    async def slow(*args: object) -> bool:
        world.clock += frozen_for
        return await take_over(*args)  # type: ignore[arg-type]

    retention.take_over_removal = slow  # type: ignore[method-assign]
    world.today, frozen_for = day(2.1), PROMPT + 1
    await pruner.prune()
    assert len(world.kept("binaries")) == 1, "it was frozen meanwhile: somebody may have stored them again"
    world.today, frozen_for = day(2.1) + timedelta(minutes=4), 0.0
    await pruner.prune()
    assert len(world.kept("binaries")) == 1, "whoever took it over may still be at it"
    world.today = day(2.2)
    await pruner.prune(lambda: False)
    assert len(world.kept("binaries")) == 1
    await pruner.prune()
    assert world.kept("binaries") == []
    assert not await take_over(record.digest, day(9), day(9)), "it has ended"


async def test_results_of_a_job_that_ended_long_after_later_ones_go_too(world: World) -> None:
    fence = await world.context("c1")
    slow = JobRecord("slow", "c1", "c1", SPEC, JobState.QUEUED, day(0))
    await world.store.insert_job(slow, queue_limit=100)
    assert await world.store.start_attempt(fence, "slow", 1, day(0))
    await world.job(fence, "j1", 1)
    pruner = world.pruner(Limits(results_age=10 * DAY))
    world.today = day(12)
    assert (await pruner.prune()).results == 1
    assert await world.store.finish_job(
        fence, AttemptOutcome("slow", 1, OutcomeKind.FINISHED, "1"), JobState.FINISHED, day(12)
    )
    world.today = day(23)
    assert (await pruner.prune()).results == 1
    slow_one = await world.store.job("slow")
    assert slow_one is not None
    assert slow_one.result is None


async def test_audited_operations_go_by_age(world: World) -> None:
    for number in range(5):
        await world.store.audit.add(Operation(day(number), "eve", "kill", "j1"))
    world.today = day(12.5)
    assert await world.pruner(Limits(audit_age=10 * DAY)).prune() == Removed(operations=3)
    assert len(await world.store.audit.newest(10)) == 2


async def test_a_leader_that_leads_no_more_stops_between_two_batches(world: World) -> None:
    fence = await world.context("c1")
    for number in range(6):
        await world.job(fence, f"j{number}", 0)
    world.today = day(100)
    answers = iter([True] * 5)
    removed = await world.pruner(Limits(jobs_age=DAY)).prune(lambda: next(answers, False))
    assert 0 < removed.jobs < 6


async def test_a_checkpoint_store_that_is_away_keeps_the_rows_and_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = await world.context("c1")
    await world.job(fence, "j1", 0)
    await world.store.audit.add(Operation(day(0), "eve", "kill", "j1"))
    world.today = day(100)

    def away(path: str) -> None:
        raise StoreUnavailable("no disk")

    monkeypatch.setattr(world.files, "remove", away)
    removed = await world.pruner(Limits(jobs_age=DAY, audit_age=DAY)).prune()
    assert (removed.jobs, removed.operations) == (0, 1)
    assert removed.unfinished == ["jobs: the checkpoint store removes nothing now: no disk"]
    assert await world.jobs() == ["j1"]


async def test_a_repeated_key_gets_its_job_until_that_goes(world: World) -> None:
    fence = await world.context("c1")
    job = JobRecord("j1", "c1", "c1", SPEC, JobState.QUEUED, day(0))
    job = replace(job, idempotency_key="k", request_digest="a")
    await world.store.insert_job(job, queue_limit=1)
    await world.store.start_attempt(fence, "j1", 1, day(0))
    outcome = AttemptOutcome("j1", 1, OutcomeKind.FINISHED, "1")
    await world.store.finish_job(fence, outcome, JobState.FINISHED, day(0))
    again = replace(job, id="j2", submitted_at=day(5))
    assert (await world.store.insert_job(again, queue_limit=1)).id == "j1"
    world.today = day(5)
    await world.pruner(Limits(jobs_age=DAY)).prune()
    assert (await world.store.insert_job(again, queue_limit=1)).id == "j2"


async def test_others_write_while_a_long_past_is_removed(world: World) -> None:
    fence = await world.context("c1")
    for number in range(15):
        await world.job(fence, f"j{number}", 0)
    world.today = day(100)
    pruner = world.pruner(Limits(jobs_age=DAY), batch=5)
    pruning = asyncio.create_task(pruner.prune())
    written = 0
    while not pruning.done():
        await world.store.audit.add(Operation(day(1), "eve", "kill", "x"))
        written += 1
    assert (await pruning).jobs == 15
    assert written > 3, "a write for each batch at least"
