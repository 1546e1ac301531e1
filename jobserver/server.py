"""One server: its parts, wired together, and its life from start to leave. Implements the port of `jobserver/service.py`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from checkpoint import layout
from checkpoint.local import LocalFiles
from ha.coordination import ServerInfo
from ha.errors import HaError
from ha.zookeeper import ZooKeeperCoordination
from jobserver import __version__
from jobserver.api.app import make_app
from jobserver.api.internal import InternalRoutes
from jobserver.api.limits import ApiLimits
from jobserver.api.peers import HttpPeers
from jobserver.binaries import Binaries
from jobserver.contexts.desk import ContextDesk
from jobserver.contexts.jobs import JobsSettings
from jobserver.contexts.keeper import KeeperParts, KeeperTimes
from jobserver.contexts.launch_spec import LaunchSpec, launch_spec, whole_number
from jobserver.contexts.launcher import LauncherSettings, ProcessLauncher
from jobserver.contexts.pool import DriverPool
from jobserver.contexts.registry import ContextRegistry
from jobserver.contexts.standbys import Announcer, HotStandbys, StandbySettings, find_hot, tend_always
from jobserver.contexts.takeover import TakeoverParts
from jobserver.contexts.turns import machine_turn
from jobserver.errors import BadRequest, CoordinationUnavailable, JobServerError, NotFound
from jobserver.local.java import find_java
from jobserver.model import (
    BinaryRecord,
    BinaryRef,
    BinaryType,
    ContextRecord,
    JobRecord,
    JobState,
    NamedObjectInfo,
)
from jobserver.processes import own_start_ticks
from jobserver.service import ContextView, Submission, Submitted
from jobserver.settings import Settings, secret_of
from jobserver.store.metadata import Metadata
from jobserver.submission import JobDesk, Owners
from jobserver.watchdog import Watchdog

log = logging.getLogger(__name__)

LEAVE_TIMEOUT = 30.0
"""Seconds that requests under way have when the server leaves."""
SIDE_BY_SIDE = 1024
"""Largest `max-jobs` of a context."""


class JobServer:
    """The service behind the API; every method may be called on every server."""

    def __init__(
        self,
        store: Metadata,
        coordination: ZooKeeperCoordination,
        binaries: Binaries,
        contexts: ContextDesk,
        jobs: JobDesk,
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._binaries = binaries
        self._contexts = contexts
        self._jobs = jobs

    async def healthy(self) -> str | None:
        try:
            await self._store.list_jobs(1, None)
        except JobServerError as error:
            return error.message
        return None

    async def list_binaries(self) -> list[BinaryRecord]:
        return await self._binaries.all()

    async def binary(self, name: str) -> BinaryRecord:
        return await self._binaries.find(name)

    async def upload_binary(self, name: str, kind: BinaryType, data: bytes) -> BinaryRecord:
        return await self._binaries.upload(name, kind, data)

    async def delete_binary(self, name: str) -> None:
        await self._binaries.delete(name)

    async def list_contexts(self) -> list[str]:
        return await self._contexts.names()

    async def context(self, name: str) -> ContextView:
        return await self._contexts.view(name)

    async def create_context(self, name: str, settings: Mapping[str, Any]) -> ContextRecord:
        return await self._contexts.create(name, settings)

    async def delete_context(self, name: str, *, force: bool) -> bool:
        return await self._contexts.delete(name, force=force)

    async def reset_contexts(self, *, wait: bool) -> None:
        await self._contexts.reset(wait=wait)

    async def named_objects(self, name: str) -> list[NamedObjectInfo]:
        return await self._contexts.objects(name)

    async def submit(self, submission: Submission) -> Submitted:
        return await self._jobs.submit(submission)

    async def list_jobs(self, limit: int, status: str | None) -> list[JobRecord]:
        if status is None:
            return await self._store.list_jobs(limit, None)
        try:
            state = JobState(status.upper())
        except ValueError:
            return []
        return await self._store.list_jobs(limit, state)

    async def job(self, job_id: str) -> JobRecord:
        job = await self._store.job(job_id)
        if job is None:
            raise NotFound(f"No such job ID {job_id}")
        return job

    async def kill_job(self, job_id: str) -> JobRecord:
        return await self._jobs.kill(job_id)

    async def cluster(self) -> dict[str, Any]:
        servers = [
            {
                "id": info.id,
                "url": info.url,
                "pid": info.pid,
                "state": "draining" if info.draining else "alive",
            }
            for _, info in sorted(self._coordination.servers.items())
        ]
        contexts = await self._store.active_contexts()
        fences = await self._store.fences([context.id for context in contexts])
        return {
            "servers": servers,
            "leader": self._coordination.leader,
            "contexts": [
                self._context_picture(context, fences[context.id].epoch if context.id in fences else 0)
                for context in contexts
            ],
        }

    def _context_picture(self, context: ContextRecord, epoch: int) -> dict[str, Any]:
        driver, failover = context.driver, context.last_failover
        return {
            "name": context.name,
            "id": context.id,
            "state": context.state.value,
            "epoch": epoch,
            "owner": self._contexts.owner(context.id),
            "driver": {"host": driver.host, "pid": driver.pid, "jvm_pid": driver.jvm_pid} if driver else None,
            "standbys": list(self._contexts.standbys(context.id)),
            "last_failover": {
                "at": failover.at.isoformat(),
                "kind": failover.kind,
                "seconds": failover.seconds,
            }
            if failover
            else None,
        }


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then leaves: contexts go to the other servers, drivers go on running."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings):
        await stop.wait()
        log.info("server %s leaves", settings.server.id)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[JobServer]:
    """A server that listens. Raises CoordinationUnavailable, StoreUnavailable and what the store says of its schema."""
    secret = _secret(settings)
    async with contextlib.AsyncExitStack() as stack:
        store = await Metadata.open(settings.database.url, timeout=settings.database.timeout)
        stack.push_async_callback(store.close)
        await store.check()
        watchdog = Watchdog(settings.ha.watchdog_timeout)
        watchdog.start()
        stack.callback(watchdog.stop)
        me = _me(settings)
        coordination = ZooKeeperCoordination(
            settings.zookeeper.hosts,
            session_timeout=settings.zookeeper.session_timeout,
            call_timeout=settings.zookeeper.call_timeout,
            cluster=settings.cluster.name,
        )
        peers = HttpPeers(secret)
        stack.push_async_callback(peers.close)
        files = LocalFiles(_checkpoint_root(settings) / settings.cluster.name)
        registry = ContextRegistry(me, coordination, store, claim_stagger=settings.ha.claim_stagger)
        launcher = ProcessLauncher(_launcher_settings(settings, secret))
        turn = machine_turn(_archive_dir(settings) / "warming.lock")
        pool = DriverPool(launcher, _spec(settings, settings.contexts.defaults), _pool_size(settings), turn)
        stack.push_async_callback(pool.close)
        standbys = HotStandbys(
            me.id,
            coordination,
            store,
            pool,
            lambda context: _spec(settings, context.settings),
            StandbySettings(
                mode=settings.ha.standby,
                bind_timeout=settings.driver.start_timeout,
                checkpoint_root=str(_checkpoint_root(settings)),
                cluster=settings.cluster.name,
            ),
        )
        stack.callback(standbys.close)
        takeover = replace(
            _takeover_parts(settings, secret, store, files, pool, launcher),
            hot=lambda context_id: find_hot(context_id, me.id, coordination, peers, standbys),
        )
        registry.use(
            KeeperParts(
                me=me,
                coordination=coordination,
                takeover=takeover,
                peers=peers,
                times=KeeperTimes(
                    incumbent_grace=settings.ha.incumbent_grace,
                    takeover_timeout=settings.ha.takeover_timeout,
                    driver_timeout=settings.driver.driver_timeout,
                    stop_timeout=settings.contexts.deletion_timeout,
                ),
                url_of=registry.url_of,
                ended=registry.ended,
            )
        )
        contexts = ContextDesk(
            me.id,
            store,
            registry,
            coordination,
            peers,
            defaults=settings.contexts.defaults,
            predefined=settings.contexts.predefined,
            creation_timeout=settings.contexts.creation_timeout,
            deletion_timeout=settings.contexts.deletion_timeout,
            check=lambda chosen: _check_context(settings, chosen),
        )
        binaries = Binaries(store, files)
        jobs = JobDesk(
            store,
            binaries,
            Owners(registry, peers),
            queue_limit=settings.contexts.queue_limit + settings.contexts.max_jobs,
            new_adhoc_context=lambda name, chosen: contexts.insert(name, chosen, adhoc=True),
            start_context=contexts.start_in_background,
        )
        server = JobServer(store, coordination, binaries, contexts, jobs)
        app = make_app(
            server,
            ApiLimits(
                max_body=settings.api.max_body,
                max_wait=settings.api.max_wait,
                default_wait=settings.contexts.sync_timeout,
            ),
        )
        app.add_subapp(
            "/internal",
            InternalRoutes(registry, standbys, incarnation=me.incarnation, secret=secret).application(),
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=LEAVE_TIMEOUT)
        await runner.setup()
        try:
            await coordination.start(me, registry.hear)
        except HaError as error:
            await runner.cleanup()
            raise CoordinationUnavailable(str(error)) from error
        stack.push_async_callback(coordination.stop)
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(registry.leave)
        await web.TCPSite(runner, settings.server.host, settings.server.port, backlog=1024).start()
        chores = asyncio.create_task(
            _chores(settings, coordination, registry, contexts, me.id), name="chores"
        )
        stack.push_async_callback(_cancelled, chores)
        tending = asyncio.create_task(
            tend_always(standbys, registry, settings.ha.sweep_interval), name="standbys"
        )
        stack.push_async_callback(_cancelled, tending)
        announcing = asyncio.create_task(Announcer(me, coordination, pool, standbys).run(), name="announcer")
        stack.push_async_callback(_cancelled, announcing)
        pool.refill()
        log.info("server %s serves at %s", me.id, me.url)
        yield server


async def _chores(
    settings: Settings,
    coordination: ZooKeeperCoordination,
    registry: ContextRegistry,
    contexts: ContextDesk,
    me: str,
) -> None:
    """The owner's and, while this server leads, the leader's regular looks for what a lost message left behind."""
    interval = settings.ha.sweep_interval
    while True:
        try:
            await registry.sweep()
            if coordination.leader == me:
                await contexts.start_predefined()
                await contexts.claim_unowned(older_than=interval)
        except JobServerError as error:
            log.warning("the sweep was not finished: %s", error.message)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(registry.leader_changed(), interval)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _me(settings: Settings) -> ServerInfo:
    return ServerInfo(
        id=settings.server.id,
        incarnation=secrets.token_hex(8),
        url=settings.server.url,
        host=_machine(),
        pid=os.getpid(),
        pid_started=own_start_ticks(),
        version=__version__,
    )


def _machine() -> str:
    """Equal for processes that see each other's pids: this boot of the kernel, and the pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _launcher_settings(settings: Settings, secret: str) -> LauncherSettings:
    folder = settings.server.dir.absolute() / "drivers"
    folder.mkdir(parents=True, exist_ok=True)
    return LauncherSettings(
        folder=folder,
        host=settings.server.host,
        java=str(find_java(settings.driver.java).command),
        archive_dir=_archive_dir(settings),
        checkpoint_root=str(_checkpoint_root(settings)),
        cluster=settings.cluster.name,
        cluster_secret=secret,
        orphan_timeout=settings.driver.orphan_timeout,
        start_timeout=settings.driver.start_timeout,
    )


