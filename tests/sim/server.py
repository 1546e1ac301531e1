"""One life of a server: the real registry, keepers, desks and pool, put together by `jobserver/assembly.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from ha.coordination import OwnerNode, ServerInfo
from ha.deaths import AllDeaths, Deaths, Died
from jobserver.assembly import Ports, assemble
from jobserver.chores import chores
from jobserver.contexts.drivers_word import DriversWord
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.link import DriverLink
from jobserver.contexts.peers import MoveOrder
from jobserver.contexts.pool import StartedDriver
from jobserver.contexts.waiters import Accepted, JobNews, Offer, Until
from jobserver.errors import ContextInitFailed, JobServerError, MoveRefused, OwnerUnavailable, TimedOut
from jobserver.model import DriverRecord, ObjectOrder
from jobserver.settings import Settings
from jobserver.settings.model import (
    CheckpointSettings,
    ClusterSettings,
    ContextsSettings,
    DriverSettings,
    HaSettings,
)
from tests.sim import blocking, network
from tests.sim.coordination import SimCoordination
from tests.sim.driver import SECRET
from tests.sim.loop import Process
from tests.sim.metadata import SimMetadata

if TYPE_CHECKING:
    from tests.sim.world import World

T = TypeVar("T")
SWEEP_INTERVAL = 5.0
LEAVE_TIMEOUT = 5.0
GRACE = 2.0
"""Seconds an answer of a peer may come late (as in `jobserver/api/peers.py`)."""


@cache
def settings_of(standby: Any, warm: int, max_jobs: int) -> Settings:
    """Times are shorter than the defaults, so that a run is short; what must hold between them does."""
    return Settings(
        cluster=ClusterSettings(name="sim"),
        checkpoint=CheckpointSettings(root="/checkpoints"),
        contexts=ContextsSettings(
            defaults={}, max_jobs=max_jobs, queue_limit=100, creation_timeout="20s", deletion_timeout="10s"
        ),
        driver=DriverSettings(
            warm_drivers=warm,
            adopt_timeout="2s",
            start_timeout="6s",
            driver_timeout="4s",
            orphan_timeout="12s",
        ),
        ha=HaSettings(standby=standby, claim_stagger="300ms", incumbent_grace="1s", takeover_timeout="15s"),
    )


class SimServer:
    """A server process; `start` runs in it."""

    def __init__(self, world: World, name: str, life: int) -> None:
        host = world.host_of(name)
        self.process = Process(f"{name}.{life}", name, host)
        self.me = ServerInfo(name, f"{name}.{life}", f"http://{name}", host, life, life, "0")
        self.inbound: dict[asyncio.Future[Any], None] = {}  # no set: its order would depend on addresses
        self.life: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._world = world
        self.coordination = SimCoordination(world.ensemble, self.process)
        self.store = SimMetadata(world.store, world.network, self.process, world.random, world.trouble)
        asks = DriversWord(self.coordination, self.store, self._connect)
        self.links = world.links_kind(world, self.process, self.me, asks)
        self.core = core = assemble(
            world.settings,
            SECRET.decode(),
            Ports(
                me=self.me,
                coordination=self.coordination,
                peers=SimPeers(world, self.process),
                store=self.store,
                files=world.files_of(self.process),
                launcher=Launcher(world, self.process),
                connect=self._connect,
                run=blocking.run,
                watch_deaths=self._watch_deaths,
                new_id=world.new_id,
                new_token=world.new_token,
                reached=partial(world.reached, self),
            ),
        )
        self.registry, self.pool, self.standbys = core.registry, core.pool, core.standbys
        self.contexts, self.jobs = core.contexts, core.jobs

    def _watch_deaths(self, me: ServerInfo, died: Died) -> Deaths:
        return AllDeaths(self._world.watch_deaths(me, died), self.links.telling(died))

    async def _connect(self, driver: DriverRecord, *, timeout: float) -> DriverLink:
        target = self._world.drivers[driver.driver_id]
        return await network.connect(self._world.network, self.process, target, driver, timeout=timeout)

    async def start(self) -> None:
        """Serves until the process ends."""
        await self.coordination.start(self.me, self.registry.hear)
        self.pool.refill()
        # whoever began a little later in the same run is no younger by the real clock
        work = chores(self.core, SWEEP_INTERVAL, unowned_after=0.0)
        tasks = [asyncio.create_task(chore) for chore in work.values()]
        self._world.serving(self)
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def waiting(self) -> list[StartedDriver]:
        """Its warm and hot drivers."""
        return [*self.pool._warm, *self.standbys._bound.values()]

    def serve(self, request: Coroutine[Any, Any, None]) -> None:
        """Carries a request out in this process."""

        async def served() -> None:
            try:
                await request
            finally:
                self._requests.discard(task)

        task = asyncio.create_task(served())
        self._requests.add(task)

    async def leave(self) -> None:
        """What SIGTERM does, up to the process's end: contexts are handed over, requests under way may end."""
        if self.life is not None:
            self.life.cancel()
        await self.registry.leave()
        self._world.servers.pop(self.me.url, None)
        if self._requests:
            await asyncio.wait(self._requests, timeout=LEAVE_TIMEOUT)
        self.links.say_goodbye()
        await self.coordination.stop()
        self.standbys.close()
        await self.pool.close()
        self._world.stop(self)


