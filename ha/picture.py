"""What one server has seen of its cluster: servers, owners, the leader, and whose disappearance it would not have missed.

Fed by whatever watches the cluster; tells one listener. No I/O, no threads: the event loop alone touches it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ha.coordination import (
    CoordinationEvent,
    LeaderChanged,
    Link,
    LinkChanged,
    Listener,
    OwnerChanged,
    OwnerNode,
    ServerInfo,
    ServersChanged,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a look at an owner node began: what came later overtakes what the look brings."""

    news: int
    breaks: int


class Picture:
    """Belongs to the event loop. `owners` and `servers` are for reading."""

    def __init__(self) -> None:
        self.link = Link.SUSPENDED
        self.servers: Mapping[str, ServerInfo] = {}
        self.owners: dict[str, OwnerNode] = {}
        self.leader: str | None = None
        self.listener: Listener = ignore
        self._unbroken: set[str] = set()
        self._news: Counter[str] = Counter()
        self._breaks = 0

    def link_changed(self, link: Link) -> None:
        """The state of the session as now heard."""
        before, self.link = self.link, link
        if link is not Link.CONNECTED:
            self._unbroken.clear()
            self._breaks += 1
        if link is not before:
            self.listener(LinkChanged(link))

    def server_seen(self, info: ServerInfo) -> None:
        """A server as it announces itself now."""
        self.servers = {**self.servers, info.id: info}
        self.listener(ServersChanged(self.servers))

    def servers_left(self, names: Iterable[str]) -> None:
        """Only these are left."""
        left = {name: info for name, info in self.servers.items() if name in set(names)}
        if len(left) < len(self.servers):
            self.servers = left
            self.listener(ServersChanged(left))

    def leader_seen(self, leader: str | None) -> None:
        """Who leads now."""
        if leader != self.leader:
            self.leader = leader
            self.listener(LeaderChanged(leader))

    def moment(self, context_id: str) -> Moment:
        """To be taken before an owner node is read, and given to `owner_read` with what was read."""
        return Moment(self._news[context_id], self._breaks)

    def owner_read(self, context_id: str, owner: OwnerNode | None, since: Moment) -> None:
        """What a look has brought. A watch that told something meanwhile, or is about to tell its first, goes on telling,
        so it knows better; so does the look that follows a break.
        """
        if since.news and since == self.moment(context_id):
            self.owner_seen(context_id, owner)

    def owner_seen(self, context_id: str, owner: OwnerNode | None) -> None:
        """The owner node of a context as now seen; None: there is none."""
        self._news[context_id] += 1
        witnessed = context_id in self._unbroken
        if owner is None:
            self.owners.pop(context_id, None)
        else:
            self.owners[context_id] = owner
            if self.link is Link.CONNECTED:  # an absence that is seen twice was still not seen to begin
                self._unbroken.add(context_id)
        self.listener(OwnerChanged(context_id, owner, witnessed))

    def contexts_left(self, names: frozenset[str]) -> None:
        """Only these are left. Also of contexts that went while this server had no session: no watch told of those."""
        for context_id in [one for one in self.owners if one not in names]:
            del self.owners[context_id]
        self._unbroken.intersection_update(names)
        for context_id in self._news.keys() - names:
            del self._news[context_id]


def ignore(_event: CoordinationEvent) -> None:
    """The listener of a server that does not listen yet, or no more."""
