"""Hot standbys on this server: started drivers that follow the checkpoints of contexts which other servers own.

Every server works out by itself, from the picture all of them share, for which contexts it is the first standby; no leader is
asked. What it keeps is announced, so that a context says truthfully what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ha.coordination import Coordination, ServerInfo
from ha.errors import HaError
from ha.placement import HotWish, hot_standbys
from jobserver.contexts.clock import now
from jobserver.contexts.launch_spec import LaunchSpec, flatten, heap_bytes
from jobserver.contexts.pool import HAND_OVER, REFILL_DELAY, DriverPool, StartedDriver, answers_within
from jobserver.contexts.registry import ContextRegistry
from jobserver.errors import JobServerError, MoveRefused
from jobserver.model import ContextRecord, ContextState, DriverRecord
from jobserver.protocol import Message, Request
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)

SETTLE = 0.2
"""Seconds that a burst of changes is given to end before it is acted on."""
PROMISE = 60.0
"""Seconds that a driver made ready for a planned move is kept for it."""
ASK_TIMEOUT = 1.0
"""Seconds for a bound driver to say how far it has read, to somebody who waits for the answer."""
LOOK_TIMEOUT = 5.0
"""Seconds within which a driver that waits answers, or is ended."""
REHEARSAL = 20.0
"""Seconds that a planned move waits at most for the rehearsal of the driver it has made ready."""
REHEARSAL_LOOK = 0.25
"""Seconds between two looks whether it is over."""
FILLING = 20.0
"""Seconds that it waits at most until that driver has cached what the old one had cached."""
MODES = ("cold", "warm", "hot")


@dataclass(frozen=True, slots=True)
class StandbySettings:
    """`mode` of contexts that do not set `standby` themselves; `bind_timeout` in seconds."""

    mode: str
    bind_timeout: float
    checkpoint_root: str
    cluster: str


class HotStandbys:
    """Belongs to the event loop. `taking_over`: whether this server has been elected for a context and may need its driver."""

    def __init__(
        self,
        me: str,
        coordination: Coordination,
        store: Metadata,
        pool: DriverPool,
        spec_of: Callable[[ContextRecord], LaunchSpec],
        settings: StandbySettings,
    ) -> None:
        self._me = me
        self._coordination = coordination
        self._store = store
        self._pool = pool
        self._spec_of = spec_of
        self._settings = settings
        self._bound: dict[str, StartedDriver] = {}
        self._starting: set[str] = set()
        self._rehearsing: set[str] = set()
        self._promised: dict[str, float] = {}
        self._readying: set[asyncio.Task[None]] = set()
        self._tending = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None
        self.taking_over: Callable[[str], bool] = lambda context_id: False

    @property
    def hot(self) -> tuple[str, ...]:
        """Ids of contexts for which a bound driver is ready here."""
        return tuple(sorted(self._bound))

    @property
    def readying(self) -> tuple[str, ...]:
        """Ids of contexts for which one is being started here."""
        return tuple(sorted(self._starting))

    async def tend(self) -> None:
        """Brings what is bound in line with what this server should keep, and fills the pool. Raises StoreUnavailable."""
        self._pool.refill()
        if self._bound or self._pool.ready:
            await asyncio.gather(self._pool.look(LOOK_TIMEOUT), self._look())
        async with self._tending:
            living = {context.id: context for context in await self._store.active_contexts()}
            mine, kept = self._chosen(living)
            for context_id in [bound for bound in self._bound if bound not in kept]:
                log.info(
                    "the hot standby of context %s is let go: it is kept elsewhere, or not wanted", context_id
                )
                self._drop(self._bound.pop(context_id))
                self.on_change()
            await self._start([living[context_id] for context_id in sorted(mine - self._bound.keys())])

    async def _start(self, contexts: list[ContextRecord]) -> None:
        """One after the other. Told before: who joins meanwhile need not start the same."""
        if not contexts:
            return
        self._starting = {context.id for context in contexts}
        self.on_change()
        try:
            for context in contexts:
                await self._bind(context, self._pool.start_extra(self._spec_of(context)))
                self._starting.discard(context.id)
                self.on_change()
        finally:
            self._starting.clear()
            self.on_change()

    async def make_ready(self, context_id: str, seconds: float) -> None:
        """A bound driver for a context that is about to be moved here, whoever is its first standby.

        It is kept for `PROMISE` seconds beyond the tending. Raises MoveRefused.
        """
        context = await self._store.context(context_id)
        if context is None or context.state.final:
            raise MoveRefused("the context has ended")
        self._promised[context_id] = now() + seconds + PROMISE
        readying = asyncio.create_task(
            self._ready(context)
        )  # not cancelled half-way: a driver would be left behind
        self._readying.add(readying)
        readying.add_done_callback(self._readying.discard)
        done, _ = await asyncio.wait([readying], timeout=seconds)
        if context_id not in self._bound:
            self._promised.pop(
                context_id, None
            )  # or nobody would tend this context's standby until it is over
            when = "; its log says why" if done else f" within {seconds:g} s"
            raise MoveRefused(f"no driver was made ready on server {self._me}{when}")

    async def _ready(self, context: ContextRecord) -> None:
        async with self._tending:
            if context.id not in self._bound:
                await self._bind(context, self._pool.take(self._spec_of(context), warm_up=True))
        await self._rehearsed(context.id)
        await self._filled(context)

    async def _rehearsed(self, context_id: str) -> None:
        """Nobody waits for a move until its gate closes, so its driver has the time to rehearse."""
        end = now() + REHEARSAL
        while context_id in self._rehearsing and context_id in self._bound and now() < end:
            told = (await self._ask(self._bound[context_id])).get("standby") or {}
            if told.get("rehearsed"):
                self._rehearsing.discard(context_id)
            else:
                await asyncio.sleep(REHEARSAL_LOOK)

    async def _filled(self, context: ContextRecord) -> None:
        """Queries right after the move read caches, as they did right before it."""
        driver = self._bound.get(context.id)
        if driver is None:
            return
        try:
            await driver.link.request(Request.FILL, timeout=FILLING)
        except JobServerError as error:
            # it takes longer, or does not know the request; the move does without
            log.info("context %s is moved before its caches are full: %s", context.name, error.message)

    async def _look(self) -> None:
        """Lets go of the bound drivers that do not answer; they are replaced like lost ones."""
        bound = list(self._bound.items())
        answers = await asyncio.gather(*(answers_within(driver, LOOK_TIMEOUT) for _, driver in bound))
        for (context_id, driver), answered in zip(bound, answers, strict=True):
            if not answered and self._bound.get(context_id) is driver:
                log.warning("the hot standby of context %s does not answer and is ended", context_id)
                self._drop(self._bound.pop(context_id))
                self.on_change()

    def take(self, context_id: str) -> StartedDriver | None:
        """The bound driver of a context, for a takeover; from then on it is the taker's."""
        driver = self._bound.pop(context_id, None)
        self._promised.pop(context_id, None)
        if driver is None:
            return None
        driver.link.on_closed = _nothing
        self.on_change()
        return None if driver.link.closed else driver

    async def hand_over(self, context_id: str) -> DriverRecord | None:
        """The same for an owner on another server: the driver waits a few seconds for its connection."""
        driver = self.take(context_id)
        if driver is None:
            return None
        asyncio.get_running_loop().call_later(HAND_OVER, lambda: asyncio.ensure_future(driver.link.close()))
        return driver.record

    def close(self) -> None:
        """Ends every bound driver."""
        for driver in self._bound.values():
            self._drop(driver)
        self._bound.clear()

    def _promised_here(self, context_id: str) -> bool:
        return self._promised.get(context_id, 0.0) > now()

    def _chosen(self, living: Mapping[str, ContextRecord]) -> tuple[set[str], set[str]]:
        """Ids of contexts for which this server should have a bound driver, and of those whose driver it keeps if it has one."""
        promised = {context_id for context_id in living if self._promised_here(context_id)}
        hot = {one.id: one for one in living.values() if mode_of(one, self._settings.mode) == "hot"}
        if not hot:
            return set(), promised
        wishes = [wish for one in hot.values() if (wish := self._wish(one)) is not None]
        owners, servers = self._coordination.owners, dict(self._coordination.servers)
        if self._me not in servers:
            # between two sessions: the picture says nothing of what this server keeps
            return set(), set(living)
        servers[self._me] = replace(servers[self._me], hot=self.hot, readying=self.readying)
        chosen = hot_standbys(wishes, servers, owners.values())
        mine = {context_id for context_id, server in chosen.items() if server == self._me}
        # while a failover is under way nothing is moved: its driver may be what the next owner, maybe this server, comes for
        failing_over = hot.keys() - {wish.context_id for wish in wishes}
        coming = {context_id for context_id in self._bound if self.taking_over(context_id)}
        return mine, mine | failing_over | promised | coming

    def _wish(self, context: ContextRecord) -> HotWish | None:
        """None while it has no owner, or a driver of it could not be started anyhow."""
        owner = self._coordination.owners.get(context.id)
        if owner is None or context.state is not ContextState.RUNNING:
            return None
        try:
            spec = self._spec_of(context)
        except JobServerError as error:
            log.error("context %s can have no hot standby: %s", context.name, error.message)
            return None
        return HotWish(context.id, owner.server, heap_bytes(spec.driver_memory))

    async def behind(self) -> dict[str, dict[str, Any]]:
        """How ready each bound driver is, by context id: `manifest`, the newest that it has read, `age`, the seconds since it
        looked last, and `rehearsed`, whether its first answers will be quick.
        """
        bound = list(self._bound.items())
        replies = await asyncio.gather(*(self._ask(driver) for _, driver in bound))
        return {
            context_id: reply["standby"]
            for (context_id, _), reply in zip(bound, replies, strict=True)
            if reply.get("standby")
        }

    async def _ask(self, driver: StartedDriver) -> Message:
        try:
            return await driver.link.request(Request.PING, timeout=ASK_TIMEOUT)
        except JobServerError:
            return {}

    async def _bind(self, context: ContextRecord, starting: Awaitable[StartedDriver]) -> None:
        try:
            driver = replace(await starting, how="hot")
        except JobServerError as error:
            log.error("no hot standby for context %s could be started: %s", context.name, error.message)
            return
        try:
            bound = await driver.link.request(
                Request.BIND,
                timeout=self._settings.bind_timeout,
                context={"id": context.id, "name": context.name, "settings": context.settings},
                cluster=self._settings.cluster,
                checkpoint_root=self._settings.checkpoint_root,
            )
        except JobServerError as error:
            log.error("the hot standby for context %s was not bound: %s", context.name, error.message)
            self._drop(driver)
            return
        if driver.link.closed:
            log.error("the hot standby for context %s went right after it was bound", context.name)
            self._drop(driver)
            return
        self._bound[context.id] = driver
        rehearses = bool(bound.get("rehearsing"))
        (self._rehearsing.add if rehearses else self._rehearsing.discard)(context.id)
        driver.link.on_closed = lambda why: self._lost(context, driver, why)
        log.info("context %s: a hot standby is ready here", context.name)
        self.on_change()

    def _lost(self, context: ContextRecord, driver: StartedDriver, why: str) -> None:
        if self._bound.get(context.id) is driver:
            log.warning("the hot standby of context %s ended: %s", context.name, why)
            del self._bound[context.id]
            self.on_change()

    def _drop(self, driver: StartedDriver) -> None:
        driver.link.on_closed = _nothing
        self._pool.discard(driver)


