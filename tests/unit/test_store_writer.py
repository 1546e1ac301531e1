"""The writer: group commit, what neighbours owe each other, and what is known after a failure."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from jobserver.errors import BadConfig, OutcomeUnknown, StoreUnavailable
from jobserver.store.database import Database
from jobserver.store.writer import LARGEST_GROUP, LONGEST_QUEUE

TIMEOUT = 0.5


class Broken(Exception):
    """What a faulty write raises."""


def add(number: int) -> object:
    def run(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO n VALUES (?)", (number,))
        return number

    return run


def numbers(connection: Connection) -> list[int]:
    return [row[0] for row in connection.exec_driver_sql("SELECT n FROM n ORDER BY n")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "numbers.db"


async def opened(path: Path, timeout: float) -> Database:
    database = Database.open(f"sqlite:///{path}", timeout=timeout)
    await database.write(lambda one: one.exec_driver_sql("CREATE TABLE n (n INTEGER PRIMARY KEY)"))
    return database


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = await opened(path, timeout=20)
    yield database
    await database.close()


@pytest.fixture
async def impatient(path: Path) -> AsyncIterator[Database]:
    """For tests in which a call has to give up."""
    database = await opened(path, timeout=TIMEOUT)
    yield database
    await database.close()


class Gate:
    """A write that holds the writer's thread at a point until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.reached.set()
        assert self.opened.wait(20)

    async def wait_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 20)


def count_commits(database: Database) -> list[object]:
    commits: list[object] = []
    event.listen(database.writing, "commit", commits.append)
    return commits


async def test_a_write_is_there_for_the_next_read(database: Database) -> None:
    assert await database.write(add(1)) == 1
    assert await database.read(numbers) == [1]


async def test_writes_that_arrive_during_a_commit_share_the_next_one(database: Database) -> None:
    commits = count_commits(database)
    gate = Gate()
    first = asyncio.create_task(database.write(gate))
    await gate.wait_reached()
    others = [asyncio.create_task(database.write(add(number))) for number in range(20)]
    await asyncio.sleep(0)
    gate.opened.set()
    assert await asyncio.gather(first, *others) == [None, *range(20)]
    assert len(commits) == 2


async def test_a_group_is_bounded(database: Database) -> None:
    commits = count_commits(database)
    await asyncio.gather(*(database.write(add(number)) for number in range(LARGEST_GROUP + 2)))
    assert len(await database.read(numbers)) == LARGEST_GROUP + 2
    assert len(commits) == 3  # the lonely first, a full group, the rest


async def test_a_lonely_write_commits_alone_and_at_once(database: Database) -> None:
    commits = count_commits(database)
    for number in range(3):
        await database.write(add(number))
    assert len(commits) == 3


async def test_a_failing_write_does_not_fail_its_neighbours(database: Database) -> None:
    def broken(connection: Connection) -> None:
        add(100)(connection)
        raise Broken

    def wrong_sql(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    gate = Gate()
    calls = [gate, add(1), broken, add(2), wrong_sql, add(3)]
    tasks = [asyncio.create_task(database.write(call)) for call in calls]
    await gate.wait_reached()
    gate.opened.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1] == 1
    assert isinstance(results[2], Broken)
    assert results[3] == 2
    assert isinstance(results[4], StoreUnavailable)
    assert "nowhere" in results[4].message
    assert results[5] == 3
    assert await database.read(numbers) == [1, 2, 3]


async def test_a_store_locked_by_another_process_is_unavailable_and_unchanged(
    impatient: Database, path: Path
) -> None:
    intruder = sqlite3.connect(path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreUnavailable, match="locked"):
            await impatient.write(add(1))
        assert await impatient.read(numbers) == []  # readers do not wait for writers
    finally:
        intruder.rollback()
        intruder.close()
    assert await impatient.write(add(2)) == 2
    assert await impatient.read(numbers) == [2]


async def test_a_commit_that_fails_leaves_the_outcome_unknown_for_the_whole_group(database: Database) -> None:
    def fail(_connection: Connection) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))

    event.listen(database.writing, "commit", fail, once=True)
    with pytest.raises(OutcomeUnknown, match="disk I/O error"):
        await database.write(add(1))
    assert await database.write(add(2)) == 2


