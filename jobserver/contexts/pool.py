"""Started drivers that wait without a context, so that a new or restored context need not wait for a JVM.

The pool holds a connection to each of its drivers: when the server goes, they see EOF and end themselves. It is filled again
only when told to, after a takeover, so that starting JVMs do not slow the failover that emptied it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from jobserver.contexts.clock import now
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.launcher import Launcher
from jobserver.contexts.link import Connect, DriverLink, LinkBroken, RefusedByDriver
from jobserver.contexts.turns import Turn, no_turn
from jobserver.errors import ContextInitFailed, DriverFailed
from jobserver.model import DriverRecord
from jobserver.protocol import Refused, Request

log = logging.getLogger(__name__)

REFILL_DELAY = 3.0
"""Seconds after a takeover before the pool is filled: the first answers come before the next JVM starts."""
AFTER_ANSWER = 1.0
"""Seconds after the first answer of a takeover: then nobody who waited through it is slowed by a JVM that starts."""
HAND_OVER = 1.0
"""Seconds that the connection to a driver which was given away stays, until its taker's is there."""
CONNECT_TIMEOUT = 5.0
"""Seconds for the connection to a driver that has just said it is ready."""


@dataclass(frozen=True, slots=True)
class StartedDriver:
    """A driver bound to nothing, and this server's connection to it. `how` is "hot", "warm" or "cold"."""

    record: DriverRecord
    link: DriverLink
    how: str


