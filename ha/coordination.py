"""The coordination port: what a server sees of its cluster and may ask of it. Values only; `zookeeper.py` implements it.

Znodes below <zookeeper.root>/<cluster> (paths use ids, never names):

    /servers/<server-id>          ephemeral  ServerInfo as JSON
    /leader/<n>                   ephemeral sequential, data = server id
    /contexts/<context-id>        persistent; its version is the election count, compared and raised by each election
    /contexts/<context-id>/owner  ephemeral  server, incarnation, election

A znode's own version starts at 0 with each creation, so "delete the owner at its version" could delete a successor.
Every election therefore compares and raises the version of the parent: whoever decided on an outdated picture is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One living server as it announces itself.

    `pid_started` is in kernel ticks; `host` names the machine's boot and pid namespace; `warm` counts its started drivers
    without a context; `hot` are ids of contexts for which it keeps a driver that follows their checkpoints, `readying` of those
    for which it starts one; `hot_limit` of them at most, with `hot_memory` bytes of heap at most (None: as many as that).
    """

    id: str
    incarnation: str
    url: str
    host: str
    pid: int
    pid_started: int
    version: str
    draining: bool = False
    warm: int = 0
    hot: tuple[str, ...] = ()
    readying: tuple[str, ...] = ()
    hot_limit: int = 8
    hot_memory: int | None = None


@dataclass(frozen=True, slots=True)
class OwnerNode:
    """Who holds a context's owner node; `election` identifies this very election."""

    context_id: str
    server: str
    incarnation: str
    election: int


class Link(StrEnum):
    """State of this server's session. LOST is only learnt after the connection is back (kazoo)."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    """The owner node of a context as now seen; `witnessed`: connected without a break since an owner was seen."""

    context_id: str
    owner: OwnerNode | None
    witnessed: bool


@dataclass(frozen=True, slots=True)
class ServersChanged:
    """All living servers by id."""

    servers: Mapping[str, ServerInfo]


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The session's state changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """The leader as now seen, or None while one is being elected."""

    leader: str | None


CoordinationEvent = OwnerChanged | ServersChanged | LinkChanged | LeaderChanged
Listener = Callable[[CoordinationEvent], None]


@dataclass(frozen=True, slots=True)
class Elected:
    """This server holds the owner node."""

    node: OwnerNode


@dataclass(frozen=True, slots=True)
class NotElected:
    """Somebody else was quicker, or the picture was outdated; `owner` as read after the refusal."""

    owner: OwnerNode | None
    reason: str


class Coordination(Protocol):
    """A server's view of ZooKeeper. Calls raise CoordinationLost when there is no answer within the call timeout."""

    async def start(self, me: ServerInfo, listener: Listener) -> None:
        """Opens the session and announces the server. Raises SessionTimeoutRefused, CoordinationLost."""

    async def stop(self) -> None:
        """Closes the session: every ephemeral node goes at once."""

    async def elect(self, context_id: str, replace: OwnerNode | None = None) -> Elected | NotElected:
        """One transaction; `replace` names the owner to put aside (proven dead, or a planned move)."""

    async def release(self, context_id: str) -> None:
        """Gives the owner node back if this server holds it."""

    async def forget(self, context_id: str) -> None:
        """Removes the nodes of a context that has ended, unless another server holds the owner node or is elected meanwhile."""

    async def owner(self, context_id: str) -> OwnerNode | None:
        """Reads the owner node, past the cache."""

    async def announce(self, me: ServerInfo) -> None:
        """Replaces what this server says of itself."""

    @property
    def link(self) -> Link:
        """State of the session as last heard."""

    @property
    def servers(self) -> Mapping[str, ServerInfo]:
        """Living servers as last seen."""

    @property
    def owners(self) -> Mapping[str, OwnerNode]:
        """Owner nodes as last seen, by context id."""

    @property
    def leader(self) -> str | None:
        """Id of the leader as last seen."""