async def test_a_caller_that_gave_up_before_its_write_was_sent_finds_it_undone(impatient: Database) -> None:
    gate = Gate()
    blocking = asyncio.create_task(impatient.write(gate))
    await gate.wait_reached()
    cancelled = asyncio.create_task(impatient.write(add(1)))
    late = asyncio.create_task(impatient.write(add(2)))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(StoreUnavailable, match="took no write"):
        await late
    with pytest.raises(OutcomeUnknown, match="did not answer"):
        await blocking
    gate.opened.set()
    assert await impatient.write(add(3)) == 3
    assert await impatient.read(numbers) == [3]


async def test_a_read_that_takes_too_long_says_so(impatient: Database) -> None:
    gate = Gate()
    with pytest.raises(StoreUnavailable, match="answered no read"):
        await impatient.read(gate)
    gate.opened.set()


async def test_reading_cannot_write(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        await database.read(add(1))


async def test_a_closed_store_is_unavailable(path: Path) -> None:
    database = Database.open(f"sqlite:///{path}", timeout=TIMEOUT)
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.write(add(1))
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.read(numbers)


async def test_closing_refuses_what_waits_and_lets_what_runs_end(path: Path, database: Database) -> None:
    second = Database.open(f"sqlite:///{path}", timeout=5)
    gate = Gate()

    def gated(connection: Connection) -> int:
        gate(connection)
        return add(1)(connection)

    running = asyncio.create_task(second.write(gated))
    await gate.wait_reached()
    waiting = asyncio.create_task(second.write(add(2)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(second.close())
    with pytest.raises(StoreUnavailable, match="closing"):
        await waiting
    gate.opened.set()
    assert await running == 1
    await closing
    assert await database.read(numbers) == [1]


async def test_a_folder_that_does_not_exist_is_a_store_that_is_unavailable(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/none/metadata.db", timeout=TIMEOUT)
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await database.read(numbers)
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await database.write(add(1))
    await database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is no address"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("postgresql://x/y", "'postgresql' are not supported"),
    ],
)
def test_an_address_that_cannot_be_a_store_is_refused(url: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Database.open(url, timeout=TIMEOUT)


def test_a_way_to_synchronise_that_does_not_exist_is_refused(path: Path) -> None:
    with pytest.raises(BadConfig, match="FULL, NORMAL"):
        Database.open(f"sqlite:///{path}", timeout=TIMEOUT, synchronous="OFF")


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
async def test_the_store_is_synchronised_as_was_asked(path: Path, synchronous: str, level: int) -> None:
    database = Database.open(f"sqlite:///{path}", timeout=TIMEOUT, synchronous=synchronous)
    level_found = await database.write(lambda one: one.exec_driver_sql("PRAGMA synchronous").scalar())
    mode = await database.write(lambda one: one.exec_driver_sql("PRAGMA journal_mode").scalar())
    await database.close()
    assert (level_found, mode) == (level, "wal")


async def test_beyond_its_longest_queue_the_store_says_that_it_is_busy(database: Database) -> None:
    gate = Gate()
    blocking = asyncio.create_task(database.write(gate))
    await gate.wait_reached()
    waiting = [asyncio.create_task(database.write(add(n))) for n in range(LONGEST_QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="busy") as caught:
        await database.write(add(-1))
    assert caught.value.retry_after is not None
    gate.opened.set()
    await asyncio.gather(blocking, *waiting)
    assert len(await database.read(numbers)) == LONGEST_QUEUE


async def test_a_store_whose_write_hangs_closes_what_else_it_has(path: Path) -> None:
    database = await opened(path, timeout=0.1)
    assert await database.read(numbers) == []
    assert database.reading.pool.checkedin() == 1  # type: ignore[attr-defined]
    gate = Gate()
    hanging = asyncio.create_task(database.write(gate))
    await gate.wait_reached()
    try:
        with pytest.raises(TimeoutError):
            await database.close()
        assert database.reading.pool.checkedin() == 0  # type: ignore[attr-defined]
    finally:
        gate.opened.set()
        with pytest.raises(OutcomeUnknown):
            await hanging
