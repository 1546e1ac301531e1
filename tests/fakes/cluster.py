"""Several servers in this process: real keepers, desks and links; coordination, metadata and drivers are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoint.local import LocalFiles
from ha.coordination import OwnerNode, ServerInfo
from jobserver.assembly import Ports, assemble
from jobserver.binaries import Binaries
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.peers import MoveOrder
from jobserver.contexts.waiters import Accepted, JobNews, Offer, Until
from jobserver.errors import JobServerError, OwnerUnavailable
from jobserver.model import BinaryType, DriverRecord, ObjectOrder
from jobserver.service import Submission
from jobserver.settings import Settings
from jobserver.store.metadata import Metadata
from tests.fakes.coordination import FakeCoordination, FakeEnsemble
from tests.fakes.database import FakeStore
from tests.fakes.driver import FakeDriver, FakeLauncher
from tests.fakes.metadata import FakeMetadata

SPEC = LaunchSpec((), "1g", "")


class FakePeers:
    """Calls to other servers of the same process; a dead or cut-off one does not answer."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def _server(self, url: str) -> FakeServer:
        server = self._cluster.by_url.get(url)
        if server is None or not server.alive:
            raise OwnerUnavailable(f"{url} does not answer")
        return server

    async def _guard(self, url: str, call: Any) -> Any:
        """An answer does not come when its server dies meanwhile."""
        server = self._server(url)
        answer = asyncio.ensure_future(call(server.registry))
        died = asyncio.ensure_future(server.died.wait())
        try:
            await asyncio.wait({answer, died}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise OwnerUnavailable(f"{url} went away")
            return answer.result()
        finally:
            answer.cancel()
            died.cancel()

    async def incarnation(self, url: str, *, timeout: float) -> str:
        return self._server(url).me.incarnation

    async def claim(self, url: str, context_id: str, *, seconds: float) -> None:
        await self._guard(url, lambda registry: registry.claim(context_id, seconds))

    async def submit(self, url: str, context_id: str, offer: Offer, until: Until, seconds: float) -> Accepted:
        try:
            accepted: Accepted = await self._guard(
                url, lambda registry: registry.submit(offer, until, seconds)
            )
        except JobServerError as error:  # as over HTTP: only an accepted job is passed on
            raise OwnerUnavailable(f"{url}: {error.message}") from error
        return accepted

    async def follow(
        self, url: str, context_id: str, job_id: str, until: Until, seconds: float
    ) -> JobNews | None:
        news: JobNews | None = await self._guard(
            url, lambda registry: registry.follow_id(context_id, job_id, until, seconds)
        )
        return news

    async def kill(self, url: str, context_id: str, job_id: str) -> bool:
        return bool(await self._guard(url, lambda registry: registry.kill(context_id, job_id)))

    async def stop(self, url: str, context_id: str, *, seconds: float, force: bool) -> bool:
        return bool(await self._guard(url, lambda registry: registry.stop(context_id, seconds, force=force)))

    async def take_hot(self, url: str, context_id: str) -> DriverRecord | None:
        return await self._server(url).standbys.hand_over(context_id)

    async def take_warm(self, url: str, spec: LaunchSpec) -> DriverRecord | None:
        return self._server(url).pool.hand_over(spec.digest)

    async def behind(self, url: str) -> dict[str, dict[str, Any]]:
        return await self._server(url).standbys.behind()

    async def make_ready(self, url: str, context_id: str, *, seconds: float) -> None:
        await self._server(url).standbys.make_ready(context_id, seconds)

    async def move(self, url: str, context_id: str, order: MoveOrder) -> None:
        await self._guard(url, lambda registry: registry.move(context_id, order))

    async def take_over(self, url: str, node: OwnerNode, *, adopt: bool) -> None:
        await self._guard(url, lambda registry: registry.take_over(node, adopt=adopt))

    async def drain(self, url: str, *, grace: float, keep_drivers: bool) -> None:
        await self._server(url).drainer.begin(grace=grace, keep_drivers=keep_drivers)

    async def undrain(self, url: str) -> None:
        await self._server(url).drainer.end()

    async def objects(self, url: str, context_id: str) -> list[dict[str, Any]]:
        return list(await self._guard(url, lambda registry: registry.objects(context_id)))

    async def data(self, url: str, context_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._guard(url, lambda registry: registry.data(context_id))
        return found

    async def object(self, url: str, context_id: str, order: ObjectOrder) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._guard(
            url, lambda registry: registry.object(context_id, order)
        )
        return found


def quick_settings(max_jobs: int, warm: int, start_timeout: float) -> Settings:
    """Shorter times than any that are safe in production: the copies skip the bounds."""
    settings = Settings()
    return settings.model_copy(
        update={
            "cluster": settings.cluster.model_copy(update={"name": "test"}),
            "contexts": settings.contexts.model_copy(
                update={
                    "defaults": {},
                    "max_jobs": max_jobs,
                    "sync_timeout": 5.0,
                    "creation_timeout": 5.0,
                    "deletion_timeout": 5.0,
                }
            ),
            "driver": settings.driver.model_copy(
                update={
                    "adopt_timeout": 0.5,
                    "start_timeout": start_timeout,
                    "driver_timeout": 1.0,
                    "warm_drivers": warm,
                }
            ),
            "ha": settings.ha.model_copy(
                update={
                    "standby": "warm" if warm else "cold",
                    "claim_stagger": 0.02,
                    "incumbent_grace": 0.1,
                    "takeover_timeout": 10.0,
                }
            ),
        }
    )


class FakeServer:
    """One server's real parts on fakes."""

    def __init__(self, cluster: FakeCluster, name: str, life: int) -> None:
        self.me = ServerInfo(name, f"{name}-life{life}", f"http://{name}", f"host-{name}", 1, 1, "0")
        self.coordination = FakeCoordination(cluster.ensemble)
        self.store = cluster.store_of(name)
        self.peers = FakePeers(cluster)
        self.alive = True
        self.died = asyncio.Event()
        self.files = LocalFiles(cluster.folder / "test")
        core = assemble(
            cluster.settings,
            "secret",
            Ports(self.me, self.coordination, self.peers, self.store, self.files, cluster.launcher),
        )
        self.registry, self.pool, self.standbys = core.registry, core.pool, core.standbys
        self.contexts, self.jobs, self.objects, self.kept = core.contexts, core.jobs, core.objects, core.kept
        self.switchover, self.drainer, self.vigil = core.switchover, core.drainer, core.vigil
        self.announcing = asyncio.create_task(core.announcer.run())


class FakeCluster:
    """Servers s1…sn. `kill` ends a server as SIGKILL would: nothing is released, nothing said."""

    def __init__(
        self,
        folder: Path,
        *,
        max_jobs: int = 8,
        warm: int = 0,
        start_timeout: float = 0.5,
        store_of: Callable[[str], Metadata] | None = None,
    ) -> None:
        """`store_of`: the store of the server of that name, in place of one in memory."""
        self.folder = folder
        self.settings = quick_settings(max_jobs, warm, start_timeout)
        self.ensemble = FakeEnsemble()
        self.store = FakeStore()
        self.store_of: Callable[[str], Any] = store_of or (lambda _name: FakeMetadata(self.store))
        self.launcher = FakeLauncher()
        self.by_url: dict[str, FakeServer] = {}
        self._lives = 0

    async def start(self, name: str) -> FakeServer:
        self._lives += 1
        server = FakeServer(self, name, self._lives)
        self.by_url[server.me.url] = server
        await server.coordination.start(server.me, server.registry.hear)
        if not await server.store.list_binaries():
            await Binaries(server.store, server.files).upload("bin", BinaryType.PYTHON, b"code")
        return server

    async def kill(self, server: FakeServer, *, notice: bool = True) -> None:
        """`notice`: its session ends at once; otherwise a test calls `ensemble.expire` when it likes."""
        server.alive = False
        server.died.set()
        server.coordination.cut()
        self.ensemble.members.remove(server.coordination)
        server.registry._leaving = True
        server.announcing.cancel()
        lives = list(server.registry._lives.values())
        for life in lives:
            life.cancel()
        if lives:
            await asyncio.wait(lives)
        if notice:
            self.ensemble.expire(server.me.id)

    async def close(self) -> None:
        for server in self.by_url.values():
            if server.alive:
                await server.drainer.end()
                server.announcing.cancel()
                server.standbys.close()
                await server.registry.leave()
                await server.coordination.stop()
        for driver in self.launcher.drivers:
            driver.kill()

    def owner(self, context_id: str) -> FakeServer:
        node = self.ensemble.owners[context_id]
        return next(server for server in self.by_url.values() if server.me.incarnation == node.incarnation)

    def driver(self) -> FakeDriver:
        """The one living driver."""
        (driver,) = self.launcher.living()
        return driver


def submission(
    main_class: str, *, context: str | None = "ctx", sync: bool = True, wait: float = 5.0, **more: Any
) -> Submission:
    """A job for the fake driver."""
    return Submission(main_class, ("bin",), {}, context, sync, wait, **more)


async def until(condition: Any, what: str, seconds: float = 5.0) -> None:
    """Waits for a condition with a deadline; fails with what was waited for."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what
