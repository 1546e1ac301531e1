"""The metadata store by itself, on SQLite and on a MariaDB: acceptance, guarded writes, listing, recovery.

Servers are processes, as each has one writing thread. The database and the servers share this machine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, bindparam, update

from benchmarks.measure import Effort, Goal, Section, Series
from jobserver.listing import JobQuery
from jobserver.local.java import find_java
from jobserver.local.layout import archive_cache
from jobserver.local.mariadb import MariaDbServer, unpacked
from jobserver.local.ports import free_ports
from jobserver.model import ContextRecord, ContextState, Fence, JobRecord, JobSpec, JobState
from jobserver.store.change import one
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata
from jobserver.store.statement import Statement
from jobserver.store.tables import contexts

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXTS = 8
CLIENTS = 64
LISTED = (Goal(0.5, 0.010),)
_PLAIN = Statement(
    update(contexts).where(contexts.c.id == bindparam("context")).values(driver=bindparam("text"))
)
_FILL = """
    INSERT INTO jobs (id, context_id, context_name, state, submitted_at, changed_at, ended_at, attempt, deaths,
        priority, principal, spec, main_class)
    WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})
    SELECT {id}, 'c0', 'name-c0', '{state}', i, i, i, 1, 0, 0, 'p', '{spec}', 'demo.Job' FROM n
"""
_SPEC = '{"main_class":"demo.Job","binaries":[],"config":"{}","max_attempts":3,"on_failover":"rerun"}'


def run(effort: Effort) -> Section:
    """Both databases, the same measurements."""
    series: list[Series] = []
    with tempfile.TemporaryDirectory() as folder, _mariadb(Path(folder)) as mariadb:
        for name, url in (("SQLite", f"sqlite:///{folder}/metadata.db"), ("MariaDB", mariadb)):
            series += asyncio.run(_measured(name, url, effort))
    return Section(
        "The metadata store",
        f"{CLIENTS} clients a server, {CONTEXTS} contexts; every commit is durable (synchronous FULL,"
        " innodb_flush_log_at_trx_commit 1).",
        series,
    )


@contextmanager
def _mariadb(folder: Path) -> Iterator[str]:
    """A MariaDB for the benchmark; the address of its database."""
    base = unpacked(find_java().command, archive_cache(os.environ) / "mariadb")
    server = MariaDbServer(folder / "mariadb", free_ports(1)[0], base)
    server.install()
    server.launch()
    try:
        server.wait_serving()
        password = server.password_file.read_text().strip()
        yield server.url.replace("@", f":{password}@", 1)
    finally:
        server.stop()


async def _measured(name: str, url: str, effort: Effort) -> list[Series]:
    store = await Metadata.open(url, timeout=60)
    await store.upgrade()
    for n in range(CONTEXTS):
        await store.create_context(ContextRecord(f"c{n}", f"name-c{n}", {}, ContextState.STARTED, False, T0))
        await store.grant(f"c{n}", 0, "s1", "i1", "t1")
    database = Database.open(url, timeout=60)
    series = [
        *await _accepted(name, url, database, effort),
        *await _guarded(name, store, database, effort),
        *await _listed(name, store, database, effort),
    ]
    await database.close()
    await store.close()
    return series


async def _accepted(name: str, url: str, database: Database, effort: Effort) -> list[Series]:
    found = []
    for servers in (1, 3):
        rate = Series(f"{name}: accepted per second, {servers} server{'s'[: servers - 1]}", "1/s")
        for _ in range(effort.rounds_of(3)):
            await database.write(_without_jobs)
            rate.values.append(await asyncio.to_thread(_rate, url, servers, effort.times(1500, 200)))
        found.append(rate)
    await database.write(_without_jobs)
    return found


def _rate(url: str, servers: int, jobs: int) -> float:
    """Jobs accepted per second by that many processes, from the moment that all are ready."""
    command = [sys.executable, "-m", "benchmarks.metadata", url, str(jobs)]
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
        assert process.wait() == 0
    return servers * jobs / (time.perf_counter() - begin)


async def _serve(url: str, jobs: int, server: int) -> None:
    """One server's acceptances, by its clients at once."""
    store = await Metadata.open(url, timeout=60)
    await store.list_binaries()
    await store.request_stop("nobody")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    numbers = iter(range(jobs))

    async def client() -> None:
        for n in numbers:
            context = f"c{n % CONTEXTS}"
            record = JobRecord(
                f"{server}-{n}", context, f"name-{context}", JobSpec("demo.Job", ()), JobState.QUEUED, T0
            )
            await store.insert_job(record, queue_limit=100_000)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await store.close()


async def _guarded(name: str, store: Metadata, database: Database, effort: Effort) -> list[Series]:
    plain = Series(f"{name}: a plain write, alone")
    guarded = Series(f"{name}: a guarded write, alone", baseline=plain)
    fence = Fence("c0", 1, "t1")
    for n in range(effort.times(200, 20)):
        with plain.timed():
            await database.write(one(_PLAIN, {"context": "c0", "text": str(n)}))
        with guarded.timed():
            await store.record_driver(fence, None)
    return [plain, guarded]


async def _listed(name: str, store: Metadata, database: Database, effort: Effort) -> list[Series]:
    found, filled = [], 0
    for count in (1_000, effort.times(100_000, 2_000), effort.times(1_000_000, 3_000)):
        while filled < count:
            more = min(count, filled + 50_000)
            await database.write(partial(_fill, first=filled + 1, last=more, state="FINISHED"))
            filled = more
        listed = Series(f"{name}: the last 50 of {count:,} jobs", goals=LISTED)
        some = Series(f"{name}: the last 50 in ERROR of {count:,} jobs")
        for _ in range(effort.times(200, 20)):
            with listed.timed():
                await store.find_jobs(JobQuery(50))
            with some.timed():
                await store.find_jobs(JobQuery(50, states=frozenset({JobState.ERROR})))
        found += [listed, some]
    recovery = Series(f"{name}: read 10,000 unfinished jobs of a context for its recovery")
    await database.write(partial(_fill, first=2_000_001, last=2_010_000, state="QUEUED"))
    for _ in range(effort.rounds_of(3)):
        with recovery.timed():
            assert len(await store.unfinished_jobs("c0")) == 10_000
    return [*found, recovery]


def _fill(connection: Connection, *, first: int, last: int, state: str) -> None:
    """Jobs with these numbers, in the database itself."""
    if connection.dialect.name == "sqlite":
        name = "'job-' || i"
    else:
        name = "CONCAT('job-', i)"
        connection.exec_driver_sql("SET SESSION max_recursive_iterations = 1000000000")
    connection.exec_driver_sql(_FILL.format(first=first, last=last, id=name, state=state, spec=_SPEC))


def _without_jobs(connection: Connection) -> None:
    connection.exec_driver_sql("DELETE FROM job_history")
    connection.exec_driver_sql("DELETE FROM jobs")


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
