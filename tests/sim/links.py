"""Links between the simulated servers: the real machine and its shell (`ha/peerwatch.py`) over the simulated network.

What they do as the kernel and HTTP do it: a dead process's connections end by EOF once nothing cuts the way; a REJECT rule
resets them and refuses new ones; a cut, a frozen process and a full accept queue give no answer at all; a server that
leaves says goodbye; who restarts greets with another incarnation. A witness sometimes answers too late.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ha.coordination import ServerInfo
from ha.deaths import Died
from ha.peerlinks import Connected, Ended, Event, OtherLife, Refused, Sight, TakenDown, Unclear
from ha.peerwatch import ASK_TIMEOUT, CONNECT_TIMEOUT, AskTheDrivers, Feed, PeerWatch
from jobserver.errors import JobServerError
from tests.sim.loop import Process
from tests.sim.network import Pipe

if TYPE_CHECKING:
    from tests.sim.server import SimServer
    from tests.sim.world import World

GOODBYE = b""
LATE = 0.1
"""Share of the witnesses' answers that come after the time they have."""


class SimLinks(PeerWatch):
    """The links of one life of a server. `held` are the servers to which its link is up, with the time since when."""

    def __init__(self, world: World, process: Process, me: ServerInfo, ask_drivers: AskTheDrivers) -> None:
        super().__init__(me, ask_drivers)
        self.me = me
        self.held: dict[str, float] = {}
        self._world = world
        self._process = process
        self._accepted: list[Pipe] = []

    def telling(self, died: Died) -> SimLinks:
        """Every proof is judged before it is told."""

        def judged(info: ServerInfo, context_id: str | None = None) -> None:
            self._world.judge_proof(self, info, context_id)
            died(info, context_id)

        return super().telling(judged)

    async def dial(self, info: ServerInfo, feed: Feed) -> None:
        world, network, here = self._world, self._world.network, self._process.place
        await network.loop.pause(network.latency())
        target = world.servers.get(info.url)
        if network.rejected(here, info.id):
            feed(Refused())
        elif network.blocked(here, info.id) or info.id in world.full_queues:
            await asyncio.sleep(CONNECT_TIMEOUT)
            feed(Unclear())
        elif target is None or not target.process.alive:
            feed(Refused())
        else:
            await self._link(info, target, feed)

    async def _link(self, info: ServerInfo, target: SimServer, feed: Feed) -> None:
        network = self._world.network
        end = _DialledEnd(network.loop.create_future(), network.loop.create_future())
        network.loop.call_soon(target.links.accept, self._process, end, context=target.process.context)
        try:
            greeting = await asyncio.wait_for(end.greeting, CONNECT_TIMEOUT)
        except TimeoutError:
            feed(Unclear())
            return
        try:
            if greeting == info.incarnation:
                self.held[info.incarnation] = network.loop.time()
                feed(Connected())
                feed(await end.ended)
            else:
                feed(Refused() if greeting is None else OtherLife())
        finally:
            self.held.pop(info.incarnation, None)
            end.close()

    def accept(self, dialler: Process, end: _DialledEnd) -> None:
        """In the dialled process: who connected is greeted."""
        if end.greeting.done():
            return  # it has given up
        pipe = end.pipe = Pipe(self._world.network, dialler, self._process, end.received, _nothing_is_said)
        self._accepted.append(pipe)
        pipe.to_server.send(self._me.incarnation.encode())

    def say_goodbye(self) -> None:
        """A server that leaves says so: its links are taken down, they do not end."""
        for pipe in self._accepted:
            pipe.to_server.send(GOODBYE)
            pipe.to_server.send(None)

    async def sight(self, other: ServerInfo, of: ServerInfo) -> Sight | None:
        random = self._world.random

        async def own(server: SimServer) -> Sight:
            if random.random() < LATE:
                await asyncio.sleep(random.uniform(0.0, 2 * ASK_TIMEOUT))
            return server.links.seen(of.id, of.incarnation)

        try:
            return await self._world.call(self._process, other.url, ASK_TIMEOUT, own)
        except JobServerError:
            return None


class _DialledEnd:
    """What arrives at the server that dialled: the greeting (None: the link ended before it), then how the link ended."""

    def __init__(self, greeting: asyncio.Future[str | None], ended: asyncio.Future[Event]) -> None:
        self.greeting = greeting
        self.ended = ended
        self.pipe: Pipe | None = None

    def received(self, data: bytes | None) -> None:
        if not self.greeting.done():
            self.greeting.set_result(data.decode() if data else None)
        elif not self.ended.done() and not data:
            self.ended.set_result(Ended() if data is None else TakenDown())

    def close(self) -> None:
        if self.pipe is not None:
            self.pipe.to_driver.send(None)
            self.pipe.to_server.send(None)


def _nothing_is_said(_data: bytes | None) -> None:
    return None
