"""Who can reach whom, and connections that keep order, survive short cuts and end with their processes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from jobserver.contexts.link import DriverLink, LinkBroken
from jobserver.model import DriverRecord
from jobserver.protocol import Frames, Message, frame
from tests.sim.loop import NOBODY, Process, SimLoop

LEAST, MOST = 0.0003, 0.002
"""Seconds that a message travels."""


class Network:
    """Places are names of servers, of the machines' drivers ("d-s1") and of services ("zookeeper", "sql", "files")."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self.loop = loop
        self._chance = random.random
        self._cut: set[tuple[str, str]] = set()
        self._rejected: set[tuple[str, str]] = set()
        self._refused_last: dict[tuple[str, str], float] = {}
        self._pipes: list[Pipe] = []
        self.healed: Callable[[], None] = lambda: None

    def latency(self) -> float:
        return LEAST + (MOST - LEAST) * self._chance()

    def blocked(self, one: str, other: str) -> bool:
        return (one, other) in self._cut

    def cut(self, one: str, other: str) -> None:
        self._cut |= {(one, other), (other, one)}

    def mend(self, one: str, other: str) -> None:
        """What TCP has kept arrives now."""
        self._cut -= {(one, other), (other, one)}
        self._arrive()

    def reject(self, one: str, other: str) -> None:
        """A REJECT rule between the two: what is open is reset, what is new is refused."""
        self._rejected |= {(one, other), (other, one)}
        for pipe in self._pipes:
            if pipe.between(one, other):
                pipe.reset()

    def rejected(self, one: str, other: str) -> bool:
        if (one, other) not in self._rejected:
            return False
        self._refused_last[one, other] = self.loop.time()
        return True

    def refused_within(self, one: str, other: str, seconds: float) -> bool:
        """Whether the rule between the two refused something of `one` so short a time ago."""
        return self.loop.time() - self._refused_last.get((one, other), float("-inf")) <= seconds

    def accept(self, one: str, other: str) -> None:
        """The rule is gone."""
        self._rejected -= {(one, other), (other, one)}

    def mend_all(self) -> None:
        self._cut.clear()
        self._rejected.clear()
        self._arrive()

    def add(self, pipe: Pipe) -> None:
        self._pipes.append(pipe)

    def ended(self, process: Process) -> None:
        """The kernel closes what a dead process had open."""
        for pipe in self._pipes:
            pipe.process_ended(process)
        self._pipes = [pipe for pipe in self._pipes if not pipe.over]

    def _arrive(self) -> None:
        for pipe in self._pipes:
            pipe.arrive()
        self._pipes = [pipe for pipe in self._pipes if not pipe.over]


class Direction:
    """One half of a connection: what is on its way to `to`, in order. None in the queue is the end."""

    def __init__(
        self, pipe: Pipe, sender: Process, to: Process, receive: Callable[[bytes | None], None]
    ) -> None:
        self._pipe = pipe
        self._from = sender
        self._to = to
        self._receive = receive
        self._on_way: deque[bytes | None] = deque()
        self._last = 0.0
        self.closed = False

    def send(self, data: bytes | None) -> None:
        if self.closed:
            return
        self.closed = data is None
        self._on_way.append(data)
        network = self._pipe.network
        self._last = max(self._last, network.loop.time() + network.latency())
        network.loop.call_at(self._last, self._travelled, context=NOBODY)

    @property
    def over(self) -> bool:
        """Closed, and all that was sent has arrived."""
        return self.closed and not self._on_way

    def arrive(self) -> None:
        """Delivers what is there; a cut keeps it on its way."""
        if self._on_way and not self._pipe.network.blocked(self._from.place, self._to.place):
            while self._on_way:
                self._pipe.network.loop.call_soon(
                    self._receive, self._on_way.popleft(), context=self._to.context
                )

    def _travelled(self) -> None:
        if len(self._on_way) == 1 and not self._pipe.network.blocked(self._from.place, self._to.place):
            self._pipe.network.loop.pass_on(self._to, self._receive, self._on_way.popleft())
        else:
            self.arrive()


