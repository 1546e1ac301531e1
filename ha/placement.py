"""Which server takes a context: a rank that every server computes alike from the same picture. Pure.

Rendezvous hashing spreads contexts evenly and keeps a context's order stable when servers come and go. Where something is
placed anew (a context, a hot standby) the servers with less to carry come first; what stands is not moved for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ha.coordination import OwnerNode, ServerInfo


def standby_order(context_id: str, servers: Mapping[str, ServerInfo]) -> list[str]:
    """Server ids in the order in which they stand for the context: who keeps its hot driver first, draining ones last."""

    def rank(server: str) -> tuple[bool, bool, bytes]:
        info = servers[server]
        return info.draining, context_id not in info.hot, _weight(context_id, server)

    return sorted(servers, key=rank)


def standby_rank(
    context_id: str, servers: Mapping[str, ServerInfo], me: str, *, but: str | None = None
) -> int:
    """This server's place in the order, from 0; `but` is the server that is gone."""
    order = [server for server in standby_order(context_id, servers) if server != but]
    return order.index(me) if me in order else len(order)


@dataclass(frozen=True, slots=True)
class HotWish:
    """A context that is to have a hot standby; `memory`: bytes of heap that a driver of it takes."""

    context_id: str
    owner: str
    memory: int


def hot_standbys(
    wishes: Iterable[HotWish], servers: Mapping[str, ServerInfo], owners: Iterable[OwnerNode]
) -> dict[str, str]:
    """Which server keeps the hot driver of each context, by context id; a context for which no server has room is left out.

    Who keeps it goes on keeping it (of two, the first in the standby order), and who starts it goes on starting it, so that
    nothing moves only because loads change or a server joins. The others go, one after the other, to the server with the fewest
    contexts and hot drivers that has room.
    """
    ordered = sorted(wishes, key=lambda wish: wish.context_id)
    rooms = {name: _Room(info) for name, info in servers.items() if not info.draining}
    for owner in owners:
        if owner.server in rooms:
            rooms[owner.server].load += 1
    chosen: dict[str, str] = {}
    for wish in ordered:
        others = {name: servers[name] for name in rooms if name != wish.owner}
        keepers = [name for name, info in others.items() if wish.context_id in info.hot]
        keepers = keepers or [name for name, info in others.items() if wish.context_id in info.readying]
        if keepers:
            chosen[wish.context_id] = min(keepers, key=lambda server: _weight(wish.context_id, server))
            rooms[chosen[wish.context_id]].take(wish)
    for wish in ordered:
        able = [s for s, room in rooms.items() if s != wish.owner and room.fits(wish)]
        if able and wish.context_id not in chosen:
            chosen[wish.context_id] = min(able, key=lambda s: (rooms[s].load, _weight(wish.context_id, s)))
            rooms[chosen[wish.context_id]].take(wish)
    return chosen


class _Room:
    """What a server may still keep hot, and what it carries already."""

    def __init__(self, info: ServerInfo) -> None:
        self.load = 0
        self._drivers = info.hot_limit
        self._memory = info.hot_memory

    def fits(self, wish: HotWish) -> bool:
        return self._drivers > 0 and (self._memory is None or wish.memory <= self._memory)

    def take(self, wish: HotWish) -> None:
        self.load += 1
        self._drivers -= 1
        if self._memory is not None:
            self._memory -= wish.memory


def place(context_id: str, servers: Mapping[str, ServerInfo], owners: Iterable[OwnerNode]) -> list[str]:
    """Server ids for a new context, best first: not draining, fewest contexts, then the standby order."""
    load = dict.fromkeys(servers, 0)
    for owner in owners:
        if owner.server in load:
            load[owner.server] += 1
    return sorted(
        servers, key=lambda server: (servers[server].draining, load[server], _weight(context_id, server))
    )


def move_targets(
    context_id: str, servers: Mapping[str, ServerInfo], owners: Iterable[OwnerNode], owner: str
) -> list[str]:
    """Servers that can take a context from `owner` on purpose, best first: with its hot driver, then fewest contexts."""
    able = {name: info for name, info in servers.items() if name != owner and not info.draining}
    order = place(context_id, able, owners)
    return sorted(order, key=lambda server: context_id not in able[server].hot)


def rebalancing(servers: Mapping[str, ServerInfo], owners: Iterable[OwnerNode]) -> tuple[str, str] | None:
    """The context to move and where to, when two servers differ by two contexts or more; else None."""
    held: dict[str, list[str]] = {name: [] for name, info in servers.items() if not info.draining}
    for node in owners:
        if node.server in held:
            held[node.server].append(node.context_id)
    if not held:
        return None
    fullest = max(sorted(held), key=lambda server: len(held[server]))
    emptiest = min(sorted(held), key=lambda server: len(held[server]))
    if len(held[fullest]) - len(held[emptiest]) < 2:
        return None
    return min(held[fullest], key=lambda context_id: _weight(context_id, emptiest)), emptiest


def _weight(context_id: str, server: str) -> bytes:
    return hashlib.sha256(f"{context_id}/{server}".encode()).digest()
