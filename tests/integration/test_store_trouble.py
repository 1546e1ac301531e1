"""A MariaDB in trouble: restarted, away, slow, read-only, full, too many clients. Nothing acknowledged is lost.

Whole servers run in this process, each with a way of its own to the database, drivers without Spark.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import text

from jobserver.errors import JobServerError, OutcomeUnknown, StoreUnavailable, Unavailable
from jobserver.local.mariadb import MariaDbServer
from jobserver.model import ContextRecord, ContextState, JobRecord, JobSpec, JobState
from jobserver.store.change import Change, Step
from jobserver.store.metadata import Metadata
from jobserver.store.statement import Statement
from tests.fakes.cluster import FakeCluster, submission, until
from tests.mariadb import Databases, connected, of_server
from tests.sql_proxy import SqlProxy, proxy_to

T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NAMES = ("s1", "s2", "s3")


def a_job(job_id: str, config: str = "{}") -> JobRecord:
    return JobRecord(job_id, "c1", "ctx", JobSpec("demo.Job", (), config=config), JobState.QUEUED, T0)


async def with_context(url: str, timeout: float = 5) -> Metadata:
    """A store with a context that takes jobs."""
    store = await Metadata.open(url, timeout=timeout)
    await store.upgrade()
    await store.create_context(ContextRecord("c1", "ctx", {}, ContextState.STARTED, False, T0))
    return store


async def insisted(store: Metadata, job: JobRecord) -> JobRecord:
    """As a client that repeats its request with its key until it is answered."""
    while True:
        try:
            return await store.insert_job(job, queue_limit=100_000)
        except Unavailable:
            await asyncio.sleep(0.02)
        except OutcomeUnknown:
            await asyncio.sleep(0.02)


@pytest.fixture
async def proxies(mariadb_url: str) -> AsyncIterator[dict[str, SqlProxy]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(proxy_to(mariadb_url)) for name in NAMES}


@pytest.fixture
async def cluster(tmp_path: Path, proxies: dict[str, SqlProxy]) -> AsyncIterator[FakeCluster]:
    """Servers on one MariaDB, each through its proxy."""
    async with servers_on(tmp_path, {name: proxy.url for name, proxy in proxies.items()}) as made:
        yield made
        for proxy in proxies.values():
            proxy.heal()


@contextlib.asynccontextmanager
async def servers_on(folder: Path, urls: dict[str, str]) -> AsyncIterator[FakeCluster]:
    """Servers, each with the address of its database."""
    stores = {name: await Metadata.open(url, timeout=2, server=name) for name, url in urls.items()}
    made = FakeCluster(folder, store_of=stores.__getitem__, start_timeout=5)
    yield made
    await made.close()
    for store in stores.values():
        await store.close()


# The database itself


async def test_a_database_killed_and_started_again_under_load_has_every_acknowledged_job_once(
    own_mariadb: MariaDbServer,
) -> None:
    databases = of_server(own_mariadb)
    store = await with_context(databases.new(), timeout=2)
    acknowledged: list[str] = []

    async def client(number: int) -> None:
        for n in range(15):
            job = await insisted(store, replace(a_job(f"{number}-{n}"), idempotency_key=f"{number}-{n}"))
            acknowledged.append(job.id)

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    for _ in range(2):
        seen = len(acknowledged)
        await until(lambda seen=seen: len(acknowledged) > seen + 10, "jobs are accepted", 60)
        await asyncio.to_thread(own_mariadb.stop, 0)
        own_mariadb.launch()
        await asyncio.to_thread(own_mariadb.wait_serving)
    await asyncio.gather(*clients)
    found = [job.id for job in await store.unfinished_jobs("c1")]
    await store.close()
    assert len(acknowledged) == 120
    assert sorted(found) == sorted(acknowledged)


async def test_a_read_only_database_refuses_jobs_and_says_so(mariadb_url: str, databases: Databases) -> None:
    store = await with_context(mariadb_url)
    databases.run("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.insert_job(a_job("j1"), queue_limit=9)
        assert await store.job("j1") is None
        assert "read-only" in str(await store.write_trouble())
    finally:
        databases.run("SET GLOBAL read_only = 0")
    assert await store.write_trouble() is None
    assert (await store.insert_job(a_job("j1"), queue_limit=9)).id == "j1"
    await store.close()


@pytest.fixture
def small_mariadb(mariadb_base: Path, tmp_path: Path) -> Iterator[MariaDbServer]:
    """Its tables have one file that cannot grow beyond 32 MiB, as on a full disk; it takes ten clients."""
    from jobserver.local.ports import free_ports

    options = [
        "--innodb-data-file-path=ibdata1:12M:autoextend:max:32M",
        "--innodb-file-per-table=0",
        "--max-connections=10",
    ]
    server = MariaDbServer(tmp_path / "mariadb", free_ports(1)[0], mariadb_base, options)
    server.install()
    server.launch()
    try:
        server.wait_serving()
        yield server
    finally:
        server.stop(grace=0)


async def test_a_full_disk_refuses_jobs_and_keeps_those_that_were_accepted(
    small_mariadb: MariaDbServer,
) -> None:
    databases = of_server(small_mariadb)
    store = await with_context(databases.new())
    accepted = []
    trouble = None
    while trouble is None and len(accepted) < 100:
        job = a_job(f"j{len(accepted)}", "x" * 800_000)
        try:
            accepted.append((await store.insert_job(job, queue_limit=999)).id)
        except StoreUnavailable as error:
            trouble = error.message
    assert "full" in str(trouble)
    assert 3 < len(accepted) < 60
    await _fill_up(store, 50_000)
    kept = sorted(job.id for job in await store.unfinished_jobs("c1") if job.id.startswith("j"))
    assert kept == sorted(accepted)
    await store.close()


async def _fill_up(store: Metadata, size: int) -> None:
    """Jobs of that size until none fits, also when the database has given back what refused ones had taken; that is told."""
    numbers = itertools.count()
    deadline = asyncio.get_running_loop().time() + 60
    while "full" not in str(await store.write_trouble()):
        assert asyncio.get_running_loop().time() < deadline, "a full database was never told"
        with contextlib.suppress(StoreUnavailable):
            while True:
                await store.insert_job(a_job(f"small{next(numbers)}", "x" * size), queue_limit=99_999)
    assert "full" in str(await store.write_trouble())


async def _bound_pages(store: Metadata, most: int) -> None:
    """On both connections of the writer: that for declared changes, and that for all else."""
    pragma = f"PRAGMA max_page_count = {most}"
    await store._database.write(lambda one: one.exec_driver_sql(pragma).scalar())
    await store._database.write(Change((Step(Statement(text(pragma)), {}),), lambda counts: None))


async def test_a_full_disk_under_sqlite_is_told_until_there_is_room_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/metadata.db"
    store = await with_context(url)
    await _bound_pages(store, 1)  # as many as there are
    with pytest.raises(StoreUnavailable, match="full"):
        await store.insert_job(a_job("j1", "x" * 100_000), queue_limit=9)
    for _ in range(2):
        assert "full" in str(await store.write_trouble())
    assert await store.job("j1") is None
    await _bound_pages(store, 1 << 30)
    assert await store.write_trouble() is None
    assert (await store.insert_job(a_job("j1", "x" * 100_000), queue_limit=9)).id == "j1"
    await store.close()


async def test_a_database_with_too_many_clients_is_unavailable_until_one_leaves(
    small_mariadb: MariaDbServer,
) -> None:
    databases = of_server(small_mariadb)
    url = databases.new()
    store = await with_context(url)
    await store.close()
    others = []
    with contextlib.suppress(pymysql.OperationalError):  # until it takes no more
        while len(others) < 300:
            others.append(connected(url))
    store = await Metadata.open(url, timeout=2)
    with pytest.raises(StoreUnavailable, match="Too many connections"):
        await store.insert_job(a_job("j1"), queue_limit=9)
    with pytest.raises(StoreUnavailable, match="Too many connections"):
        await store.job("j1")
    for other in others:
        other.close()
    assert (await insisted(store, a_job("j1"))).id == "j1"
    await store.close()


# The way to it


async def test_many_writes_to_a_slow_database_share_its_slowness(mariadb_url: str) -> None:
    async with proxy_to(mariadb_url) as proxy:
        store = await with_context(proxy.url, timeout=10)
        proxy.delay = 1.0
        begun = asyncio.get_running_loop().time()
        jobs = [store.insert_job(a_job(f"j{n}"), queue_limit=999) for n in range(50)]
        await asyncio.gather(*jobs)
        took = asyncio.get_running_loop().time() - begun
        proxy.heal()
        await store.close()
    assert 1 <= took < 8, "50 writes in groups, not one after the other"


async def test_a_network_that_swallows_everything_is_noticed_within_the_patience(mariadb_url: str) -> None:
    async with proxy_to(mariadb_url) as proxy:
        store = await with_context(proxy.url, timeout=0.5)
        proxy.swallow()
        begun = asyncio.get_running_loop().time()
        with pytest.raises(JobServerError) as caught:
            await store.insert_job(a_job("j1"), queue_limit=9)
        assert isinstance(caught.value, OutcomeUnknown | StoreUnavailable)
        with pytest.raises(StoreUnavailable):
            await store.job("j1")
        assert asyncio.get_running_loop().time() - begun < 5
        proxy.sever()
        proxy.heal()
        assert (await insisted(store, a_job("j1"))).id == "j1"
        assert [job.id for job in await store.unfinished_jobs("c1")] == ["j1"]
        await store.close()


async def test_what_was_computed_while_the_database_was_away_is_delivered_to_the_client_that_waits(
    cluster: FakeCluster, proxies: dict[str, SqlProxy]
) -> None:
    servers = [await cluster.start(name) for name in NAMES[:2]]
    context = await servers[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    waiting = asyncio.create_task(owner.jobs.submit(submission("hold", wait=60)))
    await until(lambda: cluster.driver().started, "the job runs", 20)
    for proxy in proxies.values():
        proxy.refusing = True
        proxy.sever()
    job_id = cluster.driver().started[0].job_id
    cluster.driver().finish(job_id, '"computed"')
    other = next(server for server in servers if server is not owner)
    with pytest.raises(JobServerError) as caught:
        await other.jobs.submit(submission("answer:1"))
    assert caught.value.http_status == 503
    assert caught.value.retry_after is not None or isinstance(caught.value, OutcomeUnknown)
    assert not waiting.done(), "an outcome that is not committed is told to nobody"
    for proxy in proxies.values():
        proxy.heal()
    answer = await asyncio.wait_for(waiting, 30)
    assert (answer.job.result, answer.job.attempt) == ('"computed"', 1)
    row = await other.store.job(job_id)
    assert row is not None
    assert (row.state, row.result) == (JobState.FINISHED, '"computed"')
    assert cluster.owner(context.id) is owner
    assert (await owner.store.fence(context.id)).epoch == 1


async def test_what_was_computed_while_the_database_was_gone_for_thirty_seconds_is_delivered(
    own_mariadb: MariaDbServer, tmp_path: Path
) -> None:
    url = of_server(own_mariadb).new()
    store = await Metadata.open(url, timeout=5)
    await store.upgrade()
    await store.close()
    async with servers_on(tmp_path / "servers", dict.fromkeys(NAMES[:2], url)) as cluster:
        servers = [await cluster.start(name) for name in NAMES[:2]]
        context = await servers[0].contexts.create("ctx", {})
        owner = cluster.owner(context.id)
        clients = [
            asyncio.create_task(servers[n % 2].jobs.submit(submission("hold", wait=120))) for n in range(4)
        ]
        await until(lambda: len(cluster.driver().started) == 4, "the jobs run", 20)
        ids = [run.job_id for run in cluster.driver().started]
        await asyncio.to_thread(own_mariadb.stop, 0)
        for n in range(
            3
        ):  # computed right after it went, and 10 and 20 s later; the last one when it is back
            cluster.driver().finish(ids[n], f'"computed {n}"')
            await asyncio.sleep(10)
            with pytest.raises(JobServerError) as caught:
                await servers[n % 2].jobs.submit(submission("answer:1"))
            assert caught.value.http_status == 503
            assert not any(client.done() for client in clients), "an outcome that is not committed was told"
        own_mariadb.launch()
        await asyncio.to_thread(own_mariadb.wait_serving)
        cluster.driver().finish(ids[3], '"computed 3"')
        answers = await asyncio.wait_for(asyncio.gather(*clients), 60)
        told = {answer.job.id: (answer.job.result, answer.job.attempt) for answer in answers}
        assert told == {ids[n]: (f'"computed {n}"', 1) for n in range(4)}
        for n, job_id in enumerate(ids):
            row = await owner.store.job(job_id)
            assert row is not None
            assert (row.state, row.result) == (JobState.FINISHED, f'"computed {n}"')
        assert cluster.owner(context.id) is owner
        assert (await owner.store.fence(context.id)).epoch == 1


async def test_an_owner_cut_from_the_database_under_load_acknowledges_nothing_and_loses_nothing(
    cluster: FakeCluster, proxies: dict[str, SqlProxy]
) -> None:
    servers = [await cluster.start(name) for name in NAMES]
    context = await servers[0].contexts.create("ctx", {})
    owner = cluster.owner(context.id)
    acknowledged: dict[str, str] = {}
    load = [asyncio.create_task(_load(cluster, n, 12, acknowledged)) for n in range(6)]
    await until(lambda: len(acknowledged) > 10, "jobs are answered", 60)
    proxies[owner.me.id].swallow()
    seen = []
    for _ in range(2):  # each look of the owner ends with its patience
        with pytest.raises(StoreUnavailable):
            await owner.store.job("any")
        seen.append(len(acknowledged))
    assert seen[0] == seen[1], "an answer was given although its outcome could not be written"
    assert seen[0] < 72, "the load was over before the cut: the test shows nothing"
    before = seen[1]
    proxies[owner.me.id].sever()
    proxies[owner.me.id].heal()
    await until(lambda: len(acknowledged) > before + 10, "jobs are answered again", 60)
    await asyncio.gather(*load)
    await _check_all(cluster, servers[0].store, acknowledged, 72)


async def test_two_servers_on_one_database_under_load_with_one_killed_have_every_job_once(
    cluster: FakeCluster,
) -> None:
    servers = [await cluster.start(name) for name in NAMES]
    context = await servers[0].contexts.create("ctx", {})
    acknowledged: dict[str, str] = {}
    load = [asyncio.create_task(_load(cluster, n, 20, acknowledged)) for n in range(6)]
    await until(lambda: len(acknowledged) > 20, "jobs are answered", 60)
    owner = cluster.owner(context.id)
    await cluster.kill(owner)
    await asyncio.gather(*load)
    survivor = next(server for server in servers if server is not owner)
    await _check_all(cluster, survivor.store, acknowledged, 120)
    fence = await survivor.store.fence(context.id)
    assert fence is not None
    assert fence.epoch == 2


async def _load(cluster: FakeCluster, client: int, jobs: int, acknowledged: dict[str, str]) -> None:
    """A client with keys: it repeats a request, on any living server, until it is answered with the result."""
    turn = client
    for n in range(jobs):
        key = f"{client}-{n}"
        while key not in acknowledged:
            living = [server for server in cluster.by_url.values() if server.alive]
            turn += 1
            server = living[turn % len(living)]
            try:
                call = server.jobs.submit(
                    submission(
                        f"answer:{client * 1000 + n}", idempotency_key=key, request_digest=key, wait=20
                    )
                )
                answer = await asyncio.wait_for(_or_dead(server, call), 30)
            except (JobServerError, TimeoutError, ConnectionError):
                await asyncio.sleep(0.02)
                continue
            assert answer.job.result == str(client * 1000 + n)
            acknowledged[key] = answer.job.id


async def _or_dead(server, call):
    """What the server answers; a dead one answers nothing."""
    answer, died = asyncio.ensure_future(call), asyncio.ensure_future(server.died.wait())
    try:
        await asyncio.wait({answer, died}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionError
        return answer.result()
    finally:
        answer.cancel()
        died.cancel()


async def _check_all(cluster: FakeCluster, store: Metadata, acknowledged: dict[str, str], count: int) -> None:
    """Counts are equal: answered keys, jobs, finished jobs; each job was finished once."""
    assert len(acknowledged) == len(set(acknowledged.values())) == count
    for key, job_id in acknowledged.items():
        job = await store.job(job_id)
        assert job is not None
        client, n = map(int, key.split("-"))
        assert (job.state, job.result) == (JobState.FINISHED, str(client * 1000 + n))
        finishes = [move for move in await store.job_history(job_id) if move.state is JobState.FINISHED]
        assert len(finishes) == 1
    assert await store.unfinished_jobs((await store.active_contexts())[0].id) == []
