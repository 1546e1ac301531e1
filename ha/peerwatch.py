"""The links of one server to the others: the shell around `ha/peerlinks.py`, over any way of connecting and asking.

Keeps one machine for each announced life of another server and carries its actions out. How a link is made and how another
server is asked is for those who inherit: `ha/peers.py` over HTTP, a simulation over its own network.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ha.coordination import ServerInfo
from ha.deaths import Died
from ha.peerlinks import (
    Action,
    AskDrivers,
    AskOthers,
    Connect,
    Connected,
    DriverSaid,
    Ended,
    Event,
    LinkPhase,
    OtherLife,
    OthersSaid,
    PeerLink,
    Refused,
    Sight,
    TakenDown,
    TellDead,
    TellOwnerLost,
    Unclear,
    begin,
    sight_of,
    step,
)

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2.0
"""Seconds until a connection must have been greeted; later is no refusal, but no answer."""
ASK_TIMEOUT = 0.05
"""Seconds another server has to tell of its link; it is asked again with the next attempt to connect."""

AskTheDrivers = Callable[[ServerInfo, Callable[[str], None]], Awaitable[None]]
"""Asks the drivers of a server's contexts, and calls back with the id of each context whose driver has lost that server."""
Feed = Callable[[Event], None]
"""Takes what became of one attempt to connect."""
Key = tuple[str, str]
"""Server id and incarnation."""


@dataclass(slots=True)
class _Peer:
    info: ServerInfo
    state: PeerLink = field(default_factory=PeerLink)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class PeerWatch:
    """A `Deaths` that sees other machines, too. Belongs to the event loop."""

    def __init__(self, me: ServerInfo, ask_drivers: AskTheDrivers) -> None:
        self._me = me
        self._ask_drivers = ask_drivers
        self._peers: dict[Key, _Peer] = {}
        self._died: Died = _nobody_listens

    # For those who inherit

    async def dial(self, info: ServerInfo, feed: Feed) -> None:
        """One attempt to connect: feeds Connected, Refused, OtherLife or Unclear; once connected, the link's end, too."""
        raise NotImplementedError

    async def sight(self, other: ServerInfo, of: ServerInfo) -> Sight | None:
        """What the other server says of its link to `of`; None when it does not say."""
        raise NotImplementedError

    # Deaths

    def telling(self, died: Died) -> Self:
        """Tells of proven deaths from now on."""
        self._died = died
        return self

    def watch(self, servers: Mapping[str, ServerInfo]) -> None:
        """Keeps a link to each of these lives, and to no other."""
        announced = {(one.id, one.incarnation): one for one in servers.values() if one.id != self._me.id}
        for key in self._peers.keys() - announced.keys():
            self._drop(self._peers.pop(key))
        for key, info in announced.items():
            known = self._peers.get(key)
            if known is None:
                state, actions = begin()
                peer = self._peers[key] = _Peer(info, state)
                self._carry_out(peer, actions)
            else:
                known.info = info

    def close(self) -> None:
        """Watches nothing any more."""
        self._died = _nobody_listens
        for peer in self._peers.values():
            self._drop(peer)
        self._peers.clear()

    @property
    def phases(self) -> Mapping[str, LinkPhase]:
        """What is known of the announced servers, by id."""
        return {peer.info.id: peer.state.phase for peer in self._peers.values()}

    def seen(self, server: str, incarnation: str) -> Sight:
        """What this server answers when it is asked for its link to that life."""
        peer = self._peers.get((server, incarnation))
        return sight_of(peer.state if peer else None)

    # The machine

    def _feed(self, peer: _Peer, event: Event) -> None:
        if self._peers.get((peer.info.id, peer.info.incarnation)) is not peer:
            return
        before = peer.state.phase
        peer.state, actions = step(peer.state, event)
        if peer.state.phase is not before:
            loud = LinkPhase.SUSPECTED in (before, peer.state.phase)
            log.log(
                logging.INFO if loud else logging.DEBUG,
                "server %s: %s → %s: %s",
                peer.info.id,
                before,
                peer.state.phase,
                _SENTENCES[type(event)],
            )
        self._carry_out(peer, actions)

    def _carry_out(self, peer: _Peer, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Connect(after=after):
                    self._spawn(peer, self._connect(peer, after))
                case AskOthers(round=number):
                    self._spawn(peer, self._ask_others(peer, number))
                case AskDrivers(round=number):
                    self._spawn(peer, self._ask_the_drivers(peer, number))
                case TellDead():
                    self._died(peer.info)
                case TellOwnerLost(context_id=context_id):
                    self._died(peer.info, context_id)

    def _spawn(self, peer: _Peer, work: Any) -> None:
        task = asyncio.create_task(work, name=f"link-{peer.info.id}")
        peer.tasks.add(task)
        task.add_done_callback(peer.tasks.discard)

    def _drop(self, peer: _Peer) -> None:
        for task in list(peer.tasks):
            task.cancel()

    async def _connect(self, peer: _Peer, after: float) -> None:
        await asyncio.sleep(after)
        await self.dial(peer.info, lambda event: self._feed(peer, event))

    async def _ask_others(self, peer: _Peer, number: int) -> None:
        others = [one.info for one in self._peers.values() if one.info.id != peer.info.id]
        answers = await asyncio.gather(*(self.sight(other, peer.info) for other in others))
        sights = tuple(sight for sight in answers if sight is not None)
        self._feed(peer, OthersSaid(number, sights, len(answers) - len(sights)))

    async def _ask_the_drivers(self, peer: _Peer, number: int) -> None:
        await self._ask_drivers(
            peer.info, lambda context_id: self._feed(peer, DriverSaid(number, context_id))
        )


def _nobody_listens(_server: ServerInfo, _context_id: str | None = None) -> None:
    return None


_SENTENCES: Mapping[type, str] = {
    Connected: "the link is up",
    Ended: "the link ended by EOF or reset",
    TakenDown: "the link was taken down",
    Refused: "a new connection is refused",
    OtherLife: "a new connection meets another incarnation",
    Unclear: "a new connection gets no clear answer, which proves nothing",
    OthersSaid: "no other server has a link to it",
    DriverSaid: "a driver has lost it",
}