class DriverPool:
    """Warm drivers of one launch spec; others are started when asked for. Belongs to the event loop."""

    def __init__(
        self,
        launcher: Launcher,
        spec: LaunchSpec,
        size: int,
        turn: Turn = no_turn,
        connect: Connect = DriverLink.connect,
        warm_up_timeout: float = 60.0,
    ) -> None:
        self._warm_up_timeout = warm_up_timeout
        self._launcher = launcher
        self._spec = spec
        self._size = size
        self._turn = turn
        self._connect = connect
        self._warm: list[StartedDriver] = []
        self._filling: asyncio.Task[None] | None = None
        self._due = -math.inf
        self._starting: asyncio.Task[StartedDriver] | None = None
        self._starting_taken = False
        self._warming: StartedDriver | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self.on_change: Callable[[], None] = lambda: None

    async def take(self, spec: LaunchSpec, *, warm_up: bool = False) -> StartedDriver:
        """A warm driver when one fits and is alive, else the one that is being made warm, as far as it is, else a new one; the
        last two are waited for until they are warm if asked for.

        Raises ContextInitFailed.
        """
        ready = self._take_ready(spec)
        if ready is not None:
            return ready
        driver = await self._take_unready(spec) or await self._start(spec, warm_up=warm_up, how="cold")
        return await self._until_warm(driver) if warm_up else driver

    def hand_over(self, spec_digest: str) -> DriverRecord | None:
        """A warm driver for another server whose pool is empty: it waits a few seconds for that one's connection."""
        driver = self._take_ready(self._spec) if spec_digest == self._spec.digest else None
        if driver is None:
            return None
        asyncio.get_running_loop().call_later(HAND_OVER, self._let_go, driver)
        self.refill(REFILL_DELAY)
        return driver.record

    def lacks(self, spec: LaunchSpec) -> bool:
        """Whether this pool is for such drivers and has none at this moment."""
        return spec == self._spec and not self._warm

    def _take_ready(self, spec: LaunchSpec) -> StartedDriver | None:
        while spec == self._spec and self._warm:
            driver = self._warm.pop(0)
            self.on_change()
            driver.link.on_closed = _nothing
            if not driver.link.closed:
                return driver
        return None

    async def _take_unready(self, spec: LaunchSpec) -> StartedDriver | None:
        """It is further on its way than one that starts now, and needs no second JVM."""
        if spec != self._spec:
            return None
        driver = self._warming
        if driver is not None and not driver.link.closed:
            self._warming = None
            return driver
        if self._starting is not None and not self._starting_taken:
            return await self._take_starting(self._starting)
        return None

    async def _take_starting(self, starting: asyncio.Task[StartedDriver]) -> StartedDriver:
        """A taker that is cancelled leaves it to the pool; one that runs by then was taken out already, and is ended."""
        self._starting_taken = True
        self._launcher.hurry()
        try:
            return replace(await asyncio.shield(starting), how="cold")
        except asyncio.CancelledError:
            if not starting.done():
                self._starting_taken = False
            elif not starting.cancelled() and starting.exception() is None:
                self.discard(starting.result())
            raise

    async def start_new(self, spec: LaunchSpec) -> StartedDriver:
        """A driver that nobody has kept ready. Raises ContextInitFailed."""
        return await self._start(spec, warm_up=False, how="cold")

    async def start_extra(self, spec: LaunchSpec) -> StartedDriver:
        """A warmed-up driver beside the pool, in its turn on this machine. Raises ContextInitFailed."""
        async with self._turn():
            return await self._until_warm(await self._start(spec, warm_up=True, how="hot"))

    def discard(self, driver: StartedDriver) -> None:
        """Ends a driver that was taken and is not needed or not good; one on another machine is asked to end."""
        driver.link.on_closed = _nothing
        if not self._launcher.kill(driver.record):
            driver.link.tell(Request.SHUTDOWN, reason="the takeover it was taken for has ended")
        self._let_go(driver)

    def _let_go(self, driver: StartedDriver) -> None:
        closing = asyncio.ensure_future(driver.link.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def refill(self, delay: float = 0.0) -> None:
        """Brings the pool to its size, one driver after the other, in the background, after `delay` seconds.

        Asked again with a shorter delay while it still waits, it waits no longer than that.
        """
        if not self._size or (not delay and len(self._warm) >= self._size):
            return  # servers look often, and mostly there is nothing to fill
        due = now() + delay
        if self._closed or (self._filling is not None and not self._filling.done() and self._due <= due):
            return
        if self._filling is not None:
            self._filling.cancel()  # still waiting: once it fills, nothing is due later
        self._due = due
        self._filling = asyncio.create_task(self._fill(delay), name="fill-driver-pool")

    async def look(self, timeout: float) -> None:
        """Ends the warm drivers that do not answer: a frozen one would be announced, and be of no use."""
        waiting = list(self._warm)
        answers = await asyncio.gather(*(answers_within(driver, timeout) for driver in waiting))
        for driver, answered in zip(waiting, answers, strict=True):
            if not answered and driver in self._warm:
                log.warning("the warm driver %s does not answer and is ended", driver.record.driver_id)
                self._warm.remove(driver)
                self.discard(driver)
                self.on_change()

    @property
    def ready(self) -> int:
        """Warm drivers at this moment."""
        return len(self._warm)

    async def close(self) -> None:
        """Ends every waiting driver."""
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        for driver in [*self._warm, *filter(None, [self._warming])]:
            await driver.link.close()
            self._launcher.kill(driver.record)
        self._warm.clear()
        self._warming = None

    async def _fill(self, delay: float) -> None:
        await asyncio.sleep(delay)
        self._due = -math.inf
        try:
            await self._fill_now()
        except ContextInitFailed as error:
            log.error("no warm driver could be started: %s", error.message)

    async def _fill_now(self) -> None:
        while len(self._warm) < self._size:
            async with self._turn():
                taken = await self._warm_one()
            if taken:
                await asyncio.sleep(REFILL_DELAY)

    async def _warm_one(self) -> bool:
        """Whether it was taken before it was warm; then this ends with its warm-up, which its activation ends."""
        self._starting = asyncio.create_task(self._start(self._spec, warm_up=True, how="warm"))
        self._starting_taken = False
        try:
            driver = await self._starting
        finally:
            self._starting = None
        if not self._starting_taken:
            self._warming = driver
        failure = await self._warmed_up(driver)
        if self._warming is not driver:
            return True  # it is no longer the pool's to judge
        self._warming = None
        if failure is not None:
            self.discard(driver)
            raise failure
        driver.link.on_closed = self._leaver(driver)
        self._warm.append(driver)
        self.on_change()
        return False

    async def _until_warm(self, driver: StartedDriver) -> StartedDriver:
        """One that cannot be warmed up is ended. Raises ContextInitFailed."""
        try:
            if (failure := await self._warmed_up(driver)) is not None:
                raise failure
        except BaseException:
            self.discard(driver)
            raise
        return driver

    async def _warmed_up(self, driver: StartedDriver) -> ContextInitFailed | None:
        """Waits until its warm-up is over, and says why it is not warm if it is not."""
        try:
            told = await driver.link.request(Request.WARM, timeout=self._warm_up_timeout)
        except RefusedByDriver as refused:
            # one of an older release says that it runs when it is warm
            if refused.code == Refused.UNKNOWN:
                return None
            return ContextInitFailed(f"the driver cannot be warmed up: {refused.sentence}")
        except DriverFailed as error:
            return ContextInitFailed(f"the driver cannot be warmed up: {error.message}")
        return None if told.get("warm") else ContextInitFailed("the driver's warm-up was ended")

    async def _start(self, spec: LaunchSpec, *, warm_up: bool, how: str) -> StartedDriver:
        record = await self._launcher.start(spec, warm_up=warm_up)
        try:
            link = await self._connect(record, timeout=CONNECT_TIMEOUT)
        except LinkBroken as error:
            self._launcher.kill(record)
            raise ContextInitFailed(f"the driver is ready and does not answer: {error.message}") from error
        except asyncio.CancelledError:
            self._launcher.kill(record)
            raise
        return StartedDriver(record, link, how)

    def _leaver(self, driver: StartedDriver) -> Callable[[str], None]:
        def left(why: str) -> None:
            if driver in self._warm:
                log.warning("the warm driver %s ended: %s", driver.record.driver_id, why)
                self._warm.remove(driver)
                self.on_change()

        return left


async def answers_within(driver: StartedDriver, timeout: float) -> bool:
    """Whether a driver that waits answers a ping."""
    try:
        await driver.link.request(Request.PING, timeout=timeout)
    except DriverFailed:
        return False
    return True


def _nothing(_why: str) -> None:
    return None