def _checkpoint_root(settings: Settings) -> Path:
    return Path(settings.checkpoint.root).absolute()


def _secret(settings: Settings) -> str:
    """The cluster's secret; a server for itself (loopback only) makes one once and keeps it with its files."""
    secret = secret_of(settings.cluster)
    if secret:
        return secret
    file = settings.server.dir.absolute() / "secret"
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
    return file.read_text()


def _archive_dir(settings: Settings) -> Path:
    folder = settings.driver.archive_dir or settings.server.dir.absolute() / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _spec(settings: Settings, context_settings: Mapping[str, Any]) -> LaunchSpec:
    return launch_spec(
        context_settings,
        master=settings.driver.master,
        driver_memory=f"{settings.driver.memory // 2**20}m",
        python=str(settings.driver.python or ""),
        conf=settings.driver.spark_conf,
    )


def _pool_size(settings: Settings) -> int:
    return 0 if settings.ha.standby == "cold" else settings.driver.warm_drivers


def _check_context(settings: Settings, chosen: Mapping[str, Any]) -> None:
    """Refuses settings that no driver could start with, before a context exists. Raises BadRequest, ContextInitFailed."""
    _spec(settings, chosen)
    _max_jobs(settings, chosen)


def _max_jobs(settings: Settings, chosen: Mapping[str, Any]) -> int:
    return whole_number(chosen, "max-jobs", settings.contexts.max_jobs, least=1, most=SIDE_BY_SIDE)


def _takeover_parts(
    settings: Settings,
    secret: str,
    store: Metadata,
    files: LocalFiles,
    pool: DriverPool,
    launcher: ProcessLauncher,
) -> TakeoverParts:
    root = _checkpoint_root(settings)

    def binary_path(ref: BinaryRef) -> str:
        return str(root / settings.cluster.name / layout.binary_path(ref.digest))

    def jobs_of(context: ContextRecord) -> JobsSettings:
        try:
            return JobsSettings(1 if context.adhoc else _max_jobs(settings, context.settings))
        except BadRequest:  # a row of an older release: the server's own limit holds
            return JobsSettings(settings.contexts.max_jobs)

    return TakeoverParts(
        store=store,
        files=files,
        pool=pool,
        launcher=launcher,
        spec_of=lambda context: _spec(settings, context.settings),
        jobs_of=jobs_of,
        binary_path=binary_path,
        checkpoint_root=str(root),
        cluster=settings.cluster.name,
        checkpoint_secret=secret.encode(),
        adopt_timeout=settings.driver.adopt_timeout,
        activate_timeout=settings.driver.start_timeout,
    )
