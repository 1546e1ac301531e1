"""The parts of one server, put together from its settings. Starts nothing and listens nowhere: `serving` does.

Every part is given what it needs of the settings; none reads them itself.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from checkpoint import layout
from checkpoint.files import FileStore
from checkpoint.local import LocalFiles
from ha.coordination import ServerInfo
from ha.zookeeper import ZooKeeperCoordination
from jobserver import __version__, context_settings
from jobserver.api.app import make_app
from jobserver.api.internal import InternalRoutes
from jobserver.api.limits import ApiLimits
from jobserver.api.peers import HttpPeers
from jobserver.binaries import Binaries
from jobserver.contexts.desk import ContextDesk
from jobserver.contexts.keeper import KeeperParts, KeeperTimes
from jobserver.contexts.launcher import ProcessLauncher
from jobserver.contexts.objects import ObjectDesk
from jobserver.contexts.pool import DriverPool, StartedDriver
from jobserver.contexts.registry import ContextRegistry
from jobserver.contexts.standbys import HotStandbys, StandbySettings, find_hot
from jobserver.contexts.takeover import TakeoverParts
from jobserver.contexts.turns import machine_turn
from jobserver.data_files import DataFiles
from jobserver.model import BinaryRef
from jobserver.processes import own_start_ticks
from jobserver.server import JobServer
from jobserver.settings import Settings
from jobserver.store.metadata import Metadata
from jobserver.submission import JobDesk, Owners


@dataclass(frozen=True, slots=True)
class Parts:
    """What `serving` starts and ends."""

    me: ServerInfo
    coordination: ZooKeeperCoordination
    peers: HttpPeers
    registry: ContextRegistry
    pool: DriverPool
    standbys: HotStandbys
    contexts: ContextDesk
    server: JobServer
    app: web.Application


def wire(settings: Settings, store: Metadata) -> Parts:
    """The parts of a server. To be called in the event loop."""
    secret = context_settings.cluster_secret(settings)
    me = _identity(settings)
    coordination = ZooKeeperCoordination(
        settings.zookeeper.hosts,
        session_timeout=settings.zookeeper.session_timeout,
        call_timeout=settings.zookeeper.call_timeout,
        cluster=settings.cluster.name,
    )
    peers = HttpPeers(secret)
    files = LocalFiles(context_settings.checkpoint_root(settings) / settings.cluster.name)
    registry = ContextRegistry(me, coordination, store, claim_stagger=settings.ha.claim_stagger)
    launcher = ProcessLauncher(context_settings.launcher_settings(settings, secret))
    pool = _pool(settings, launcher)
    standbys = _standbys(settings, me, coordination, store, pool)
    registry.use(
        KeeperParts(
            me=me,
            coordination=coordination,
            takeover=_takeover(
                settings,
                secret,
                store,
                files,
                pool,
                launcher,
                _HotFinder(me.id, coordination, peers, standbys),
            ),
            peers=peers,
            times=_times(settings),
            url_of=registry.url_of,
            ended=registry.ended,
        )
    )
    contexts = _contexts(settings, me, store, registry, coordination, peers)
    binaries = Binaries(store, files)
    jobs = JobDesk(
        store,
        binaries,
        Owners(registry, peers),
        queue_limit=settings.contexts.queue_limit + settings.contexts.max_jobs,
        new_adhoc_context=lambda name, chosen: contexts.insert(name, chosen, adhoc=True),
        start_context=contexts.start_in_background,
    )
    data = DataFiles(files, lambda: datetime.now(UTC))
    objects = ObjectDesk(store, registry, peers, patience=settings.contexts.sync_timeout)
    server = JobServer(store, coordination, binaries, contexts, jobs, data, objects)
    internal = InternalRoutes(registry, standbys, incarnation=me.incarnation, secret=secret)
    return Parts(
        me, coordination, peers, registry, pool, standbys, contexts, server, _app(settings, server, internal)
    )


def _identity(settings: Settings) -> ServerInfo:
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


def _pool(settings: Settings, launcher: ProcessLauncher) -> DriverPool:
    return DriverPool(
        launcher,
        context_settings.spec(settings, settings.contexts.defaults),
        context_settings.pool_size(settings),
        machine_turn(context_settings.archive_dir(settings) / "warming.lock"),
    )


def _standbys(
    settings: Settings, me: ServerInfo, coordination: ZooKeeperCoordination, store: Metadata, pool: DriverPool
) -> HotStandbys:
    return HotStandbys(
        me.id,
        coordination,
        store,
        pool,
        lambda context: context_settings.spec(settings, context.settings),
        StandbySettings(
            mode=settings.ha.standby,
            bind_timeout=settings.driver.start_timeout,
            checkpoint_root=str(context_settings.checkpoint_root(settings)),
            cluster=settings.cluster.name,
        ),
    )


@dataclass(frozen=True, slots=True)
class _HotFinder:
    """Finds the hot standby of a context, wherever it is."""

    me: str
    coordination: ZooKeeperCoordination
    peers: HttpPeers
    standbys: HotStandbys

    async def __call__(self, context_id: str) -> StartedDriver | None:
        return await find_hot(context_id, self.me, self.coordination, self.peers, self.standbys)


def _takeover(
    settings: Settings,
    secret: str,
    store: Metadata,
    files: FileStore,
    pool: DriverPool,
    launcher: ProcessLauncher,
    hot: _HotFinder,
) -> TakeoverParts:
    root = context_settings.checkpoint_root(settings)

    def binary_path(ref: BinaryRef) -> str:
        return str(root / settings.cluster.name / layout.binary_path(ref.digest))

    return TakeoverParts(
        store=store,
        files=files,
        pool=pool,
        launcher=launcher,
        spec_of=lambda context: context_settings.spec(settings, context.settings),
        jobs_of=lambda context: context_settings.jobs_settings(settings, context),
        binary_path=binary_path,
        checkpoint_root=str(root),
        cluster=settings.cluster.name,
        checkpoint_secret=secret.encode(),
        adopt_timeout=settings.driver.adopt_timeout,
        activate_timeout=settings.driver.start_timeout,
        hot=hot,
    )


def _times(settings: Settings) -> KeeperTimes:
    return KeeperTimes(
        incumbent_grace=settings.ha.incumbent_grace,
        takeover_timeout=settings.ha.takeover_timeout,
        driver_timeout=settings.driver.driver_timeout,
        stop_timeout=settings.contexts.deletion_timeout,
    )


def _contexts(
    settings: Settings,
    me: ServerInfo,
    store: Metadata,
    registry: ContextRegistry,
    coordination: ZooKeeperCoordination,
    peers: HttpPeers,
) -> ContextDesk:
    return ContextDesk(
        me.id,
        store,
        registry,
        coordination,
        peers,
        defaults=settings.contexts.defaults,
        predefined=settings.contexts.predefined,
        creation_timeout=settings.contexts.creation_timeout,
        deletion_timeout=settings.contexts.deletion_timeout,
        check=lambda chosen: context_settings.check_context(settings, chosen),
    )


def _app(settings: Settings, server: JobServer, internal: InternalRoutes) -> web.Application:
    limits = ApiLimits(
        max_body=settings.api.max_body,
        max_wait=settings.api.max_wait,
        default_wait=settings.contexts.sync_timeout,
    )
    app = make_app(server, limits)
    app.add_subapp("/internal", internal.application())
    return app
