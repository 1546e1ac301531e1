"""ZooKeeper in virtual time: sessions that end after silence, watches that see the newest state only, replies that get lost.

Keeps the rules of `ha/coordination.py` as `ha/zookeeper.py` does: elections compare and raise the version of the context's
node; a session that was lost is only known to be lost once the connection is back, and everything is then read anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from ha.coordination import (
    Elected,
    LeaderChanged,
    Link,
    LinkChanged,
    Listener,
    NotElected,
    OwnerChanged,
    OwnerNode,
    ServerInfo,
    ServersChanged,
)
from ha.errors import CoordinationLost
from tests.sim.loop import NOBODY, Process, SimLoop, State
from tests.sim.network import Network

PLACE = "zookeeper"
SESSION_TIMEOUT = 4.0
CALL_TIMEOUT = 3.0
READ_TIMEOUT = SESSION_TIMEOUT * 2 / 3
"""Silence after which the client calls its session suspended (kazoo)."""
RECONNECT = 0.5


@dataclass(eq=False)
class Session:
    """Whose ephemeral nodes go together."""

    client: SimCoordination
    expiry: asyncio.TimerHandle | None = None


@dataclass
class Ensemble:
    """The nodes. `lose_replies` counts elections whose answers get lost, with those of reading back."""

    loop: SimLoop
    network: Network
    random: Random
    owners: dict[str, tuple[OwnerNode, Session]] = field(default_factory=dict)
    elections: dict[str, int] = field(default_factory=dict)
    servers: dict[str, tuple[ServerInfo, Session]] = field(default_factory=dict)
    candidates: list[tuple[str, Session]] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    lose_replies: int = 0

    def owner(self, context_id: str) -> OwnerNode | None:
        held = self.owners.get(context_id)
        return held[0] if held else None

    def reachable(self, process: Process) -> bool:
        return process.state is State.RUNNING and not self.network.blocked(process.place, PLACE)

    def contact_changed(self) -> None:
        """Somebody froze, died, was cut off or came back: sessions begin or cease to run out."""
        for session in self.sessions:
            if self.reachable(session.client.process):
                if session.expiry is not None:
                    session.expiry.cancel()
                    session.expiry = None
            elif session.expiry is None:
                silence = SESSION_TIMEOUT - self.random.uniform(0.0, SESSION_TIMEOUT / 3)
                session.expiry = self.loop.call_later(silence, self.expire, session, context=NOBODY)
            session.client.look()

    def expire(self, session: Session) -> None:
        """Its ephemeral nodes go."""
        if session not in self.sessions:
            return
        self.sessions.remove(session)
        session.client.look()
        if session.expiry is not None:
            session.expiry.cancel()
        for server, (_, holder) in list(self.servers.items()):
            if holder is session:
                del self.servers[server]
        self.candidates = [one for one in self.candidates if one[1] is not session]
        for context_id, (_, holder) in list(self.owners.items()):
            if holder is session:
                del self.owners[context_id]
                self.tell_owner(context_id)
        self.tell_servers()

    def wipe(self) -> None:
        """All data is gone, as after a restart on an empty disk: no session, no node, no count of elections."""
        for session in list(self.sessions):
            self.expire(session)
        self.owners.clear()
        self.elections.clear()
        self.servers.clear()
        self.candidates.clear()

    def tell_owner(self, context_id: str) -> None:
        for session in self.sessions:
            session.client.will_see(context_id)

    def tell_servers(self) -> None:
        for session in self.sessions:
            session.client.will_see(None)


class SimCoordination:
    """`Coordination` of one life of a server."""

    def __init__(self, ensemble: Ensemble, process: Process) -> None:
        self.process = process
        self._ensemble = ensemble
        self._session: Session | None = None
        self._listener: Listener = lambda event: None
        self._me: ServerInfo | None = None
        self._link = Link.SUSPENDED
        self._servers: dict[str, ServerInfo] = {}
        self._owners: dict[str, OwnerNode] = {}
        self._unbroken: set[str] = set()
        self._leader: str | None = None
        self._missed = False
        self._heard_at = 0.0
        self._silent_since: float | None = None
        self._next_look = 0.0
        self._looking = False

    @property
    def link(self) -> Link:
        return self._link

    @property
    def servers(self) -> Mapping[str, ServerInfo]:
        return self._servers

    @property
    def owners(self) -> Mapping[str, OwnerNode]:
        return self._owners

    @property
    def leader(self) -> str | None:
        return self._leader

    async def start(self, me: ServerInfo, listener: Listener) -> None:
        self._me, self._listener = me, listener
        await self._reach()
        self._link = Link.CONNECTED
        self._next_look = self._ensemble.loop.time() + RECONNECT
        self._open_session()
        self._look_again()

    async def stop(self) -> None:
        self._listener = lambda event: None
        if self._session is not None:
            self._ensemble.expire(self._session)
            self._session = None

    async def elect(self, context_id: str, replace: OwnerNode | None = None) -> Elected | NotElected:
        nodes, me = self._ensemble, self._announced()
        count = replace.election if replace else await self._election_count(context_id)
        session = await self._reach()
        if me.id not in nodes.servers:
            return NotElected(nodes.owner(context_id), "NoNodeError")
        if nodes.elections.get(context_id) != count:
            return NotElected(nodes.owner(context_id), "BadVersionError")
        if (context_id in nodes.owners) is not (replace is not None):
            return NotElected(nodes.owner(context_id), "NoNodeError" if replace else "NodeExistsError")
        node = OwnerNode(context_id, me.id, me.incarnation, count + 1)
        nodes.elections[context_id] = node.election
        nodes.owners[context_id] = (node, session)
        nodes.tell_owner(context_id)
        if nodes.lose_replies:
            nodes.lose_replies -= 1
            await asyncio.sleep(CALL_TIMEOUT)
            raise CoordinationLost("the reply was lost")
        await asyncio.sleep(nodes.network.latency())
        return Elected(node)

    async def _election_count(self, context_id: str) -> int:
        await self._reach()
        if context_id not in self._ensemble.elections:
            self._ensemble.elections[context_id] = 0
            self._ensemble.tell_owner(context_id)
        return self._ensemble.elections[context_id]

    async def release(self, context_id: str) -> None:
        await self._reach()
        node, me = self._ensemble.owner(context_id), self._announced()
        if node is None or (node.server, node.incarnation) != (me.id, me.incarnation):
            return
        await self._reach()
        if self._ensemble.owner(context_id) == node:
            del self._ensemble.owners[context_id]
            self._ensemble.tell_owner(context_id)

    async def forget(self, context_id: str) -> None:
        await self._reach()
        node, me = self._ensemble.owner(context_id), self._announced()
        if node is not None and (node.server, node.incarnation) != (me.id, me.incarnation):
            return
        self._ensemble.owners.pop(context_id, None)
        self._ensemble.elections.pop(context_id, None)
        for session in self._ensemble.sessions:
            session.client.will_see(context_id)

    async def owner(self, context_id: str) -> OwnerNode | None:
        await self._reach()
        return self._ensemble.owner(context_id)

    async def announce(self, me: ServerInfo) -> None:
        session = await self._reach()
        self._me = me
        if me.id in self._ensemble.servers:
            self._ensemble.servers[me.id] = (me, session)
            self._ensemble.tell_servers()

    # The session

    async def _reach(self) -> Session:
        """A round trip. Raises CoordinationLost when there is no answer, or no session."""
        await asyncio.sleep(self._ensemble.network.latency())
        if self._ensemble.network.blocked(self.process.place, PLACE):
            await asyncio.sleep(CALL_TIMEOUT)
            raise CoordinationLost(f"ZooKeeper gave no answer within {CALL_TIMEOUT:g} s")
        if self._session is None and self._link is not Link.CONNECTED:
            return Session(self)  # start() opens it
        if self._session not in self._ensemble.sessions:
            raise CoordinationLost("the session has expired")
        assert self._session is not None
        return self._session

    def _open_session(self) -> None:
        nodes, me = self._ensemble, self._announced()
        self._session = session = Session(self)
        nodes.sessions.append(session)
        nodes.servers[me.id] = (me, session)
        nodes.candidates = [one for one in nodes.candidates if one[1].client is not self]
        nodes.candidates.append((me.id, session))
        nodes.tell_servers()
        nodes.contact_changed()

    def look(self) -> None:
        """The link may be in trouble: it is looked at from the next half second on, until all is well.

        The times are those of a client that looks always, as kazoo does: looks that would find nothing are left out.
        """
        if self._looking or self._session is None:
            return
        self._looking, loop = True, self._ensemble.loop
        while self._next_look <= loop.time():
            self._next_look += RECONNECT
        loop.call_at(self._next_look, self._watch_link, context=self.process.context)

    @property
    def _well(self) -> bool:
        """Nothing will come of a look before something else happens."""
        alive = self._link is Link.CONNECTED and self._session in self._ensemble.sessions
        return alive and not self._missed and not self._ensemble.network.blocked(self.process.place, PLACE)

    def _watch_link(self) -> None:
        """Notices silence and return."""
        self._looking = False
        if self._session is None:
            return
        time, network = self._ensemble.loop.time(), self._ensemble.network
        self._next_look = time + RECONNECT  # half a second after it was thawed, too
        if not self._well:
            self.look()
        if not network.blocked(self.process.place, PLACE):
            self._silent_since = None
            self._back()
            return
        self._silent_since = self._silent_since or time
        if time - self._silent_since >= READ_TIMEOUT and self._link is Link.CONNECTED:
            self._changed(Link.SUSPENDED)

    def _back(self) -> None:
        expired = self._session not in self._ensemble.sessions
        if not expired and self._link is Link.CONNECTED:
            if self._missed:
                self._look_again()
            return
        if expired:
            if self._link is Link.CONNECTED:
                self._changed(Link.SUSPENDED)
            self._changed(Link.LOST)
            self._open_session()
        self._changed(Link.CONNECTED)
        self._look_again()

    def _changed(self, link: Link) -> None:
        self._link = link
        if link is not Link.CONNECTED:
            self._unbroken.clear()
        self._listener(LinkChanged(link))

    def _look_again(self) -> None:
        self._missed = False
        for context_id in [one for one in self._owners if one not in self._ensemble.elections]:
            self.will_see(context_id)
        for context_id in list(self._ensemble.elections):
            self.will_see(context_id)
        self.will_see(None)

    # Watches

    def will_see(self, context_id: str | None) -> None:
        """The owner of a context (None: the servers) will be read in a moment, and heard of another moment later.

        What changes twice before it is read is seen once; what changes after that is heard of too early.
        """
        nodes = self._ensemble
        nodes.loop.call_later(nodes.network.latency(), self._read, self._session, context_id, context=NOBODY)

    def _read(self, session: Session | None, context_id: str | None) -> None:
        nodes = self._ensemble
        if session not in nodes.sessions or not self.process.alive:
            return
        if nodes.network.blocked(self.process.place, PLACE):
            self._missed = True  # TCP keeps it on its way
            return
        self._heard_at = max(self._heard_at, nodes.loop.time() + nodes.network.latency())
        context = self.process.context
        if context_id is None:
            servers = {server: info for server, (info, _) in nodes.servers.items()}
            leader = nodes.candidates[0][0] if nodes.candidates else None
            nodes.loop.call_at(self._heard_at, self._see_servers, servers, leader, context=context)
        elif context_id in nodes.elections:
            owner = nodes.owner(context_id)
            nodes.loop.call_at(self._heard_at, self._see_owner, session, context_id, owner, context=context)
        else:
            nodes.loop.call_at(self._heard_at, self._see_forgotten, context_id, context=context)

    def _see_owner(self, session: Session | None, context_id: str, owner: OwnerNode | None) -> None:
        if session is not self._session:
            return  # the client hears what a session was told before it hears of the session's end
        witnessed = context_id in self._unbroken
        if owner is None:
            self._owners.pop(context_id, None)
        else:
            self._owners[context_id] = owner
            if self._link is Link.CONNECTED:
                self._unbroken.add(context_id)
        self._listener(OwnerChanged(context_id, owner, witnessed))

    def _see_forgotten(self, context_id: str) -> None:
        self._owners.pop(context_id, None)
        self._unbroken.discard(context_id)

    def _see_servers(self, servers: dict[str, ServerInfo], leader: str | None) -> None:
        self._servers = servers
        self._listener(ServersChanged(servers))
        if leader != self._leader:
            self._leader = leader
            self._listener(LeaderChanged(leader))

    def _announced(self) -> ServerInfo:
        assert self._me is not None, "start() comes first"
        return self._me
