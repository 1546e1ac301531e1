"""The metadata store by itself, on SQLite and on a MariaDB: acceptances and ends of jobs, guarded writes, what a recovery reads.

Servers are processes, as each has one writing thread. The databases and the servers share this machine.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, bindparam, insert, update

from benchmarks.databases import end_of_past, fill, mariadb
from benchmarks.measure import Effort, Goal, Section, Series
from jobserver import recovery
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
from jobserver.store.change import one
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata
from jobserver.store.rows import job_values
from jobserver.store.statement import Statement
from jobserver.store.tables import contexts, jobs

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXTS = 8
CLIENTS = 64
UNFINISHED = 10_000
AN_END = (Goal(0.5, 1 / 1500),)
"""At least 1,500 jobs a second, all of each job's writes included."""
_PLAIN = Statement(
    update(contexts).where(contexts.c.id == bindparam("context")).values(driver=bindparam("text"))
)
_NAMES = list(job_values(JobRecord("", "", "", JobSpec("", ()), JobState.QUEUED, T0)))
_PLAIN_INSERT = Statement(insert(jobs).inline().values({name: bindparam(name) for name in _NAMES}))
_PLAIN_END = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(state=JobState.FINISHED.value, ended_at=bindparam("at"), result=bindparam("new_result"))
)


def run(effort: Effort) -> Section:
    """Both databases, the same measurements."""
    series: list[Series] = []
    with tempfile.TemporaryDirectory() as folder, mariadb(Path(folder)) as address:
        for name, url in (("SQLite", f"sqlite:///{folder}/metadata.db"), ("MariaDB", address)):
            series += asyncio.run(_measured(name, url, effort))
    return Section(
        "The metadata store",
        f"{CLIENTS} clients a server, {CONTEXTS} contexts; every commit is durable (synchronous FULL,"
        " innodb_flush_log_at_trx_commit 1). Plain: rows of the same size by the same group commit, without guard, queue's"
        " bound, fence or history.",
        series,
    )


async def _measured(name: str, url: str, effort: Effort) -> list[Series]:
    store = await Metadata.open(url, timeout=60)
    await store.upgrade()
    for n in range(CONTEXTS):
        await store.create_context(ContextRecord(f"c{n}", f"name-c{n}", {}, ContextState.STARTED, False, T0))
        await store.grant(f"c{n}", 0, "s1", "i1", "t1")
        await store.move_context(_fence(n), [ContextState.STARTED], ContextState.RUNNING, at=T0)
    database = Database.open(url, timeout=150)
    series = [
        *await _rates(name, url, database, effort),
        *await _guarded(name, store, database, effort),
        *await _recovered(name, store, database, effort),
    ]
    await database.close()
    await store.close()
    return series


def _fence(context: int) -> Fence:
    return Fence(f"c{context}", 1, "t1")


async def _rates(name: str, url: str, database: Database, effort: Effort) -> list[Series]:
    """Each kind of writes by one server and by three, in turns; and the time that each job of a full life took."""
    life = Series(
        f"{name}: a job accepted, started and finished, time for each of {CLIENTS} clients' jobs",
        goals=AN_END,
    )
    found: list[Series] = []
    for servers in (1, 3):
        by = f"per second, {servers} server{'s'[: servers - 1]}"
        plain = Series(f"{name}: plain rows inserted {by}", "1/s")
        accepted = Series(f"{name}: accepted {by}", "1/s", baseline=plain)
        updated = Series(f"{name}: plain rows inserted and updated {by}", "1/s")
        lived = Series(f"{name}: accepted, started and finished {by}", "1/s", baseline=updated)
        kinds = {"plain": plain, "accepted": accepted, "updated": updated, "lived": lived}
        for _ in range(effort.rounds_of(3)):
            for kind, series in kinds.items():
                await database.write(_without_jobs)
                rate = await asyncio.to_thread(_rate, url, kind, servers, effort.times(1500, 100))
                series.values.append(rate)
                if kind == "lived" and servers == 1:
                    life.values.append(1 / rate)
        found += kinds.values()
    await database.write(_without_jobs)
    return [*found, life] if name == "MariaDB" else found


