"""One run: start the cluster, break it while clients use it, heal it, then judge.

Real: the ownership machine, keepers, takeovers, jobs, registry, desks, admission, recovery, the driver's rules, the
checkpoint's writer and fence. Simulated: time, processes, network, ZooKeeper, SQL, the checkpoint store, Spark. Everything
follows from the scenario, so a run that found something tells its story when it is run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from checkpoint.epoch import list_manifests, load
from checkpoint.errors import CheckpointError
from jobserver.driver.binding import Role
from jobserver.errors import JobServerError
from jobserver.model import ContextRecord, ContextState, JobRecord
from tests.sim import blocking
from tests.sim.clients import Clients
from tests.sim.driver import ORPHAN_TIMEOUT, SECRET, TICK, SimDriver, values_of
from tests.sim.loop import PROCESS, START, Livelock, Process, SimLoop
from tests.sim.nemesis import Nemesis
from tests.sim.scenario import SERVERS, Scenario
from tests.sim.server import SWEEP_INTERVAL, SimServer
from tests.sim.world import Fences, World

LATE = "l"
NAMES = ("a", "b", LATE)
"""Of the values that jobs update; `LATE` is updated with `durability: async`."""
OWNED_WITHIN = 30.0
"""Seconds after healing within which every context has one owner with an open gate."""
HOT_WITHIN = 40.0
"""Seconds within which every context has a hot standby while at least two servers live."""
AT_REST_WITHIN = 120.0
"""Seconds after healing within which every job has ended and every client has its answer."""
QUIET = ORPHAN_TIMEOUT + TICK + 1.0
"""Seconds of quiet after all is at rest: a driver that misses its owner has ended by then."""
ALL_ENDS_WITHIN = 10.0
"""Seconds after its contexts were stopped within which nothing of them is left."""
STRAYS_END_WITHIN = 20.0
"""Seconds, after the time in which orphans end, for what is being started or ended at that moment."""
MOST_STEPS = 600_000


@dataclass(frozen=True)
class Report:
    """What a run showed: the broken promises, and (if asked for) its story. Seconds are virtual.

    `moves`: epochs that were granted for contexts that had one already.
    """

    scenario: Scenario
    broken: tuple[str, ...]
    story: tuple[str, ...]
    owned_after: float
    seconds: float
    steps: int
    acknowledgements: int
    moves: int
    harmed: tuple[str, ...]
    failed_requests: tuple[str, ...]
    jobs: tuple[JobRecord, ...]

    @property
    def text(self) -> str:
        """The story with what it shows."""
        lines = [*self.story, f"seed {self.scenario.seed} broke {len(self.broken)} promises:"]
        return "\n".join([*lines, *(f"  * {sentence}" for sentence in self.broken)])


def run(scenario: Scenario, fences: Fences | None = None, *, tell: bool = False) -> Report:
    """Runs the scenario. The same scenario gives the same report."""
    with _garbage_kept():
        return _reported(scenario, fences or Fences(), tell=tell)


def _reported(scenario: Scenario, fences: Fences, *, tell: bool) -> Report:
    loop = SimLoop(MOST_STEPS)
    world = World(scenario, loop, fences, tell=tell)
    judge = _Run(world)
    with listening(world):
        try:
            loop.run(judge.run())
        except Livelock as error:
            world.breach(str(error))
    for failure in loop.failures:
        world.breach(failure)
    return Report(
        scenario,
        tuple(world.oracle.broken),
        tuple(f"{time - START:9.3f}  {who:<10} {what}" for time, who, what in world.story or ()),
        judge.owned_after,
        loop.time() - START,
        loop.steps,
        world.oracle.acknowledgements,
        sum(max(row.epoch - 1, 0) for row in world.store.fences.values()),
        tuple(world.harmed),
        tuple(judge.failed_requests),
        tuple(world.store.jobs.values()),
    )


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    """No collection while a run lasts: it would look again and again at what lives until the end.

    Then one of what is new, when nothing holds the run's world any more: what survives it here is never looked at again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(0)


