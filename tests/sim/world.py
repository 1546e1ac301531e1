"""All parts of one simulated cluster, and the processes that come and go in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

from ha.coordination import ServerInfo
from ha.deaths import Deaths, Died
from jobserver.contexts.fail_points import Point
from jobserver.errors import JobServerError, OwnerUnavailable
from jobserver.model import BinaryRecord, BinaryType, JobRecord, JobState
from jobserver.protocol import Request
from tests.sim.coordination import Ensemble
from tests.sim.driver import SimDriver
from tests.sim.files import Shelf, SimFiles
from tests.sim.links import SimLinks
from tests.sim.loop import NOBODY, Crashed, Process, SimLoop
from tests.sim.metadata import SimStore, Trouble
from tests.sim.network import Network
from tests.sim.oracle import Oracle
from tests.sim.scenario import Crash, Scenario
from tests.sim.server import SimDeaths, SimServer, settings_of

T = TypeVar("T")
CLIENT = "client"


@dataclass(frozen=True)
class Fences:
    """What the simulation is built of; a test puts a part there whose fence is off, to see that it is missed."""

    store: type[SimStore] = SimStore
    driver: type[SimDriver] = SimDriver
    links: type[SimLinks] = SimLinks


FRESH = 1.0
"""Seconds that what was seen of a link may be old when a death is proven by it; drivers are asked for as long."""


class NoAnswer(OwnerUnavailable):
    """The other end is not there, went away, or kept silent."""


class World:
    """`story` collects (time, who, what) when somebody wants to read it; `supervised`: a server that ends is started again."""

    def __init__(
        self, scenario: Scenario, loop: SimLoop, fences: Fences, *, tell: bool, chance: Random | None = None
    ) -> None:
        self.scenario = scenario
        self.loop = loop
        self.random = chance or Random(f"world {scenario.seed}")
        self.oracle = Oracle(self.say)
        self.story: list[tuple[float, str, str]] | None = [] if tell else None
        self.network = Network(loop, self.random)
        self.ensemble = Ensemble(loop, self.network, self.random)
        self.store = fences.store(self.breach, self._job_changed)
        self.store.binaries.append(
            BinaryRecord("bin", BinaryType.PYTHON, "d1", 4, datetime(2024, 1, 1, tzinfo=UTC))
        )
        self.trouble = Trouble()
        self.shelf = Shelf()
        self.settings = settings_of(scenario.standby, scenario.warm, scenario.max_jobs)
        self.servers: dict[str, SimServer] = {}
        self.lives: dict[str, SimServer] = {}
        self.drivers: dict[str, SimDriver] = {}
        self.lose_activations = 0
        self.full_queues: set[str] = set()
        self.harm: Callable[[SimServer, str, Crash], None] | None = None
        self.supervised = False
        self._driver_kind = fences.driver
        self.links_kind = fences.links
        self._deaths: list[tuple[ServerInfo, SimDeaths]] = []
        self._ids = 0
        self.harmed: list[str] = []
        self._reached: Counter[str] = Counter()

    # Names and chance

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def new_token(self) -> str:
        self._ids += 1
        return f"token-{self._ids}"

    def host_of(self, server: str) -> str:
        """By the scenario all servers share a machine, or some do, or none."""
        if self.scenario.one_host:
            return "one"
        return "shared" if server in self.scenario.sharing else f"host-{server}"

    def say(self, who: str, what: str) -> None:
        if self.story is not None:
            self.story.append((self.loop.time(), who, what))

    def breach(self, sentence: str) -> None:
        self.oracle.breach(sentence)

    def _job_changed(self, job: JobRecord) -> None:
        if self.story is not None:
            self.say("SQL", f"job {job.id} ({job.spec.main_class}) is {job.state}, attempt {job.attempt}")
        if job.state is JobState.FINISHED:
            self.oracle.finished(job)

    def files_of(self, process: Process) -> SimFiles:
        return SimFiles(self.shelf, self.network, process, self.random)

    # Servers

    def start_server(self, name: str) -> None:
        """A new life of the server, unless it lives."""
        life = 1 + sum(server.me.id == name for server in self.lives.values())
        server = SimServer(self, name, life)
        self.lives[server.me.incarnation] = server
        self.say(server.process.name, "starts")
        self.loop.call_soon(self._boot, server, context=server.process.context)

    def _boot(self, server: SimServer) -> None:
        server.life = asyncio.create_task(self._serve_until_it_fails(server))

    async def _serve_until_it_fails(self, server: SimServer) -> None:
        """A server that cannot reach ZooKeeper when it starts ends, and its supervisor starts it again."""
        try:
            await server.start()
        except Exception as error:  # noqa: BLE001  whatever ends a server's main task ends the server
            self.say(server.process.name, f"cannot start: {error!r}")
            self.stop(server)
            self.loop.call_later(1.0, self._start_again, server.me.id, context=NOBODY)

    def _start_again(self, name: str) -> None:
        if not any(one.me.id == name and one.process.alive for one in self.lives.values()):
            self.start_server(name)

    def serving(self, server: SimServer) -> None:
        """It listens for requests now."""
        self.servers[server.me.url] = server

    def server(self, name: str) -> SimServer | None:
        """The living life of a server, if there is one."""
        return next((one for one in self.lives.values() if one.me.id == name and one.process.alive), None)

    def stop(self, server: SimServer) -> None:
        """The process is gone: nothing of it runs again, its connections end."""
        if not server.process.alive:
            return
        self.say(server.process.name, "is gone")
        self.loop.kill(server.process)
        self.servers.pop(server.me.url, None)
        self.network.ended(server.process)
        self.ensemble.contact_changed()
        if self.supervised:
            self.loop.call_later(1.0, self._start_again, server.me.id, context=NOBODY)
        for future in server.inbound:
            self.loop.call_later(self.network.latency(), _fail, future, server.me.url, context=NOBODY)
        for watcher, deaths in self._deaths:
            life = self.lives.get(watcher.incarnation)
            if life is not None and life.process.alive:
                self.loop.call_later(0.001, deaths.ended, server.me, context=life.process.context)

    def watch_deaths(self, me: ServerInfo, died: Died) -> Deaths:
        deaths = SimDeaths(self, me, died)
        self._deaths.append((me, deaths))
        return deaths

    def judge_proof(self, links: SimLinks, info: ServerInfo, context_id: str | None) -> None:
        """A link's proof of death is right, or two things say what is not so: a REJECT rule, and a second witness.

        A server that leaves has given its contexts back before it stops to listen: held for dead, it loses nothing.
        """
        life = self.lives[info.incarnation]
        if not life.process.alive or self.servers.get(info.url) is not life:
            return
        here, now = links.me.id, self.loop.time()
        if not self.network.refused_within(here, info.id, FRESH):
            self.breach(f"{here} holds {info.id} for dead, which lives and refused it no connection")
        for other in self.lives.values():
            since = other.links.held.get(info.incarnation, now)
            if context_id is None and other.process.alive and now - since > FRESH:
                self.breach(f"{here} holds {info.id} for dead, to which {other.me.id} has a link")

    def reached(self, server: SimServer, point: Point, context_id: str) -> None:
        """A takeover came to a fail point. Raises Crashed where it ends the server."""
        if self.harm is None:
            return
        self._reached[point] += 1
        for crash in self.scenario.crashes:
            if crash.point == point and crash.nth == self._reached[point]:
                self.harmed.append(point)
                self.harm(server, context_id, crash)
        if not server.process.alive:
            raise Crashed

    # Drivers

    def start_driver(self, server: Process) -> SimDriver:
        """A new process on the server's machine."""
        number = len(self.drivers) + 1
        process = Process(f"driver-{number}", f"d-{server.place}", server.host)
        driver = self._driver_kind(
            number, process, self.loop, self.files_of(process), self.random, self.oracle, self._driver_died
        )
        self.drivers[driver.record.driver_id] = driver
        if self.lose_activations:
            self.lose_activations -= 1
            driver.lose_reply_to.add(Request.ACTIVATE)
        self.say(process.name, f"is started by {server.name}")
        self.loop.call_soon(lambda: asyncio.create_task(driver.live()), context=process.context)
        return driver

    def _driver_died(self, driver: SimDriver, why: str) -> None:
        self.say(driver.process.name, f"ends: {why}")
        self.loop.kill(driver.process)
        self.network.ended(driver.process)

    def living_drivers(self) -> list[SimDriver]:
        return [driver for driver in self.drivers.values() if driver.process.alive]

    def driver_of(self, context_name: str) -> SimDriver | None:
        """The driver on record of the living context of a name."""
        for context in self.store.living():
            if context.name == context_name and context.driver is not None:
                return self.drivers[context.driver.driver_id]
        return None

    def owner_of(self, context_name: str) -> SimServer | None:
        """The server that holds the owner node, or held the fence last."""
        for context in self.store.living():
            if context.name == context_name:
                row = self.store.fences[context.id]
                found = self.lives.get(row.incarnation)
                return found if found is not None and found.process.alive else None
        return None

    # Calls

    async def call(
        self,
        caller: Process | None,
        url: str,
        timeout: float,
        call: Callable[[SimServer], Awaitable[T]],
    ) -> T:
        """An HTTP request. Raises NoAnswer, and any JobServerError that the server answers."""
        place = caller.place if caller else CLIENT
        server = self.servers.get(url)
        if server is not None and self.network.blocked(place, server.process.place):
            await asyncio.sleep(min(timeout, 2.0))
            raise NoAnswer(f"{url} cannot be reached")
        await self.loop.pause(self.network.latency())
        if server is None or not server.process.alive or self.network.rejected(place, server.process.place):
            raise NoAnswer(f"{url} refuses the connection")
        future: asyncio.Future[T] = self.loop.create_future()
        server.inbound[future] = None
        back = caller.context if caller else NOBODY
        self.loop.call_soon(self._answer, server, place, call, future, back, context=server.process.context)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise NoAnswer(f"{url} gave no answer within {timeout:g} s") from error
        finally:
            server.inbound.pop(future, None)

    def _answer(
        self,
        server: SimServer,
        place: str,
        call: Callable[[SimServer], Awaitable[T]],
        future: asyncio.Future[T],
        back: object,
    ) -> None:
        async def work() -> None:
            result, error = None, None
            try:
                result = await call(server)
            except JobServerError as refusal:
                error = refusal
            except Exception as fault:  # noqa: BLE001  it would be a 500, which no request may yield
                self.breach(f"a request to {server.process.name} failed with {fault!r}")
                error = NoAnswer(repr(fault))
            self.loop.call_later(
                self.network.latency(), self._deliver, server, place, future, result, error, context=back
            )

        server.serve(work())

    def _deliver(
        self, server: SimServer, place: str, future: asyncio.Future[T], result: T, error: Exception | None
    ) -> None:
        if future.done() or self.network.blocked(place, server.process.place):
            return
        if self.network.rejected(place, server.process.place):
            error = NoAnswer(f"{server.me.url} resets the connection")
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _fail(future: asyncio.Future[T], url: str) -> None:
    if not future.done():
        future.set_exception(NoAnswer(f"{url} went away"))
