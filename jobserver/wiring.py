"""The real ports of one server, from its settings, and what `assembly` makes over them. Starts nothing and listens nowhere:
`serving` does.

Every part is given what it needs of the settings; none reads them itself.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from checkpoint.watched import TroubleCount, WatchedFiles
from ha.coordination import ServerInfo
from ha.deaths import AllDeaths, LocalDeaths
from ha.peers import PeerLinks
from ha.zookeeper import ZooKeeperCoordination
from jobserver import __version__, context_settings
from jobserver.addresses import Fetch, fetcher, refuse
from jobserver.api.app import make_app
from jobserver.api.binary_formats import check_bytes
from jobserver.api.callbacks import CallbackDelivery, CallbackSettings
from jobserver.api.internal import InternalRoutes
from jobserver.api.limits import ApiLimits
from jobserver.api.peers import SECRET_HEADER, HttpPeers
from jobserver.api.principals import UsersFile
from jobserver.assembly import Core, Ports, assemble
from jobserver.contexts import fail_points
from jobserver.contexts.drivers_word import DriversWord
from jobserver.contexts.launcher import ProcessLauncher
from jobserver.contexts.link import DriverLink
from jobserver.contexts.turns import machine_turn
from jobserver.data_files import DataFiles
from jobserver.processes import own_start_ticks
from jobserver.proxy_users import ProxyUsers
from jobserver.server import JobServer, Moving
from jobserver.settings import Settings
from jobserver.store.metadata import Metadata
from jobserver.submission import Owners
from jobserver.vitals import Vitals
from jobserver.watching import JobWatch
from jobserver.write_watch import WriteWatch


@dataclass(frozen=True, slots=True)
class Parts:
    """What `serving` starts and ends."""

    core: Core
    coordination: ZooKeeperCoordination
    peers: HttpPeers
    links: PeerLinks
    server: JobServer
    callbacks: CallbackDelivery
    writes: WriteWatch
    app: web.Application


def wire(settings: Settings, store: Metadata) -> Parts:
    """The parts of a server. To be called in the event loop."""
    secret = context_settings.cluster_secret(settings)
    coordination = ZooKeeperCoordination(
        settings.zookeeper.hosts,
        session_timeout=settings.zookeeper.session_timeout,
        call_timeout=settings.zookeeper.call_timeout,
        root=f"{settings.zookeeper.root}/{settings.cluster.name}",
    )
    me = _identity(settings)
    links = PeerLinks(me, {SECRET_HEADER: secret}, DriversWord(coordination, store, DriverLink.connect))
    peers = HttpPeers(secret)
    trouble = TroubleCount()
    ports = Ports(
        me=me,
        coordination=coordination,
        peers=peers,
        store=store,
        files=WatchedFiles(context_settings.checkpoint_files(settings), trouble),
        launcher=ProcessLauncher(context_settings.launcher_settings(settings, secret)),
        turn=machine_turn(context_settings.archive_dir(settings) / "warming.lock"),
        fetch=_fetch(settings),
        reached=fail_points.from_environment(os.environ),
        watch_deaths=lambda _, died: AllDeaths(LocalDeaths(me, died), links.telling(died)),
    )
    core = assemble(settings, secret, ports)
    data = DataFiles(ports.files, lambda: datetime.now(UTC))
    moving = Moving(core.switchover, peers, settings.contexts.move_grace)
    writes = WriteWatch(ports.files, me.id)
    vitals = Vitals(me.id, store, coordination, ports.files, core.registry, core.pool, writes, trouble.plain)
    server = JobServer(
        store,
        coordination,
        core.binaries,
        core.contexts,
        core.jobs,
        data,
        core.objects,
        vitals,
        moving,
        JobWatch(store, ports.files, Owners(core.registry, peers)),
    )
    internal = InternalRoutes(
        core.registry, core.standbys, core.pool, core.drainer, incarnation=me.incarnation, secret=secret
    ).application()
    links.add_routes(internal)
    callbacks = CallbackDelivery(
        store.callbacks,
        store,
        CallbackSettings(
            settings.callbacks.tries, settings.callbacks.timeout, settings.callbacks.private_addresses
        ),
        leads=lambda: coordination.leader == me.id,
        now=lambda: datetime.now(UTC),
    )
    return Parts(
        core, coordination, peers, links, server, callbacks, writes, _app(settings, server, internal)
    )


def _fetch(settings: Settings) -> Fetch:
    """How code at addresses is read: within the bounds of an upload."""
    if not settings.binaries.addresses:
        return refuse
    limits = ApiLimits(max_body=settings.api.max_body)
    return fetcher(
        most=limits.max_body,
        seconds=limits.read_timeout,
        check=lambda kind, data: check_bytes(kind, data, limits),
    )


def _identity(settings: Settings) -> ServerInfo:
    return ServerInfo(
        id=settings.server.id,
        incarnation=secrets.token_hex(8),
        url=settings.server.url,
        host=settings.server.machine or _machine(),
        pid=os.getpid(),
        pid_started=own_start_ticks(),
        version=__version__,
        hot_limit=settings.ha.hot_limit,
        hot_memory=settings.ha.hot_memory,
    )


def _machine() -> str:
    """Equal for processes that see each other's pids: this boot of the kernel, and the pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _app(settings: Settings, server: JobServer, internal: web.Application) -> web.Application:
    limits = ApiLimits(
        max_body=settings.api.max_body,
        max_wait=settings.api.max_wait,
        default_wait=settings.contexts.sync_timeout,
        private_callbacks=settings.callbacks.private_addresses,
        proxy_users=ProxyUsers(settings.access.proxy_users),
    )
    users = settings.access.users_file
    app = make_app(server, limits, None if users is None else UsersFile(users))
    app.add_subapp("/internal", internal)
    return app
