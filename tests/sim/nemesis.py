"""Breaks what a scenario says, when it says so, and repairs everything in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from jobserver.driver.binding import Role
from jobserver.errors import JobServerError
from jobserver.protocol import Request
from tests.sim import coordination, files, metadata
from tests.sim.driver import SimDriver
from tests.sim.loop import NOBODY, Process
from tests.sim.scenario import SERVERS, Crash, Fault, Harm, What
from tests.sim.server import SimServer
from tests.sim.world import CLIENT, World

Undo = Callable[[], None]


def nothing() -> None:
    """There was nobody to hurt, or it is over at once."""


class Nemesis:
    """`run` carries all faults out; each is undone after its time, and everything by `heal`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._healed = False
        self._draining: list[Callable[[], None]] = []
        self._begin: dict[What, Callable[[Fault], Undo]] = {
            What.KILL_SERVER: lambda fault: self._kill_server(world.server(fault.target), fault.target),
            What.KILL_OWNER: lambda fault: self._kill_owner(fault.target),
            What.KILL_DRIVER: lambda fault: self._kill_driver(fault.target),
            What.KILL_BOTH: self._kill_both,
            What.LEAVE: self._leave,
            What.FREEZE_SERVER: lambda fault: self._freeze(world.server(fault.target)),
            What.FREEZE_OWNER: lambda fault: self._freeze(world.owner_of(fault.target)),
            What.FREEZE_DRIVER: lambda fault: self._freeze(world.driver_of(fault.target)),
            What.FREEZE_BOTH: lambda fault: self._freeze(
                world.owner_of(fault.target), world.driver_of(fault.target)
            ),
            What.KILL_WAITING: lambda fault: self._kill_waiting(),
            What.FREEZE_WAITING: lambda fault: self._freeze(*self._waiting()),
            What.CUT_ZOOKEEPER: lambda fault: self._cut((fault.target, coordination.PLACE)),
            What.CUT_SQL: lambda fault: self._cut((fault.target, metadata.PLACE)),
            What.CUT_FILES: lambda fault: self._cut(
                (fault.target, files.PLACE), (f"d-{fault.target}", files.PLACE)
            ),
            What.CUT_PEER: lambda fault: self._cut((fault.target, _next(fault.target))),
            What.RESET_PEER: lambda fault: self._reset((fault.target, _next(fault.target))),
            What.RESET_MACHINE: lambda fault: self._reset_machine(fault.target, _next(fault.target)),
            What.RESET_OWNER: lambda fault: self._reset_owner(fault.target),
            What.LONE_OWNER: lambda fault: self._leave_alone(fault.target),
            What.FULL_QUEUE: lambda fault: self._fill_queue(fault.target),
            What.CUT_DRIVER: lambda fault: self._cut_driver(fault.target),
            What.CUT_PAIR: lambda fault: self._cut_pair(fault.target, coordination.PLACE),
            What.CUT_PAIR_FROM_SQL: lambda fault: self._cut_pair(
                fault.target, coordination.PLACE, metadata.PLACE
            ),
            What.ISOLATE_OWNER: lambda fault: self._isolate_owner(fault.target),
            What.DELAY_ADOPT: self._delay_adopt,
            What.ISOLATE: lambda fault: self._isolate(fault.target),
            What.ZOOKEEPER_DOWN: lambda fault: self._down(coordination.PLACE),
            What.SQL_DOWN: lambda fault: self._down(metadata.PLACE),
            What.FILES_DOWN: lambda fault: self._down(files.PLACE),
            What.WIPE_ZOOKEEPER: lambda fault: self._wipe(),
            What.SWITCHOVER: lambda fault: self._move(fault, keep_driver=False),
            What.SWITCHOVER_KEEPING: lambda fault: self._move(fault, keep_driver=True),
            What.DRAIN: self._drain,
            What.EXPIRE: self._expire,
            What.LOSE_ADOPT: lambda fault: self._lose_reply(fault.target, Request.ADOPT),
            What.LOSE_ACTIVATE: lambda fault: self._lose_reply(fault.target, Request.ACTIVATE),
            What.LOSE_ELECTION: lambda fault: self._lose_election(),
            What.SQL_LOSES: lambda fault: self._sql(lost=0.3, late=0.0),
            What.SQL_LATE: lambda fault: self._sql(lost=0.0, late=0.2),
            What.FILES_FAIL: lambda fault: self._files(faults=0.4, slow=0.002),
            What.FILES_SLOW: lambda fault: self._files(faults=0.0, slow=1.5),
            What.STOP_CONTEXT: lambda fault: self._stop_context(fault.target),
        }

    async def run(self) -> None:
        """Until the scenario's time is over."""
        loop, scenario = self._world.loop, self._world.scenario
        self._world.harm = self._harm
        start = loop.time()
        for fault in scenario.faults:
            loop.call_at(start + fault.at, self._do, fault)
        await asyncio.sleep(scenario.seconds)

    def heal(self) -> None:
        """Everything works again, and servers that are down are started."""
        world = self._world
        world.say("NEMESIS", "heals everything")
        self._healed = world.supervised = True
        world.harm = None
        world.network.mend_all()
        world.full_queues.clear()
        world.trouble.lost = world.trouble.late = 0.0
        world.shelf.faults, world.shelf.slow = 0.0, 0.002
        world.ensemble.lose_replies = 0
        for process in [one.process for one in (*world.lives.values(), *world.drivers.values())]:
            world.loop.thaw(process)
        for driver in world.drivers.values():
            driver.lose_reply_to.clear()
            driver.delay_adopt = 0.0
        for undrain in self._draining:
            undrain()
        for server in SERVERS:
            if world.server(server) is None:
                world.start_server(server)
        world.ensemble.contact_changed()

    def begin(self, fault: Fault) -> Undo:
        """Breaks it; the answer mends it, by `mend`."""
        undo = self._begin[fault.what](fault)
        self._world.ensemble.contact_changed()
        return undo

    def mend(self, undo: Undo) -> None:
        undo()
        self._world.ensemble.contact_changed()

    def _do(self, fault: Fault) -> None:
        self._world.say("NEMESIS", f"{fault.what} {fault.target} for {fault.seconds:g} s")
        undo = self.begin(fault)
        if undo is not nothing:
            self._world.loop.call_later(fault.seconds, self._undo, fault, undo)

    def _undo(self, fault: Fault, undo: Undo) -> None:
        if self._healed:
            return
        self._world.say("NEMESIS", f"ends: {fault.what} {fault.target}")
        self.mend(undo)

    # At fail points

    def _harm(self, server: SimServer, context_id: str, crash: Crash) -> None:
        world, here = self._world, server.process
        world.say("NEMESIS", f"{here.name}, {crash.point}: {crash.harm}")
        undo = nothing
        match crash.harm:
            case Harm.END_SERVER | Harm.END_BOTH | Harm.END_DRIVER:
                if crash.harm is not Harm.END_SERVER:
                    self._end_drivers(context_id)
                if crash.harm is not Harm.END_DRIVER:
                    undo = self._kill_server(server, server.me.id)
            case Harm.FREEZE:
                undo = self._freeze(server)
            case Harm.CUT_ZOOKEEPER:
                undo = self._cut((here.place, coordination.PLACE))
            case Harm.CUT_SQL:
                undo = self._cut((here.place, metadata.PLACE))
            case Harm.CUT_FILES:
                undo = self._cut((here.place, files.PLACE))
            case Harm.CUT_DRIVER:
                undo = self._cut(*[(here.place, f"d-{other}") for other in SERVERS if other != here.place])
        world.ensemble.contact_changed()
        if undo is not nothing:
            world.loop.call_later(crash.seconds, self._repair, crash, undo, context=NOBODY)

    def _end_drivers(self, context_id: str) -> None:
        """All that belong to the context by now, and by the time that a message under way needs."""
        self._end_drivers_now(context_id)
        delay = self._world.random.uniform(0.0, 0.01)
        self._world.loop.call_later(delay, self._end_drivers_now, context_id, context=NOBODY)

    def _end_drivers_now(self, context_id: str) -> None:
        for driver in self._world.living_drivers():
            bound = driver.binding.context
            if bound is not None and bound.id == context_id and driver.binding.role is Role.ACTIVE:
                driver.die("killed")

    def _repair(self, crash: Crash, undo: Undo) -> None:
        if not self._healed:
            self._world.say("NEMESIS", f"ends: {crash.harm}")
            undo()
            self._world.ensemble.contact_changed()

    # Processes

    def _kill_server(self, server: SimServer | None, name: str) -> Undo:
        if server is None:
            return nothing
        self._world.stop(server)
        return lambda: self._restart(name)

    def _restart(self, name: str) -> None:
        if self._world.server(name) is None:
            self._world.start_server(name)

    def _kill_owner(self, context: str) -> Undo:
        owner = self._world.owner_of(context)
        return self._kill_server(owner, owner.me.id) if owner else nothing

    def _kill_driver(self, context: str) -> Undo:
        driver = self._world.driver_of(context)
        if driver is not None:
            driver.die("killed")
        return nothing

    def _waiting(self) -> list[SimDriver]:
        """Warm and hot ones."""
        return [one for one in self._world.living_drivers() if one.binding.role is not Role.ACTIVE]

    def _kill_waiting(self) -> Undo:
        for driver in self._waiting():
            driver.die("killed")
        return nothing

    def _kill_both(self, fault: Fault) -> Undo:
        self._kill_driver(fault.target)
        return self._kill_owner(fault.target)

    def _delay_adopt(self, fault: Fault) -> Undo:
        driver = self._world.driver_of(fault.target)
        if driver is not None:
            driver.delay_adopt = fault.seconds
        return self._kill_owner(fault.target)

    def _leave(self, fault: Fault) -> Undo:
        server = self._world.server(fault.target)
        if server is None:
            return nothing
        loop, context = self._world.loop, server.process.context
        loop.call_soon(lambda: asyncio.create_task(server.leave()), context=context)
        return lambda: self._restart(fault.target)

    def _freeze(self, *victims: SimServer | SimDriver | None) -> Undo:
        frozen = [victim.process for victim in victims if victim is not None]
        for process in frozen:
            self._world.loop.freeze(process)
        return lambda: self._thaw(frozen)

    def _thaw(self, frozen: list[Process]) -> None:
        for process in frozen:
            self._world.loop.thaw(process)

    # The network

    def _cut(self, *pairs: tuple[str, str]) -> Undo:
        for one, other in pairs:
            self._world.network.cut(one, other)

        def mend() -> None:
            for one, other in pairs:
                self._world.network.mend(one, other)

        return mend

    def _reset(self, *pairs: tuple[str, str]) -> Undo:
        for one, other in pairs:
            self._world.network.reject(one, other)

        def accept() -> None:
            for one, other in pairs:
                self._world.network.accept(one, other)

        return accept

    def _reset_machine(self, one: str, other: str) -> Undo:
        if self._world.host_of(one) == self._world.host_of(other):
            return self._reset((one, other))
        return self._reset((one, other), (one, f"d-{other}"), (f"d-{one}", other))

    def _reset_owner(self, context: str) -> Undo:
        owner = self._world.owner_of(context)
        if owner is None:
            return nothing
        return self._reset(*[(owner.me.id, other) for other in SERVERS if other != owner.me.id])

    def _leave_alone(self, context: str) -> Undo:
        """All others hold it for dead at once, and it cannot see that another is elected."""
        owner = self._world.owner_of(context)
        if owner is None:
            return nothing
        here, others = owner.me.id, [one for one in SERVERS if one != owner.me.id]
        pairs = [(here, other) for other in others] + [(f"d-{here}", other) for other in others]
        accept, mend = self._reset(*pairs), self._cut((here, coordination.PLACE))

        def end() -> None:
            accept()
            mend()

        return end

    def _fill_queue(self, server: str) -> Undo:
        queues = self._world.full_queues
        queues.add(server)
        return lambda: queues.discard(server)

    def _down(self, service: str) -> Undo:
        places = [(server, service) for server in SERVERS] + [(f"d-{server}", service) for server in SERVERS]
        return self._cut(*places)

    def _cut_driver(self, context: str) -> Undo:
        owner, driver = self._world.owner_of(context), self._world.driver_of(context)
        if owner is None or driver is None:
            return nothing
        return self._cut((owner.process.place, driver.process.place))

    def _isolate(self, server: str) -> Undo:
        here = [server] if self._world.scenario.one_host else [server, f"d-{server}"]
        others = [one for one in SERVERS if one != server]
        there = [coordination.PLACE, metadata.PLACE, files.PLACE, CLIENT, *others]
        if not self._world.scenario.one_host:
            there += [f"d-{one}" for one in others]
        return self._cut(*[(one, other) for one in here for other in there])

    def _isolate_owner(self, context: str) -> Undo:
        owner = self._world.owner_of(context)
        return self._isolate(owner.me.id) if owner else nothing

    def _cut_pair(self, context: str, *services: str) -> Undo:
        """Owner and driver go on together, unheard by the others, who cannot adopt the driver either."""
        owner, driver = self._world.owner_of(context), self._world.driver_of(context)
        if owner is None or driver is None:
            return nothing
        others = [one for one in SERVERS if one != owner.me.id]
        pairs = [(owner.me.id, other) for other in (*services, *others)]
        pairs += [(driver.process.place, other) for other in others]
        return self._cut(*pairs)

    # Services

    def _expire(self, fault: Fault) -> Undo:
        for session in list(self._world.ensemble.sessions):
            if session.client.process.place == fault.target:
                self._world.ensemble.expire(session)
        return nothing

    def _wipe(self) -> Undo:
        self._world.ensemble.wipe()
        return nothing

    # Planned moves

    def _move(self, fault: Fault, *, keep_driver: bool) -> Undo:
        grace = min(fault.seconds / 8, 3.0)  # often shorter than a job, so that jobs are put back, too
        asyncio.create_task(self._move_by_some_server(fault.target, grace, keep_driver))  # noqa: RUF006
        return nothing

    async def _move_by_some_server(self, name: str, grace: float, keep_driver: bool) -> None:
        url = f"http://{self._world.random.choice(SERVERS)}"
        try:
            moved = await self._world.call(
                None,
                url,
                60.0,
                lambda one: one.core.switchover.by_name(name, None, grace, keep_driver=keep_driver),
            )
            self._world.say(CLIENT, f"{name} has moved from {moved.source} to {moved.target}")
        except JobServerError as error:
            self._world.say(CLIENT, f"{name} was not moved: {error.message}")

    def _drain(self, fault: Fault) -> Undo:
        server = self._world.server(fault.target)
        if server is None:
            return nothing
        drainer, loop, context = server.core.drainer, self._world.loop, server.process.context

        def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
            loop.call_soon(lambda: asyncio.create_task(work()), context=context)

        run(lambda: drainer.begin(grace=1.0, keep_drivers=self._world.random.random() < 0.5))
        self._draining.append(lambda: run(drainer.end))
        return lambda: run(drainer.end)

    def _lose_reply(self, context: str, request: Request) -> Undo:
        """Of the context's driver, or of any that is started until the end of the fault."""
        driver = self._world.driver_of(context)
        if driver is not None and request is Request.ADOPT:
            driver.lose_reply_to.add(request)
            return lambda: driver.lose_reply_to.clear()
        self._world.lose_activations = 1
        return self._keep_activations

    def _keep_activations(self) -> None:
        self._world.lose_activations = 0

    def _lose_election(self) -> Undo:
        self._world.ensemble.lose_replies = 1

        def keep() -> None:
            self._world.ensemble.lose_replies = 0

        return keep

    def _sql(self, *, lost: float, late: float) -> Undo:
        self._world.trouble.lost, self._world.trouble.late = lost, late

        def mend() -> None:
            self._world.trouble.lost = self._world.trouble.late = 0.0

        return mend

    def _files(self, *, faults: float, slow: float) -> Undo:
        shelf = self._world.shelf
        shelf.faults, shelf.slow = faults, slow

        def mend() -> None:
            shelf.faults, shelf.slow = 0.0, 0.002

        return mend

    def _stop_context(self, name: str) -> Undo:
        asyncio.create_task(self._stop_by_some_server(name))  # noqa: RUF006  the loop keeps it
        return nothing

    async def _stop_by_some_server(self, name: str) -> None:
        url = f"http://{self._world.random.choice(SERVERS)}"
        try:
            await self._world.call(None, url, 12.0, lambda server: server.contexts.delete(name, force=False))
        except JobServerError as error:
            self._world.say(CLIENT, f"stopping {name}: {error.message}")


def _next(server: str) -> str:
    return SERVERS[(SERVERS.index(server) + 1) % len(SERVERS)]
