"""Guarded writes on a real MariaDB: traps of its locks, deadlocks, killed connections, a frozen owner.

Where a trap is the matter, the same is tried without the guard's lock: it must go wrong, or the test shows nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import Connection, bindparam, select, update

from jobserver.errors import OutcomeUnknown, QueueFull, StoreUnavailable
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
from jobserver.store import contexts, insertions, jobs, packets
from jobserver.store.change import one
from jobserver.store.database import Database
from jobserver.store.guards import fence_values
from jobserver.store.metadata import Metadata
from jobserver.store.statement import Statement
from jobserver.store.tables import fences
from jobserver.store.tables import jobs as jobs_table
from tests.mariadb import Databases, connected, rows
from tests.sql_proxy import proxy_to

T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
FROZEN_OWNER = Path(__file__).with_name("frozen_owner.py")


@pytest.fixture
async def store(mariadb_url: str) -> AsyncIterator[Metadata]:
    store = await Metadata.open(mariadb_url, timeout=10, server="s1")
    yield store
    await store.close()


@pytest.fixture
async def database(mariadb_url: str) -> AsyncIterator[Database]:
    """For writes that the store itself does not have."""
    database = Database.open(mariadb_url, timeout=10)
    yield database
    await database.close()


@pytest.fixture
def outsider(mariadb_url: str) -> Iterator[pymysql.Connection]:
    """A connection that holds locks as it likes."""
    connection = connected(mariadb_url)
    yield connection
    connection.close()


async def owned(store: Metadata, context_id: str = "c1") -> Fence:
    await store.create_context(
        ContextRecord(context_id, f"name-{context_id}", {}, ContextState.STARTED, False, T0)
    )
    assert await store.grant(context_id, 0, "s1", "i1", "t1")
    return Fence(context_id, 1, "t1")


async def running(store: Metadata, fence: Fence, job_id: str) -> None:
    record = JobRecord(
        job_id, fence.context_id, f"name-{fence.context_id}", JobSpec("demo.Job", ()), JobState.QUEUED, T0
    )
    await store.insert_job(record, queue_limit=1000)
    assert await store.start_attempt(fence, job_id, 1, T0)


def finished(job_id: str) -> AttemptOutcome:
    return AttemptOutcome(job_id, 1, OutcomeKind.FINISHED, "1")


async def state_of(store: Metadata, job_id: str) -> JobState:
    job = await store.job(job_id)
    assert job is not None
    return job.state


async def until(condition: Callable[[], bool], what: str, limit: float = 20) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        await asyncio.sleep(0.01)


def waiting_for_locks(databases: Databases) -> int:
    """How many wait for a row's lock now."""
    return int(databases.run("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1])


# A failed write of statements that are not known before


@pytest.mark.parametrize("how", ["a duplicate key", "an error of ours", "a connection that cannot roll back"])
async def test_after_a_write_that_failed_inside_its_transaction_others_are_committed(
    store: Metadata, database: Database, databases: Databases, how: str
) -> None:
    await owned(store)

    def fails(connection: Connection) -> None:
        connection.exec_driver_sql("DELETE FROM contexts WHERE id = 'none'")
        if how == "an error of ours":
            raise ValueError(how)
        if how == "a connection that cannot roll back":
            me = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
            databases.run(f"KILL CONNECTION {me}")
        connection.exec_driver_sql("INSERT INTO fences SELECT * FROM fences WHERE context_id = 'c1'")

    with pytest.raises((StoreUnavailable, ValueError)):
        await database.write(fails)
    assert await database.write(contexts.request_stop("c1"))
    found = await store.context("c1")
    assert found is not None
    assert found.state is ContextState.STOPPING, "acknowledged, so others see it"


# Traps of the locks

_UNLOCKED = (
    select(fences.c.epoch)
    .where(
        fences.c.context_id == jobs_table.c.context_id,
        fences.c.context_id == bindparam("fence_context"),
        fences.c.epoch == bindparam("fence_epoch"),
        fences.c.token == bindparam("fence_token"),
    )
    .correlate(jobs_table)
    .exists()
)
GUARDS = {
    "with the lock": (jobs.RESTART, False),
    "without it": (
        Statement(
            update(jobs_table)
            .where(jobs_table.c.id == bindparam("job"), _UNLOCKED)
            .values(state=JobState.RESTARTING.value)
        ),
        True,
    ),
}


@pytest.mark.parametrize(("statement", "changes"), GUARDS.values(), ids=GUARDS)
async def test_a_write_that_waits_for_its_row_while_the_fence_is_raised_changes_nothing(
    store: Metadata,
    database: Database,
    outsider: pymysql.Connection,
    databases: Databases,
    statement: Statement,
    changes: bool,
) -> None:
    """The trap: an EXISTS without a lock has looked at the fence before it waits for the row."""
    fence = await owned(store)
    await running(store, fence, "j1")
    rows(outsider, "BEGIN", "SELECT id FROM jobs WHERE id = 'j1' FOR UPDATE")
    values = {"job": "j1", "this_attempt": 1, "new_deaths": 0, "at": 1, "new_error": None}
    old = asyncio.create_task(database.write(one(statement, {**values, **fence_values(fence)})))
    await until(lambda: waiting_for_locks(databases) == 1, "the old owner's write waits")
    granting = asyncio.create_task(store.grant("c1", 1, "s2", "i2", "t2"))
    if changes:  # with its lock on the fence the guarded write may be the one that is waited for
        assert await granting
    rows(outsider, "ROLLBACK")
    assert await granting
    changed = await old
    if changes:
        assert changed, "without the lock the old owner is not fenced: the trap has gone"
    else:
        # either it came before the grant, wholly, or it was refused; never after it
        assert changed == (await state_of(store, "j1") is JobState.RESTARTING)
        late = await database.write(one(statement, {**values, **fence_values(fence)}))
        assert not late


async def test_a_write_that_waits_for_a_grant_under_way_is_refused(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    fence = await owned(store)
    await running(store, fence, "j1")
    rows(outsider, "BEGIN", "UPDATE fences SET epoch = 2, token = 't2' WHERE context_id = 'c1'")
    late = asyncio.create_task(store.finish_job(fence, finished("j1"), JobState.FINISHED, T0))
    await until(lambda: waiting_for_locks(databases) == 1, "the old owner's write waits")
    rows(outsider, "COMMIT")
    assert await late is False
    assert await state_of(store, "j1") is JobState.RUNNING


async def test_writes_in_bulk_that_wait_for_a_grant_under_way_are_refused(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    """Their fence is looked at once, for all of them, and is locked from then on."""
    fence, other = await owned(store), await owned(store, "c2")
    for number in range(3):
        await running(store, fence, f"j{number}")
        await running(store, other, f"k{number}")
    rows(outsider, "BEGIN", "UPDATE fences SET epoch = 2, token = 't2' WHERE context_id = 'c1'")
    blocker = asyncio.create_task(store.request_stop("nobody"))
    late = [
        asyncio.create_task(store.finish_job(owner, finished(f"{name}{number}"), JobState.FINISHED, T0))
        for number in range(3)
        for owner, name in ((fence, "j"), (other, "k"))
    ]
    await blocker
    await until(lambda: waiting_for_locks(databases) == 1, "the old owner's writes wait")
    rows(outsider, "COMMIT")
    assert await asyncio.gather(*late) == [False, True] * 3
    states = {await state_of(store, f"j{number}") for number in range(3)}
    assert states == {JobState.RUNNING}


async def test_jobs_that_end_do_not_wait_for_a_count_of_the_queue(
    store: Metadata, mariadb_url: str, databases: Databases
) -> None:
    """What SET reads is locked until the commit; the count must be read without."""
    fence = await owned(store)
    await running(store, fence, "j1")
    for text in (
        insertions.COUNT.written_out(
            store._database.writing.dialect, {"unfinished": "n", "this_context": "c1"}, packets._literals
        ),
        insertions.ACCEPTING.written_out(
            store._database.writing.dialect,
            {"this_context": "c1", "queue_limit": 9, "latest_name": None, "latest_code": ""}
            | {"asked": 1, "gate": "g"},
            packets._literals,
        ),
    ):
        counting, ending = connected(mariadb_url), connected(mariadb_url)
        rows(counting, "BEGIN", text)
        rows(ending, "SET SESSION innodb_lock_wait_timeout = 1", "BEGIN")
        rows(ending, "UPDATE jobs SET priority = 1 WHERE id = 'j1'")
        counting.close()
        ending.close()


async def test_many_jobs_at_once_are_written_by_few_statements(
    store: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = await owned(store)
    assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=T0)
    sent: list[int] = []
    send = packets._send
    monkeypatch.setattr(
        packets, "_send", lambda engine, texts: sent.append(len(texts)) or send(engine, texts)
    )
    records = [
        JobRecord(f"j{n}", "c1", "name-c1", JobSpec("demo.Job", ()), JobState.QUEUED, T0) for n in range(41)
    ]
    begun = await asyncio.gather(
        *(store.insert_started_job(fence, record, queue_limit=41, at=T0) for record in records)
    )
    assert {job.state for job in begun} == {JobState.RUNNING}
    ended = await asyncio.gather(
        *(store.finish_job(fence, finished(job.id), JobState.FINISHED, T0) for job in begun)
    )
    assert ended == [True] * 41
    assert sent == [4, 4, 2, 3], "the first of each crowd alone, the others together"
    assert {len(await store.job_history(job.id)) for job in begun} == {2}


async def test_looking_at_the_fence_before_writing_is_no_fence(
    store: Metadata, mariadb_url: str, outsider: pymysql.Connection
) -> None:
    """Why guards are in the statement: a reader's snapshot goes on showing the old epoch."""
    fence = await owned(store)
    await running(store, fence, "j1")
    rows(outsider, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN")
    assert rows(outsider, "SELECT epoch FROM fences WHERE context_id = 'c1'") == ((1,),)
    assert await store.grant("c1", 1, "s2", "i2", "t2")
    assert rows(outsider, "SELECT epoch FROM fences WHERE context_id = 'c1'") == ((1,),)
    rows(outsider, "UPDATE jobs SET state = 'ERROR' WHERE id = 'j1'", "COMMIT")
    assert await state_of(store, "j1") is JobState.ERROR


async def test_the_queues_bound_holds_while_another_servers_acceptance_is_not_committed(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    fence = await owned(store)
    await running(store, fence, "j1")
    rows(
        outsider,
        "BEGIN",
        "SELECT id FROM contexts WHERE id = 'c1' FOR UPDATE",
        "INSERT INTO jobs (id, context_id, context_name, state, submitted_at, changed_at, attempt, deaths, priority,"
        " principal, spec) SELECT 'j2', context_id, context_name, 'QUEUED', 1, 1, 0, 0, 0, 'p', spec FROM jobs",
    )
    third = JobRecord("j3", "c1", "name-c1", JobSpec("demo.Job", ()), JobState.QUEUED, T0)
    late = asyncio.create_task(store.insert_job(third, queue_limit=2))
    await until(lambda: waiting_for_locks(databases) == 1, "the acceptance waits for its turn")
    rows(outsider, "COMMIT")
    with pytest.raises(QueueFull):
        await late


async def test_an_acceptance_that_starts_its_job_and_waits_for_a_grant_under_way_starts_nothing(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    """The insertion passes over what it may not insert; its guard still waits for the fence, longer than one try."""
    fence = await owned(store)
    assert await store.move_context(fence, [ContextState.STARTED], ContextState.RUNNING, at=T0)
    rows(outsider, "BEGIN", "UPDATE fences SET epoch = 2, token = 't2' WHERE context_id = 'c1'")
    timeouts = _lock_timeouts(databases)
    record = JobRecord("j1", "c1", "name-c1", JobSpec("demo.Job", ()), JobState.QUEUED, T0)
    late = asyncio.create_task(store.insert_started_job(fence, record, queue_limit=9, at=T0))
    await until(lambda: _lock_timeouts(databases) > timeouts, "one try has ended in a timeout")
    await until(lambda: waiting_for_locks(databases) == 1, "the next one waits")
    assert rows(outsider, "SELECT COUNT(*) FROM jobs") == ((0,),)
    rows(outsider, "COMMIT")
    assert (await late).state is await state_of(store, "j1") is JobState.QUEUED


async def test_a_full_queue_and_a_key_that_exists_cost_one_group_a_second_try_and_the_next_ones_none(
    store: Metadata, mariadb_url: str
) -> None:
    """By themselves they are no errors of the database; only a packet in bulk is rolled back for them, seldom."""
    await owned(store)
    job = JobRecord("j1", "c1", "name-c1", JobSpec("demo.Job", ()), JobState.QUEUED, T0, idempotency_key="k")
    await store.insert_job(job, queue_limit=2)
    async with proxy_to(mariadb_url) as proxy:
        watched = await Metadata.open(proxy.url, timeout=10)
        assert not await watched.request_stop("nobody")
        packets = []
        for group in range(3):
            proxy.record()
            blocker = asyncio.create_task(watched.request_stop("nobody"))
            calls = [
                watched.insert_job(
                    replace(job, id=f"g{group}{n}", idempotency_key=None if n else "k"), queue_limit=2 + group
                )
                for n in range(4)
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await blocker
            assert [type(answer) for answer in answers] == [JobRecord, JobRecord, QueueFull, QueueFull]
            packets.append(bytes(proxy.requests).count(b"START TRANSACTION"))
        await watched.close()
    assert [job.id for job in await store.unfinished_jobs("c1")] == ["g01", "g11", "g21", "j1"]
    assert packets == [2, 1, 1]


# Deadlocks, waits, killed connections


async def test_a_group_that_a_deadlock_rolled_back_is_done_again(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    first, second = await owned(store, "c1"), await owned(store, "c2")
    await running(store, first, "j1")
    await running(store, second, "j2")
    # many changed rows make the outsider the dearer victim
    rows(
        outsider,
        "BEGIN",
        "INSERT INTO audit (at, principal, action, target, detail, server)"
        " SELECT 1, 'p', 'a', 't', '{}', 's' FROM information_schema.COLLATIONS LIMIT 200",
    )
    rows(outsider, "UPDATE jobs SET priority = 1 WHERE id = 'j2'")
    blocker = asyncio.create_task(store.restart_job(first, "none", 1, died=False, error=None, at=T0))
    group = [
        asyncio.create_task(store.finish_job(first, finished("j1"), JobState.FINISHED, T0)),
        asyncio.create_task(store.finish_job(second, finished("j2"), JobState.FINISHED, T0)),
    ]
    await blocker
    await until(lambda: waiting_for_locks(databases) == 1, "the group waits for the second job")
    deadlocks = _deadlocks(databases)
    rows(outsider, "UPDATE jobs SET priority = 1 WHERE id = 'j1'")
    assert _deadlocks(databases) > deadlocks, "no deadlock was made: the test shows nothing"
    rows(outsider, "ROLLBACK")
    assert await asyncio.gather(*group) == [True, True]
    assert len(await store.job_history("j1")) == len(await store.job_history("j2")) == 3


def _deadlocks(databases: Databases) -> int:
    return int(databases.run("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")[0][1])


async def test_a_write_waits_for_a_lock_longer_than_one_try(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    fence = await owned(store)
    await running(store, fence, "j1")
    rows(outsider, "BEGIN", "SELECT id FROM jobs WHERE id = 'j1' FOR UPDATE")
    timeouts = _lock_timeouts(databases)
    late = asyncio.create_task(store.finish_job(fence, finished("j1"), JobState.FINISHED, T0))
    await until(lambda: _lock_timeouts(databases) > timeouts, "one try has ended in a timeout")
    rows(outsider, "ROLLBACK")
    assert await late is True


def _lock_timeouts(databases: Databases) -> int:
    found = databases.run("SELECT count FROM information_schema.INNODB_METRICS WHERE name = 'lock_timeouts'")
    return int(found[0][0])


async def test_a_connection_killed_within_a_group_leaves_nothing_of_it_and_the_repetition_has_one_effect(
    store: Metadata, outsider: pymysql.Connection, databases: Databases
) -> None:
    contexts = [await owned(store, f"c{n}") for n in range(4)]
    for fence in contexts:
        await running(store, fence, f"j-{fence.context_id}")
    for at in range(4):
        # the group stands still at this write: those before it are done, not committed
        rows(outsider, "BEGIN", f"SELECT id FROM jobs WHERE id = 'j-c{at}' FOR UPDATE")
        first = asyncio.create_task(store.request_stop("nobody"))
        restarts = [asyncio.create_task(_restart_until_known(store, fence, at + 1)) for fence in contexts]
        await first
        await until(lambda: waiting_for_locks(databases) == 1, "the group stands still")
        databases.run(f"KILL {_holder(outsider, store)}")
        await until(lambda: waiting_for_locks(databases) <= 1, "it was rolled back")
        rows(outsider, "ROLLBACK")
        assert await asyncio.gather(*restarts) == [None] * 4
        for fence in contexts:
            job_id = f"j-{fence.context_id}"
            job = await store.job(job_id)
            assert job is not None
            assert (job.state, job.attempt, job.deaths) == (JobState.RESTARTING, at + 1, at + 1)
            assert len(await store.job_history(job_id)) == 3 + 2 * at
            assert await store.start_attempt(fence, job_id, at + 2, T0)


async def _restart_until_known(store: Metadata, fence: Fence, attempt: int) -> None:
    """As the owner does it: repeat, then look whether it had happened."""
    job_id = f"j-{fence.context_id}"
    while True:
        try:
            if await store.restart_job(fence, job_id, attempt, died=True, error=None, at=T0):
                return
            assert await state_of(store, job_id) is JobState.RESTARTING
            return
        except (OutcomeUnknown, StoreUnavailable):
            await asyncio.sleep(0.02)


async def test_many_servers_that_write_for_many_contexts_at_once_lose_nothing_to_deadlocks(
    mariadb_url: str, store: Metadata
) -> None:
    contexts = [await owned(store, f"c{n}") for n in range(6)]
    servers = [await Metadata.open(mariadb_url, timeout=20) for _ in range(3)]
    records = [
        (
            server,
            JobRecord(
                f"{n}-{one.context_id}-{k}", one.context_id, "x", JobSpec("d", ()), JobState.QUEUED, T0
            ),
        )
        for k in range(10)
        for n, server in enumerate(servers)
        for one in (contexts if n % 2 else reversed(contexts))
    ]
    await asyncio.gather(*(server.insert_job(record, queue_limit=1000) for server, record in records))
    counts = [len(await store.unfinished_jobs(fence.context_id)) for fence in contexts]
    for server in servers:
        await server.close()
    assert counts == [30] * 6


# A frozen owner


async def test_an_owner_frozen_in_the_middle_of_a_write_does_not_stop_the_takeover(
    mariadb_url: str, store: Metadata
) -> None:
    """It holds the fence's row in an open transaction, as no write of ours does; the grant ends its connection."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, FROZEN_OWNER, mariadb_url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"holds\n"
        await until(lambda: _stopped(process.pid), "the owner is frozen")
        begun = time.monotonic()
        assert await store.grant("c1", 1, "s2", "i2", "t2")
        took = time.monotonic() - begun
        assert took < 5, "the grant waited for something else than its 200 ms"
        done = await store.finish_job(Fence("c1", 2, "t2"), finished("j1"), JobState.FINISHED, T0)
        assert done, f"refused: {await store.job('j1')}, {await store.fence('c1')}"
        os.kill(process.pid, signal.SIGCONT)
        assert await process.stdout.read() == b"OutcomeUnknown False\n"
        assert await state_of(store, "j1") is JobState.FINISHED
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_a_grant_ends_no_connection_but_that_of_the_fences_owner(
    store: Metadata, mariadb_url: str, outsider: pymysql.Connection
) -> None:
    """A stranger that holds the row is waited for; a bystander's connection stays."""
    other = await Metadata.open(mariadb_url, timeout=10)
    await owned(store)
    assert await other.request_stop("nobody") is False
    holder = _holder(outsider, other)
    rows(outsider, "BEGIN", "SELECT epoch FROM fences WHERE context_id = 'c1' FOR UPDATE")
    granting = asyncio.create_task(other.grant("c1", 1, "s2", "i2", "t2"))
    await until(lambda: _holder(outsider, store) is None, "the owner's connection was ended")
    assert not granting.done()
    rows(outsider, "ROLLBACK")
    assert await granting
    assert _holder(outsider, other) == holder
    await other.close()


def _holder(outsider: pymysql.Connection, store: Metadata) -> int | None:
    """The number of the store's writing connection."""
    found = rows(outsider, f"SELECT IS_USED_LOCK('{store._database.name}')")[0][0]
    return None if found is None else int(found)