class Announcer:
    """Tells the other servers what this one keeps ready, whenever it changes."""

    def __init__(
        self, me: ServerInfo, coordination: Coordination, pool: DriverPool, standbys: HotStandbys
    ) -> None:
        self._me = me
        self._coordination = coordination
        self._pool = pool
        self._standbys = standbys
        self._changed = asyncio.Event()
        self._draining = False
        pool.on_change = standbys.on_change = self._changed.set

    def drain(self, draining: bool) -> None:
        """Tells that this server takes contexts no more, or again."""
        self._draining = draining
        self._changed.set()

    async def run(self) -> None:
        """Announces until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            picture = replace(
                self._me,
                warm=self._pool.ready,
                hot=self._standbys.hot,
                readying=self._standbys.readying,
                draining=self._draining,
            )
            try:
                await self._coordination.announce(picture)
            except HaError as error:
                log.warning("what is ready here was not announced: %s", error)
                await asyncio.sleep(SETTLE)
                self._changed.set()


async def tend_always(standbys: HotStandbys, registry: ContextRegistry, interval: float) -> None:
    """After every change of owners or servers, and at least every `interval` seconds; until cancelled.

    Not at once: a failover is such a change, and the first answers after it come before the next JVM starts.
    """
    while True:
        await registry.change(interval)
        await asyncio.sleep(REFILL_DELAY)
        try:
            await standbys.tend()
        except JobServerError as error:
            log.warning("the standbys were not looked after: %s", error.message)


def mode_of(context: ContextRecord, default: str) -> str:
    """What the context's standbys keep ready: its setting `standby`, else the server's."""
    chosen = dict(flatten(context.settings)).get("standby", default)
    return chosen if chosen in MODES else default


def _nothing(_why: str) -> None:
    return None