class _Run:
    """The course of a run, and the judgement after it."""

    def __init__(self, world: World) -> None:
        self.owned_after = 0.0
        self._world = world
        self._clients = Clients(world)
        self._nemesis = Nemesis(world)

    @property
    def failed_requests(self) -> list[str]:
        """Submissions that had to be repeated."""
        return self._clients.failed

    async def run(self) -> None:
        world = self._world
        for server in SERVERS:
            world.start_server(server)
        await asyncio.sleep(0.5)
        for name in world.scenario.contexts:
            await self._clients.create_context(name)
        if world.scenario.hot:
            await self._hot_standbys()
        self._clients.begin()
        await self._nemesis.run()
        self._nemesis.heal()
        healed = world.loop.time()
        await self._until(self._not_owned, OWNED_WITHIN)
        self.owned_after = world.loop.time() - healed
        await self._until(self._not_at_rest, AT_REST_WITHIN)
        world.oracle.check_jobs(world.store.jobs)
        await asyncio.sleep(QUIET)
        await self._until(self._not_owned, OWNED_WITHIN)
        if world.scenario.hot:
            await self._hot_standbys()
        await self._check_values()
        await self._until(self._stray_driver, STRAYS_END_WITHIN)
        await self._end_contexts()

    async def _until(self, fault: Callable[[], str | None], seconds: float) -> None:
        """Waits until there is no fault to tell; one that stays is a broken promise."""
        ends = self._world.loop.time() + seconds
        while (found := fault()) is not None:
            if self._world.loop.time() >= ends:
                self._world.breach(f"{seconds:g} s later, {found}")
                return
            await asyncio.sleep(0.25)

    async def _hot_standbys(self) -> None:
        """A run about hot standbys begins when each context has one; that it gets it is a promise of its own."""
        await self._until(self._without_hot_standby, HOT_WITHIN)

    def _without_hot_standby(self) -> str | None:
        announced = {one for info, _ in self._world.ensemble.servers.values() for one in info.hot}
        for context in self._world.store.living():
            if not context.adhoc and context.id not in announced:
                return f"context {context.name} has no hot standby"
        return None

    # Judgement

    def _not_owned(self) -> str | None:
        for context in self._world.store.living():
            owner = self._world.owner_of(context.name)
            row = self._world.store.fences[context.id]
            node = self._world.ensemble.owner(context.id)
            if owner is None or node is None or node.incarnation != row.incarnation:
                return f"context {context.name} ({context.state}) has owner node {node} and fence {row}"
            gates = [
                server.me.incarnation
                for server in self._world.lives.values()
                if server.process.alive and any(k.context_id == context.id for k in server.registry.owned())
            ]
            if gates != [owner.me.incarnation]:
                return (
                    f"context {context.name} ({context.state}) has open gates at {gates}, its owner is {node}"
                )
        return None

    def _not_at_rest(self) -> str | None:
        jobs = [job for job in self._world.store.jobs.values() if not job.state.final]
        if jobs:
            return (
                f"job {jobs[0].id} ({jobs[0].spec.main_class}, attempt {jobs[0].attempt}) is {jobs[0].state}"
            )
        if not self._clients.idle:
            return "a client waits for its answer"
        for context in self._world.store.living():
            if context.state is ContextState.STOPPING:
                return f"context {context.name} is to be stopped and still lives"
            if context.adhoc:
                return f"ad-hoc context {context.name} lives, and its job has ended or never was"
        return None

    async def _check_values(self) -> None:
        """Acknowledged data is in the driver and in the store."""
        for context in self._world.store.living():
            driver = self._world.driver_of(context.name)
            if driver is None or not driver.process.alive:
                self._world.breach(f"context {context.name} has no living driver on record")
                continue
            for name in NAMES:
                self._world.oracle.last_value(context.id, name, driver.values.get(name, ()))
            await self._check_stored(context, driver)

    async def _check_stored(self, context: ContextRecord, driver: SimDriver) -> None:
        files = self._world.files_of(Process("checker", "checker", "checker"))
        try:
            names = await blocking.run(list_manifests, files, context.id)
            good = None
            for name in reversed(names):  # a torn one was never acknowledged
                with contextlib.suppress(CheckpointError):
                    good = await blocking.run(load, files, context.id, name, SECRET)
                    break
        except CheckpointError as error:
            self._world.breach(f"the checkpoint of {context.name} cannot be read: {error}")
            return
        objects = good.objects if good else {}
        for name in NAMES:
            values = values_of(objects[name], files.peek) if name in objects else ()
            self._world.oracle.last_value(context.id, name, values)
            if name == LATE and values != driver.values.get(name, ()):
                self._world.breach(f"long after the last update the store has {values} of {name}")

    def _stray_driver(self) -> str | None:
        """Every driver is some context's, or waits at a living server."""
        recorded = {context.driver.driver_id for context in self._world.store.living() if context.driver}
        servers = [one for one in self._world.lives.values() if one.process.alive]
        waiting = {driver.record.driver_id for one in servers for driver in one.waiting()}
        for driver in self._world.living_drivers():
            known = recorded if driver.binding.role is Role.ACTIVE else waiting
            if driver.record.driver_id not in known:
                return f"{driver.process.name} ({driver.binding.role}) runs, and nobody needs it"
        return None

    async def _end_contexts(self) -> None:
        """Every context is stopped: nothing may be left of it."""
        world = self._world
        for context in world.store.living():
            url = world.random.choice([url for url, one in world.servers.items() if one.process.alive])
            name = context.name
            try:
                await world.call(
                    None, url, 15.0, lambda one, name=name: one.contexts.delete(name, force=False)
                )
            except JobServerError as error:
                world.breach(f"context {name} cannot be stopped: {error!r}")
        await self._until(lambda: next(self._left_over(), None), ALL_ENDS_WITHIN)
        await asyncio.sleep(SWEEP_INTERVAL + 1.0)  # every server has looked around once more
        for sentence in self._left_over():
            world.breach(sentence)

    def _left_over(self) -> Iterator[str]:
        """What is still there of contexts that were stopped."""
        world = self._world
        for context in world.store.contexts.values():
            if not context.state.final:
                yield f"context {context.name} was stopped and is {context.state}"
        for context_id in [*world.ensemble.owners, *world.ensemble.elections]:
            yield f"coordination still has nodes of the ended context {context_id}"
        for server in world.lives.values():
            if server.process.alive:
                yield from self._keepers_left(server)
        for driver in world.living_drivers():
            if driver.binding.role is Role.ACTIVE:
                yield f"{driver.process.name} still runs after its context has ended"

    def _keepers_left(self, server: SimServer) -> Iterator[str]:
        name = server.process.name
        for keeper in server.registry._keepers.values():  # nothing else shows what is left
            yield f"{name} still has a keeper of {keeper.context_id}: {keeper.phase}"
            if keeper.waiters.waited_for():
                yield f"{name} still has waiters of {keeper.waiters.waited_for()}"


class _Listener(logging.Handler):
    """The log belongs to the story; an exception in it that nobody foresaw is a finding."""

    def __init__(self, world: World, level: int) -> None:
        super().__init__(level)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        who = process.name if process else "-"
        if record.exc_info and record.exc_info[1] is not None:
            self._world.breach(f"{who} logged {record.getMessage()}: {record.exc_info[1]!r}")
        elif self._world.story is not None:
            self._world.say(who, record.getMessage())


@contextlib.contextmanager
def listening(world: World) -> Iterator[None]:
    """The loggers of the product tell the world's story meanwhile."""
    level = logging.INFO if world.story is not None else logging.ERROR
    listener = _Listener(world, level)
    loggers = [logging.getLogger(name) for name in ("jobserver", "ha", "checkpoint")]
    before = [(one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.setLevel(level)
        one.propagate = False
        one.addHandler(listener)
    try:
        yield
    finally:
        for one, (old, propagate) in zip(loggers, before, strict=True):
            one.setLevel(old)
            one.propagate = propagate
            one.removeHandler(listener)
