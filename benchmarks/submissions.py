"""How many async submissions a second are accepted over HTTP by one server and by three, on SQLite and on MariaDB.

The jobs wait behind one that keeps the only slot of its context, so nothing is measured but their acceptance: request,
names, row on the disk, and the owner told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from benchmarks.cluster import BenchCluster, Refused, cluster, job_request
from benchmarks.connection import http_request
from benchmarks.floor import bare_server
from benchmarks.load import Ask, Loaded, load
from benchmarks.measure import Effort, Section, Series
from jobserver.model import JobState
from jobserver.settings import database_url
from jobserver.settings import load as load_settings
from jobserver.store.database import Database
from jobserver.store.tables import jobs

CLIENTS = 64
CONTEXTS = ("first", "second", "third")
SERVERS = (1, 3)
QUEUE = 1_000_000
_ANSWER = (
    b'{"duration":"Job not done yet","classPath":"bench_jobs:hold","startTime":"2026-01-01T00:00:00.000Z","context":"first",'
    b'"status":"STARTED","jobId":"f3c5fd1e-8c0a-4a36-a7b6-2d4a5d3a9a31","contextId":"0b6a5f8e-5a39-4f0e-9d94-0b3f6c0c3c52"}'
)


def run(effort: Effort) -> Section:
    """A rate and the time of each answer for each database and number of servers, in turns with a bare server."""
    series: list[Series] = []
    notes: list[str] = []
    with bare_server(_ANSWER, status=202) as floor:
        for database in ("SQLite", "MariaDB"):
            for servers in SERVERS:
                found, waiting = _measured(database, servers, floor, effort)
                series += found
                notes.append(
                    f"{database}, {servers}: {waiting:,} jobs waited in the end, as many as were accepted"
                )
    return Section(
        "Accepted submissions",
        f"POST /jobs without sync by {CLIENTS} clients, shared out among the servers, for as many contexts as servers, whose"
        " only slot is taken; every acceptance is durable (synchronous FULL, innodb_flush_log_at_trx_commit 1). Bare: one"
        " aiohttp server that answers so. Clients, servers and database share the cores.",
        series,
        notes,
    )


def _measured(database: str, servers: int, floor: str, effort: Effort) -> tuple[list[Series], int]:
    name = f"{database}, {servers} server{'s'[: servers - 1]}"
    bare = Series(f"{name}: bare aiohttp", "1/s")
    rate = Series(f"{name}: accepted", "1/s", baseline=bare)
    waited = Series(f"{name}: each answer")
    settings = {"max_jobs": 1, "queue_limit": QUEUE}
    contexts = CONTEXTS[:servers]
    with cluster(servers, "cold", mysql=database == "MariaDB", contexts=settings) as bench:
        for context in contexts:
            bench.create_context(context)
        urls = [bench.local.url(server) for server in bench.server_ids]
        accepted = 0
        for number in range(1 + effort.rounds_of(3)):
            seconds = effort.times(20, 3) / 10
            floored, loaded = _bare(floor, seconds), _submitted(urls, contexts, seconds)
            accepted += len(loaded.seconds)
            if number:  # the first jobs take the slots, and warm
                bare.values.append(floored.per_second)
                rate.values.append(loaded.per_second)
                waited.values += loaded.seconds
        waiting = asyncio.run(_waiting(bench))
    if waiting != accepted - len(contexts):
        raise Refused(
            f"{accepted:,} submissions were accepted and {len(contexts)} begun, but {waiting:,} jobs wait"
        )
    return [bare, rate, waited], waiting


def _bare(floor: str, seconds: float) -> Loaded:
    request = http_request("POST", "/jobs", b"{}")
    return _load([floor], lambda _: request, seconds)


def _submitted(urls: Sequence[str], contexts: Sequence[str], seconds: float) -> Loaded:
    requests = [job_request(context, "hold", {}, sync=False) for context in contexts]
    return _load(urls, lambda number: requests[number % len(requests)], seconds)


def _load(urls: Sequence[str], ask: Ask, seconds: float) -> Loaded:
    return load(urls[0], ask, _check, clients=CLIENTS, seconds=seconds, others=urls[1:])


def _check(status: int, body: bytes) -> None:
    if status != 202:
        raise Refused(f"a submission was answered {status}: {body[:300].decode(errors='replace')}")


async def _waiting(bench: BenchCluster) -> int:
    """Jobs that wait, as the store knows them."""
    settings = load_settings(bench.local.layout.settings_file(bench.server_ids[0]))
    database = Database.open(database_url(settings.database, os.environ), timeout=10)
    try:
        return await database.read(_queued)
    finally:
        await database.close()


def _queued(connection: Connection) -> int:
    query = select(func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED.value)
    return int(connection.execute(query).scalar_one())
