"""A connection that ends at any point of any write of the store: repeated as callers do, it has one effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from jobserver.errors import OutcomeUnknown, StoreUnavailable
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
    JobRecord,
    JobSpec,
    JobState,
    OutcomeKind,
)
from jobserver.store.metadata import Metadata
from tests.mariadb import Databases, connected, rows
from tests.sql_proxy import Cut, SqlProxy, proxy_to, reply_ends

T0 = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
FENCE = Fence("c1", 1, "token")
PROBLEM = ErrorInfo("it broke", "demo.Broken", "")
DRIVER = DriverRecord("d1", "127.0.0.1", 4711, 99, 123456, "secret", 1)
SPEC = JobSpec("demo.Job", (BinaryRef("demo", BinaryType.EGG, "d" * 64),))


def job(job_id: str) -> JobRecord:
    return JobRecord(job_id, "c1", "ctx", SPEC, JobState.QUEUED, T0)


def context(context_id: str, name: str) -> ContextRecord:
    return ContextRecord(context_id, name, {}, ContextState.STARTED, False, T0)


Write = Callable[[Metadata], Awaitable[Any]]


async def at_once(store: Metadata, *writes: Write) -> None:
    """The first goes alone, the others in one packet meanwhile; each is repeated as callers do."""
    await asyncio.gather(*(repeated(store, write) for write in writes))


def one_of_many(job_id: str) -> Write:
    return lambda one: one.insert_job(job(job_id), queue_limit=9)


WRITES: dict[str, Write] = {
    "upload": lambda one: one.put_binary(BinaryRecord("demo", BinaryType.EGG, "e" * 64, 12, T0)),
    "create a context": lambda one: one.create_context(context("c2", "other")),
    "grant": lambda one: one.grant("c1", 1, "s2", "i2", "t2"),
    "move a context": lambda one: one.move_context(
        FENCE, [ContextState.STARTED], ContextState.RUNNING, at=T0
    ),
    "record a driver": lambda one: one.record_driver(FENCE, DRIVER),
    "record a failover": lambda one: one.record_failover(FENCE, Failover(T0, "adopted", 0.2)),
    "ask for a stop": lambda one: one.request_stop("c1"),
    "accept": lambda one: one.insert_job(job("new"), queue_limit=9, callback_url="http://127.0.0.1/x"),
    "accept and start": lambda one: one.insert_started_job(FENCE, job("new"), queue_limit=9, at=T0),
    "start": lambda one: one.start_attempt(FENCE, "waiting", 1, T0),
    "finish": lambda one: one.finish_job(
        FENCE, AttemptOutcome("running", 1, OutcomeKind.FINISHED, '{"n":1}'), JobState.FINISHED, T0
    ),
    "accept four at once": lambda one: at_once(one, *(one_of_many(f"n{number}") for number in range(4))),
    "finish and start at once": lambda one: at_once(
        one,
        lambda each: each.request_stop("nobody"),
        lambda each: each.start_attempt(FENCE, "waiting", 1, T0),
        lambda each: each.finish_job(
            FENCE, AttemptOutcome("running", 1, OutcomeKind.FINISHED, '{"n":1}'), JobState.FINISHED, T0
        ),
    ),
    "restart": lambda one: one.restart_job(FENCE, "running", 1, died=True, error=PROBLEM, at=T0),
    "end a waiting job": lambda one: one.end_waiting_job(FENCE, "waiting", JobState.KILLED, PROBLEM, T0),
    "end the jobs of an ended context": lambda one: one.end_jobs_of_ended_context("ended", PROBLEM, T0),
}


@pytest.fixture(scope="module")
async def prepared(databases: Databases) -> str:
    """A database as every one of the writes needs it."""
    url = databases.new()
    store = await Metadata.open(url, timeout=30, server="s1")
    await store.upgrade()
    await fill(store)
    await store.close()
    return url


async def fill(store: Metadata) -> None:
    await store.create_context(context("c1", "ctx"))
    await store.grant("c1", 0, "s1", "i1", "token")
    for name in ("waiting", "running"):
        await store.insert_job(job(name), queue_limit=9)
    await store.start_attempt(FENCE, "running", 1, T0)
    ended = Fence("ended", 1, "token")
    await store.create_context(context("ended", "past"))
    await store.grant("ended", 0, "s1", "i1", "token")
    await store.insert_job(JobRecord("left", "ended", "past", SPEC, JobState.QUEUED, T0), queue_limit=9)
    await store.move_context(ended, [ContextState.STARTED], ContextState.KILLED, at=T0)


class Snapshots:
    """The rows of all tables, put back before each run."""

    def __init__(self, url: str) -> None:
        self._connection = connected(url, autocommit=True)
        names = [name for (name,) in rows(self._connection, "SHOW TABLES") if name != "alembic_version"]
        self._names = names
        self._start = self.now()

    def now(self) -> dict[str, Any]:
        """What is in the tables; but for the number of an upload, and the name of the connection that wrote."""
        return {name: sorted(map(repr, self._rows(name))) for name in self._names}

    def _rows(self, name: str) -> list[tuple[Any, ...]]:
        listed = rows(self._connection, f"SHOW COLUMNS FROM {name}")
        kept = [
            row[0] for row in listed if (name, row[0]) not in (("binaries", "id"), ("fences", "connection"))
        ]
        columns = ", ".join(f"`{column}`" for column in kept)
        return list(rows(self._connection, f"SELECT {columns} FROM {name}"))

    def keep(self) -> None:
        """Copies every table aside."""
        for name in self._names:
            rows(
                self._connection,
                f"CREATE OR REPLACE TABLE kept_{name} ENGINE=InnoDB AS SELECT * FROM {name}",
            )

    def put_back(self) -> None:
        """Every table as it was."""
        rows(self._connection, "SET foreign_key_checks = 0", "START TRANSACTION")
        for name in self._names:
            rows(self._connection, f"DELETE FROM {name}", f"INSERT INTO {name} SELECT * FROM kept_{name}")
        rows(self._connection, "COMMIT")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
async def snapshots(prepared: str):
    made = Snapshots(prepared)
    made.keep()
    yield made
    made.close()


async def repeated(store: Metadata, write: Write) -> Any:
    """As callers do: what is not done or unknown is done again. At most 20 times."""
    for _ in range(20):
        try:
            return await write(store)
        except (StoreUnavailable, OutcomeUnknown):
            continue
    raise AssertionError("no try came through")


async def undisturbed(proxy: SqlProxy, write: Write) -> tuple[list[int], list[int]]:
    """Does the write once; the points at which its request and its reply can be cut, in bytes."""
    store = await Metadata.open(proxy.url, timeout=5, server="s1")
    await store.request_stop("nobody")  # the connection stands
    proxy.record()
    await write(store)
    asked = len(proxy.requests)
    replies = reply_ends(bytes(proxy.replies))
    await store.close()
    within = [end - 2 for end in replies]
    return [1, asked // 2, asked - 1, asked], sorted({*within, *replies[:-1]})


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_connection_that_ends_at_any_point_of_a_write_leaves_one_effect(
    prepared: str, snapshots: Snapshots, write: Write
) -> None:
    async with proxy_to(prepared) as proxy:
        snapshots.put_back()
        before = snapshots.now()
        requests, replies = await undisturbed(proxy, write)
        effect = snapshots.now()
        assert effect != before
        for cut in [*(("request", at) for at in requests), *(("reply", at) for at in replies)]:
            snapshots.put_back()
            store = await Metadata.open(proxy.url, timeout=5, server="s1")
            await store.request_stop("nobody")
            if cut[0] == "request":
                proxy.request_cut = Cut(cut[1])
            else:
                proxy.reply_cut = Cut(cut[1])
            call = repeated(store, write)
            await proxy_heals_after_the_cut(proxy, call)
            assert snapshots.now() == effect, f"cut in the {cut[0]} after {cut[1]} bytes"
            await store.close()


async def proxy_heals_after_the_cut(proxy: SqlProxy, call: Awaitable[Any]) -> None:
    """Runs the call; only the first connection is cut, later ones stand."""
    task = asyncio.ensure_future(call)
    while not task.done():
        cut = proxy.request_cut or proxy.reply_cut
        if cut is not None and cut.passed >= cut.after:
            proxy.request_cut = proxy.reply_cut = None
        await asyncio.sleep(0)
    proxy.request_cut = proxy.reply_cut = None
    await task