class Pipe:
    """A connection of a server to a driver, or (in its place) to another server."""

    def __init__(
        self,
        network: Network,
        server: Process,
        driver: Process,
        at_server: Callable[[bytes | None], None],
        at_driver: Callable[[bytes | None], None],
    ) -> None:
        self.network = network
        self._ends = (server, driver)
        self.to_driver = Direction(self, server, driver, at_driver)
        self.to_server = Direction(self, driver, server, at_server)
        network.add(self)

    @property
    def over(self) -> bool:
        return self.to_driver.over and self.to_server.over

    def between(self, one: str, other: str) -> bool:
        """Whether it leads from one of the places to the other."""
        return {end.place for end in self._ends} == {one, other}

    def reset(self) -> None:
        """Both ends are told that it is over."""
        self.to_driver.send(None)
        self.to_server.send(None)

    def process_ended(self, process: Process) -> None:
        if process in self._ends:
            self.reset()

    def arrive(self) -> None:
        self.to_driver.arrive()
        self.to_server.arrive()


class Writer:
    """The server's end, as far as a DriverLink uses a StreamWriter."""

    def __init__(self, direction: Direction) -> None:
        self._direction = direction

    def write(self, data: bytes) -> None:
        self._direction.send(data)

    def close(self) -> None:
        self._direction.send(None)


class DriverEnd:
    """A connection as the driver has it: messages in whole."""

    def __init__(self) -> None:
        self.pipe: Pipe | None = None
        self.open = True

    def send(self, message: Message) -> None:
        if self.pipe is not None:
            self.pipe.to_server.send(frame(message))

    def close(self) -> None:
        self.open = False
        if self.pipe is not None:
            self.pipe.to_server.send(None)


async def connect(
    network: Network, server: Process, driver: Any, record: DriverRecord, *, timeout: float
) -> DriverLink:
    """A real DriverLink to a simulated driver, once that has accepted. Raises LinkBroken."""
    where = f"{record.host}:{record.port}"
    accepted: asyncio.Future[Pipe] = network.loop.create_future()
    await asyncio.sleep(network.latency())
    if network.blocked(server.place, driver.process.place):
        await asyncio.sleep(timeout)
        raise LinkBroken(f"no connection to the driver at {where} within {timeout:g} s")
    if not driver.process.alive or network.rejected(server.place, driver.process.place):
        raise LinkBroken(f"no connection to the driver at {where}: refused")
    reader = asyncio.StreamReader(2**20, network.loop)
    network.loop.call_soon(_accept, network, server, driver, reader, accepted, context=driver.process.context)
    try:
        pipe = await asyncio.wait_for(accepted, timeout)
    except TimeoutError as error:
        raise LinkBroken(f"the driver at {where} did not accept within {timeout:g} s") from error
    return DriverLink.over(reader, Writer(pipe.to_driver), record.driver_id)  # type: ignore[arg-type]


def _accept(
    network: Network,
    server: Process,
    driver: Any,
    reader: asyncio.StreamReader,
    accepted: asyncio.Future[Pipe],
) -> None:
    end, frames = DriverEnd(), Frames()

    def at_server(data: bytes | None) -> None:
        if data is None:
            reader.feed_eof()
        else:
            reader.feed_data(data)

    def at_driver(data: bytes | None) -> None:
        if data is None:
            end.open = False
            driver.disconnected(end)
        else:
            for message in frames.messages(data):
                if end.open:
                    driver.received(end, message)

    end.pipe = pipe = Pipe(network, server, driver.process, at_server, at_driver)
    driver.connected(end)
    if not server.alive:  # it ended while its connection waited to be accepted, by a frozen driver maybe
        pipe.reset()
        return
    network.loop.call_later(network.latency(), _tell, accepted, pipe, context=server.context)


def _tell(accepted: asyncio.Future[Pipe], pipe: Pipe) -> None:
    if accepted.done():
        pipe.to_driver.send(None)
    else:
        accepted.set_result(pipe)
