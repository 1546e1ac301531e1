"""The parts of one server that own and serve contexts, put together over ports. No sockets, no files, no clock of its own.

`wiring` brings the real ports; a simulation brings its own, so that what it runs is put together as a real server is.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from checkpoint import layout
from checkpoint.files import FileStore
from ha.coordination import Coordination, ServerInfo
from ha.deaths import LocalDeaths, WatchDeaths
from jobserver import context_settings
from jobserver.addresses import Fetch, refuse
from jobserver.binaries import Binaries
from jobserver.contexts.desk import ContextDesk
from jobserver.contexts.drain import Drainer, Rebalancer
from jobserver.contexts.fail_points import Reach, nowhere
from jobserver.contexts.given_drivers import find_hot, find_warm
from jobserver.contexts.kept import KeptCheckpoints
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.launcher import Launcher
from jobserver.contexts.link import Connect, DriverLink
from jobserver.contexts.objects import ObjectDesk
from jobserver.contexts.parts import KeeperParts, KeeperTimes, Run, TakeoverParts, new_token
from jobserver.contexts.peers import Peers
from jobserver.contexts.pool import DriverPool, StartedDriver
from jobserver.contexts.readiness import Readiness
from jobserver.contexts.registry import ContextRegistry
from jobserver.contexts.standbys import Announcer, HotStandbys, StandbySettings, mode_of
from jobserver.contexts.switchover import Switchover
from jobserver.contexts.turns import Turn, no_turn
from jobserver.contexts.vigil import Vigil
from jobserver.errors import JobServerError
from jobserver.model import BinaryRef, ContextRecord
from jobserver.settings import Settings
from jobserver.store.metadata import Metadata
from jobserver.submission import JobDesk, Owners


def new_id() -> str:
    """An id that nobody else makes."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Ports:
    """Through which a server reaches the world: other servers, SQL, the checkpoint store, drivers; chance and proofs of death."""

    me: ServerInfo
    coordination: Coordination
    peers: Peers
    store: Metadata
    files: FileStore
    launcher: Launcher
    connect: Connect = DriverLink.connect
    run: Run = asyncio.to_thread
    turn: Turn = no_turn
    fetch: Fetch = refuse
    watch_deaths: WatchDeaths = LocalDeaths
    new_id: Callable[[], str] = new_id
    new_token: Callable[[], str] = new_token
    reached: Reach = nowhere


@dataclass(frozen=True, slots=True)
class Core:
    """What the ports and settings make."""

    ports: Ports
    registry: ContextRegistry
    pool: DriverPool
    standbys: HotStandbys
    contexts: ContextDesk
    kept: KeptCheckpoints
    binaries: Binaries
    jobs: JobDesk
    objects: ObjectDesk
    announcer: Announcer
    switchover: Switchover
    drainer: Drainer
    rebalancer: Rebalancer | None
    vigil: Vigil


def assemble(settings: Settings, secret: str, ports: Ports) -> Core:
    """The parts of a server. To be called in the event loop; starts nothing."""
    registry = ContextRegistry(
        ports.me,
        ports.coordination,
        ports.store,
        claim_stagger=settings.ha.claim_stagger,
        watch_deaths=ports.watch_deaths,
    )
    pool = DriverPool(
        ports.launcher,
        context_settings.spec(settings, settings.contexts.defaults),
        context_settings.pool_size(settings),
        ports.turn,
        ports.connect,
        settings.driver.start_timeout,
    )
    standbys = _standbys(settings, ports, pool)
    vigil = Vigil(ports.store, ports.connect, lambda: standbys.hot)
    registry.use(
        KeeperParts(
            me=ports.me,
            coordination=ports.coordination,
            takeover=_takeover(settings, secret, ports, pool, standbys, vigil),
            peers=ports.peers,
            times=_times(settings),
            url_of=registry.url_of,
            ended=registry.ended,
        )
    )
    standbys.taking_over = registry.takes_over
    kept = KeptCheckpoints(ports.store, ports.files, secret.encode(), ports.run)
    contexts = _contexts(settings, ports, registry, kept)
    binaries = Binaries(ports.store, ports.files, ports.fetch)
    jobs = _jobs(settings, ports, registry, contexts, binaries)
    objects = ObjectDesk(ports.store, registry, ports.peers, patience=settings.contexts.sync_timeout)
    announcer = Announcer(ports.me, ports.coordination, pool, standbys)
    switchover = Switchover(
        ports.me.id,
        ports.store,
        registry,
        ports.coordination,
        ports.peers,
        ready_timeout=settings.driver.start_timeout,
    )
    return Core(
        ports=ports,
        registry=registry,
        pool=pool,
        standbys=standbys,
        contexts=contexts,
        kept=kept,
        binaries=binaries,
        jobs=jobs,
        objects=objects,
        announcer=announcer,
        switchover=switchover,
        drainer=Drainer(registry, ports.store, switchover, announcer.drain),
        rebalancer=_rebalancer(settings, ports, switchover),
        vigil=vigil,
    )