def _rate(url: str, kind: str, servers: int, count: int) -> float:
    """Jobs per second by that many processes, from the moment that all are ready."""
    command = [sys.executable, "-m", "benchmarks.metadata", url, kind, str(count)]
    processes = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(servers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    begin = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
    took = time.perf_counter() - begin
    for process in processes:
        assert process.wait() == 0
    return servers * count / took


async def _serve(url: str, kind: str, count: int, server: int) -> None:
    """One server's writes, by its clients at once."""
    store = await Metadata.open(url, timeout=60)
    await store.list_binaries()
    await store.request_stop("nobody")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    numbers = iter(range(count))

    async def client() -> None:
        for n in numbers:
            context = f"c{n % CONTEXTS}"
            record = JobRecord(
                f"{server}-{n}", context, f"name-{context}", JobSpec("demo.Job", ()), JobState.QUEUED, T0
            )
            await KINDS[kind](store, record)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    print("done", flush=True)
    await store.close()


async def _plain(store: Metadata, record: JobRecord) -> None:
    assert await store._database.write(one(_PLAIN_INSERT, job_values(record)))


async def _updated(store: Metadata, record: JobRecord) -> None:
    await _plain(store, record)
    assert await store._database.write(one(_PLAIN_END, {"job": record.id, "at": 1, "new_result": '{"n":1}'}))


async def _accepted(store: Metadata, record: JobRecord) -> None:
    assert await store.insert_job(record, queue_limit=100_000) == record


async def _lived(store: Metadata, record: JobRecord) -> None:
    """Accepted and started in one write, as by an owner, then finished."""
    fence = Fence(record.context_id, 1, "t1")
    job = await store.insert_started_job(fence, record, queue_limit=100_000, at=T0)
    assert job.state is JobState.RUNNING
    outcome = AttemptOutcome(job.id, 1, OutcomeKind.FINISHED, '{"n":1}')
    assert await store.finish_job(fence, outcome, JobState.FINISHED, T0)


KINDS: dict[str, Callable[[Metadata, JobRecord], Awaitable[None]]] = {
    "plain": _plain,
    "accepted": _accepted,
    "updated": _updated,
    "lived": _lived,
}


async def _guarded(name: str, store: Metadata, database: Database, effort: Effort) -> list[Series]:
    plain = Series(f"{name}: a plain write, alone")
    guarded = Series(f"{name}: a guarded write of the same row, alone", baseline=plain)
    for n in range(effort.times(200, 20)):
        with plain.timed():
            await database.write(one(_PLAIN, {"context": "c0", "text": str(n)}))
        with guarded.timed():
            await store.record_driver(_fence(0), None)
    return [plain, guarded]


async def _recovered(name: str, store: Metadata, database: Database, effort: Effort) -> list[Series]:
    """What a takeover reads and decides; the past of the context must not matter."""
    what = f"{name}: {UNFINISHED:,} unfinished jobs read and planned"
    alone = Series(what)
    past = effort.times(200_000, 1_000)
    beside = Series(f"{what}, beside {past:,} that have ended", baseline=alone)
    await end_of_past(store)
    for series in (alone, beside):
        if series is beside:
            await fill(database, past)
        await database.write(partial(_queue, count=effort.times(UNFINISHED, 100)))
        for _ in range(effort.rounds_of(5)):
            with series.timed():
                found = await store.unfinished_jobs("past")
                plans = recovery.plan(found, None)
            assert len(plans) == len(found) == effort.times(UNFINISHED, 100)
        await database.write(_without_jobs)
    return [alone, beside]


def _queue(connection: Connection, *, count: int) -> None:
    """Waiting jobs of the context whose past is filled."""
    records = (
        JobRecord(f"w{n}", "past", "past", JobSpec("demo.Job", ()), JobState.QUEUED, T0) for n in range(count)
    )
    connection.execute(insert(jobs), [job_values(record) for record in records])


def _without_jobs(connection: Connection) -> None:
    connection.exec_driver_sql("DELETE FROM job_history")
    connection.exec_driver_sql("DELETE FROM jobs")


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