class Launcher:
    """Starts drivers on the server's machine, and ends those that run there."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def start(self, spec: LaunchSpec, *, warm_up: bool) -> DriverRecord:
        await asyncio.sleep(self._world.random.uniform(0.1, 0.8))
        if self._world.random.random() < self._world.scenario.broken_starts:
            raise ContextInitFailed("the JVM did not start")
        return self._world.start_driver(self._process).record

    def kill(self, driver: DriverRecord) -> bool:
        found = self._world.drivers[driver.driver_id]
        mine = found.process.alive and found.process.host == self._process.host
        if mine:
            found.die(f"killed by {self._process.name}")
        return mine

    def hurry(self) -> None:
        """Processors are no part of what is simulated."""


class SimDeaths:
    """Proof of death on one machine: told a moment after the process ended."""

    def __init__(self, world: World, me: ServerInfo, died: Died) -> None:
        self._world = world
        self._me = me
        self._died = died
        self._watched: set[str] = set()

    def watch(self, servers: Mapping[str, ServerInfo]) -> None:
        for info in servers.values():
            if (
                info.host == self._me.host
                and info.id != self._me.id
                and info.incarnation not in self._watched
            ):
                self._watched.add(info.incarnation)
                if not self._world.lives[info.incarnation].process.alive:
                    self._died(info)

    def close(self) -> None:
        self._watched.clear()

    def ended(self, info: ServerInfo) -> None:
        if info.incarnation in self._watched:
            self._died(info)


class SimPeers:
    """Calls between servers: as `jobserver/api/peers.py` asks and `jobserver/api/internal.py` answers."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def incarnation(self, url: str, *, timeout: float) -> str:
        async def own(server: SimServer) -> str:
            return server.me.incarnation

        return await self._call(url, timeout, own)

    async def claim(self, url: str, context_id: str, *, seconds: float) -> None:
        await self._call(
            url,
            seconds,
            lambda server: server.registry.claim(context_id, seconds),
            (ContextInitFailed, TimedOut),
        )

    async def submit(self, url: str, context_id: str, offer: Offer, until: Until, seconds: float) -> Accepted:
        return await self._call(url, seconds, lambda server: server.registry.submit(offer, until, seconds))

    async def follow(
        self, url: str, context_id: str, job_id: str, until: Until, seconds: float
    ) -> JobNews | None:
        return await self._call(
            url, seconds, lambda server: server.registry.follow_id(context_id, job_id, until, seconds)
        )

    async def kill(self, url: str, context_id: str, job_id: str) -> bool:
        return await self._call(url, 10.0, lambda server: server.registry.kill(context_id, job_id))

    async def stop(self, url: str, context_id: str, *, seconds: float, force: bool) -> bool:
        return await self._call(
            url, seconds, lambda server: server.registry.stop(context_id, seconds, force=force)
        )

    async def take_hot(self, url: str, context_id: str) -> DriverRecord | None:
        return await self._call(url, 2.0, lambda server: server.standbys.hand_over(context_id))

    async def take_warm(self, url: str, spec: LaunchSpec) -> DriverRecord | None:
        async def given(server: SimServer) -> DriverRecord | None:
            return server.pool.hand_over(spec.digest)

        return await self._call(url, 2.0, given)

    async def behind(self, url: str) -> dict[str, dict[str, Any]]:
        return await self._call(url, 1.5, lambda server: server.standbys.behind())

    async def make_ready(self, url: str, context_id: str, *, seconds: float) -> None:
        await self._call(
            url, seconds, lambda server: server.standbys.make_ready(context_id, seconds), (MoveRefused,)
        )

    async def move(self, url: str, context_id: str, order: MoveOrder) -> None:
        await self._call(
            url,
            order.seconds + order.grace + 45.0,
            lambda server: server.registry.move(context_id, order),
            (MoveRefused,),
        )

    async def take_over(self, url: str, node: OwnerNode, *, adopt: bool) -> None:
        await self._call(
            url, 10.0, lambda server: server.registry.take_over(node, adopt=adopt), (MoveRefused,)
        )

    async def drain(self, url: str, *, grace: float, keep_drivers: bool) -> None:
        raise OwnerUnavailable("drain is a series of moves; the simulation makes those")

    async def undrain(self, url: str) -> None:
        raise OwnerUnavailable("drain is a series of moves; the simulation makes those")

    async def objects(self, url: str, context_id: str) -> list[dict[str, Any]]:
        return await self._call(url, 10.0, lambda server: server.registry.objects(context_id))

    async def data(self, url: str, context_id: str) -> dict[str, Any] | None:
        return await self._call(url, 1.0, lambda server: server.registry.data(context_id))

    async def object(self, url: str, context_id: str, order: ObjectOrder) -> dict[str, Any] | None:
        return await self._call(
            url, order.seconds + 10.0, lambda server: server.registry.object(context_id, order)
        )

    async def _call(
        self,
        url: str,
        timeout: float,
        call: Callable[[SimServer], Awaitable[T]],
        passed_on: tuple[type[JobServerError], ...] = (),
    ) -> T:
        try:
            return await self._world.call(self._process, url, timeout + GRACE, call)
        except passed_on:
            raise
        except JobServerError as error:
            raise OwnerUnavailable(f"{url}: {error.message}") from error