def _rebalancer(settings: Settings, ports: Ports, switchover: Switchover) -> Rebalancer | None:
    """Off by default."""
    if not settings.ha.rebalance:
        return None
    return Rebalancer(ports.coordination, ports.store, switchover, settings.contexts.move_grace)


def _standbys(settings: Settings, ports: Ports, pool: DriverPool) -> HotStandbys:
    return HotStandbys(
        ports.me.id,
        ports.coordination,
        ports.store,
        pool,
        lambda context: context_settings.spec(settings, context.settings),
        StandbySettings(
            mode=settings.ha.standby,
            bind_timeout=settings.driver.start_timeout,
            checkpoint_root=context_settings.checkpoint_root(settings),
            cluster=settings.cluster.name,
        ),
    )


def _takeover(
    settings: Settings, secret: str, ports: Ports, pool: DriverPool, standbys: HotStandbys, vigil: Vigil
) -> TakeoverParts:
    @lru_cache(maxsize=1024)  # asked for each job
    def path_of(digest: str) -> str | None:
        url = ports.files.url(layout.binary_path(digest))
        return url.removeprefix("file://") if url.startswith("file://") else None

    def binary_path(ref: BinaryRef) -> str | None:
        """None where no path leads to it: the driver reads it from the store itself."""
        return path_of(ref.digest)

    async def hot(context_id: str) -> StartedDriver | None:
        return await find_hot(
            context_id, ports.me.id, ports.coordination, ports.peers, standbys, ports.connect
        )

    async def warm(spec: LaunchSpec) -> StartedDriver | None:
        return await find_warm(spec, ports.me.id, ports.coordination, ports.peers, ports.connect)

    return TakeoverParts(
        store=ports.store,
        files=ports.files,
        pool=pool,
        launcher=ports.launcher,
        spec_of=lambda context: context_settings.spec(settings, context.settings),
        jobs_of=lambda context: context_settings.jobs_settings(settings, context),
        binary_path=binary_path,
        checkpoint_root=context_settings.checkpoint_root(settings),
        cluster=settings.cluster.name,
        checkpoint_secret=secret.encode(),
        adopt_timeout=settings.driver.adopt_timeout,
        activate_timeout=settings.driver.start_timeout,
        connect=ports.connect,
        run=ports.run,
        new_token=ports.new_token,
        hot=hot,
        warm=warm,
        silence=vigil.silence,
        reached=ports.reached,
        standby_of=lambda context: mode_of(context, settings.ha.standby),
    )


def _fits_pool(settings: Settings, context: ContextRecord) -> bool:
    """Whether a failover of the context would take a warm driver of a server with the same settings."""
    if mode_of(context, settings.ha.standby) == "cold":
        return False
    defaults = context_settings.spec(settings, settings.contexts.defaults)
    try:
        return context_settings.spec(settings, context.settings) == defaults
    except JobServerError:  # a row of an older release that no driver can be started with
        return False


def _times(settings: Settings) -> KeeperTimes:
    return KeeperTimes(
        incumbent_grace=settings.ha.incumbent_grace,
        takeover_timeout=settings.ha.takeover_timeout,
        driver_timeout=settings.driver.driver_timeout,
        stop_timeout=settings.contexts.deletion_timeout,
        replace_when_stuck=settings.contexts.replace_when_stuck,
    )


def _contexts(
    settings: Settings, ports: Ports, registry: ContextRegistry, kept: KeptCheckpoints
) -> ContextDesk:
    return ContextDesk(
        ports.me.id,
        ports.store,
        registry,
        ports.coordination,
        ports.peers,
        defaults=settings.contexts.defaults,
        predefined=settings.contexts.predefined,
        creation_timeout=settings.contexts.creation_timeout,
        deletion_timeout=settings.contexts.deletion_timeout,
        check=lambda chosen: context_settings.check_context(settings, chosen),
        readiness=Readiness(
            ports.coordination,
            ports.peers,
            lambda context: _fits_pool(settings, context),
        ),
        kept=kept,
        new_id=ports.new_id,
    )


def _jobs(
    settings: Settings, ports: Ports, registry: ContextRegistry, contexts: ContextDesk, binaries: Binaries
) -> JobDesk:
    return JobDesk(
        ports.store,
        binaries,
        Owners(registry, ports.peers),
        queue_limit=settings.contexts.queue_limit + settings.contexts.max_jobs,
        new_adhoc_context=lambda name, chosen: contexts.insert(name, chosen, adhoc=True),
        start_context=contexts.start_in_background,
        new_id=ports.new_id,
    )
