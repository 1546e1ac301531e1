"""ZooKeeper in memory: one `FakeEnsemble`, one `FakeCoordination` per server. Deterministic; nothing waits.

Sessions end when a test says so. A session that is cut off sees nothing and may do nothing until it is back.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class FakeEnsemble:
    """The nodes, and who watches them."""

    def __init__(self) -> None:
        self.owners: dict[str, OwnerNode] = {}
        self.elections: dict[str, int] = {}
        self.servers: dict[str, ServerInfo] = {}
        self.candidates: list[str] = []
        self.members: list[FakeCoordination] = []
        self.late: list[str] | None = None

    def expire(self, server: str) -> None:
        """The session of a server ends: its ephemeral nodes go."""
        info = self.servers.pop(server, None)
        self.candidates = [name for name in self.candidates if name != server]
        for node in list(self.owners.values()):
            if info is not None and node.incarnation == info.incarnation:
                del self.owners[node.context_id]
                self.tell_owner(node.context_id)
        self.tell_servers()

    def tell_late(self) -> None:
        """Watches that were held back (`late` is a list) are delivered now."""
        late, self.late = self.late or [], None
        for context_id in late:
            self.tell_owner(context_id)

    def tell_owner(self, context_id: str) -> None:
        if self.late is not None:
            self.late.append(context_id)
            return
        for member in self.members:
            member.see_owner(context_id)

    def tell_servers(self) -> None:
        for member in self.members:
            member.see_servers()


class FakeCoordination:
    """`Coordination` on a FakeEnsemble."""

    def __init__(self, ensemble: FakeEnsemble) -> None:
        self._ensemble = ensemble
        self._listener: Listener = lambda event: None
        self._me: ServerInfo | None = None
        self._link = Link.SUSPENDED
        self._servers: dict[str, ServerInfo] = {}
        self._owners: dict[str, OwnerNode] = {}
        self._unbroken: set[str] = set()
        self._leader: str | None = None

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
        self._me, self._listener, self._link = me, listener, Link.CONNECTED
        self._ensemble.members.append(self)
        self._register()
        for context_id in list(self._ensemble.elections):
            self.see_owner(context_id)

    async def stop(self) -> None:
        if self in self._ensemble.members:
            self._ensemble.members.remove(self)
            self._ensemble.expire(self._announced().id)

    async def elect(self, context_id: str, replace: OwnerNode | None = None) -> Elected | NotElected:
        self._check()
        me = self._announced()
        current = self._ensemble.owners.get(context_id)
        if me.id not in self._ensemble.servers:
            return NotElected(current, "NoNodeError")
        if current != replace and (current is not None or replace is not None):
            return NotElected(current, "BadVersionError" if replace else "NodeExistsError")
        first = context_id not in self._ensemble.elections
        count = self._ensemble.elections.get(context_id, 0) + 1
        self._ensemble.elections[context_id] = count
        if first:
            self._ensemble.tell_owner(context_id)
        node = self._ensemble.owners[context_id] = OwnerNode(context_id, me.id, me.incarnation, count)
        self._ensemble.tell_owner(context_id)
        return Elected(node)

    async def release(self, context_id: str) -> None:
        self._check()
        node = self._ensemble.owners.get(context_id)
        if node is not None and node.incarnation == self._announced().incarnation:
            del self._ensemble.owners[context_id]
            self._ensemble.tell_owner(context_id)

    async def forget(self, context_id: str) -> None:
        self._check()
        node = self._ensemble.owners.get(context_id)
        if node is None or node.incarnation == self._announced().incarnation:
            self._ensemble.owners.pop(context_id, None)
            self._ensemble.elections.pop(context_id, None)

    async def owner(self, context_id: str) -> OwnerNode | None:
        self._check()
        return self._ensemble.owners.get(context_id)

    async def announce(self, me: ServerInfo) -> None:
        self._check()
        self._me = self._ensemble.servers[me.id] = me
        self._ensemble.tell_servers()

    # What tests do to it

    def cut(self) -> None:
        """Cut off: nothing is heard and no call is answered."""
        self._link = Link.SUSPENDED
        self._unbroken.clear()
        self._listener(LinkChanged(self._link))

    def heal(self) -> None:
        """Back, with the old session if it still stands, else with a new one."""
        self._link = Link.CONNECTED
        if self._announced().id not in self._ensemble.servers:
            self._register()
        for context_id in list(self._ensemble.elections):
            self.see_owner(context_id)
        self.see_servers()
        self._listener(LinkChanged(self._link))

    # Watches

    def see_owner(self, context_id: str) -> None:
        if self._link is not Link.CONNECTED:
            return
        owner = self._ensemble.owners.get(context_id)
        witnessed = context_id in self._unbroken
        if owner is None:
            self._owners.pop(context_id, None)
        else:
            self._unbroken.add(context_id)
            self._owners[context_id] = owner
        self._listener(OwnerChanged(context_id, owner, witnessed))

    def see_servers(self) -> None:
        if self._link is not Link.CONNECTED:
            return
        self._servers = dict(self._ensemble.servers)
        self._listener(ServersChanged(self._servers))
        leader = self._ensemble.candidates[0] if self._ensemble.candidates else None
        if leader != self._leader:
            self._leader = leader
            self._listener(LeaderChanged(leader))

    def _register(self) -> None:
        me = self._announced()
        self._ensemble.servers[me.id] = me
        self._ensemble.candidates.append(me.id)
        self._ensemble.tell_servers()

    def _announced(self) -> ServerInfo:
        assert self._me is not None, "start() comes first"
        return self._me

    def _check(self) -> None:
        if self._link is not Link.CONNECTED:
            raise CoordinationLost("cut off")
