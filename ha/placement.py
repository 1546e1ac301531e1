"""Which server takes a context: a rank that every server computes alike from the same picture. Pure.

Rendezvous hashing spreads contexts evenly and keeps a context's order stable when servers come and go; the servers that own
fewer contexts come first where a new context is placed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from ha.coordination import OwnerNode, ServerInfo


def standby_order(context_id: str, servers: Mapping[str, ServerInfo]) -> list[str]:
    """Server ids in the order in which they stand for the context; draining ones come last."""
    return sorted(servers, key=lambda server: (servers[server].draining, _weight(context_id, server)))


def standby_rank(
    context_id: str, servers: Mapping[str, ServerInfo], me: str, *, but: str | None = None
) -> int:
    """This server's place in the order, from 0; `but` is the server that is gone."""
    order = [server for server in standby_order(context_id, servers) if server != but]
    return order.index(me) if me in order else len(order)


def first_standby(context_id: str, servers: Mapping[str, ServerInfo], owner: str) -> str | None:
    """The server that keeps the hot standby: first in the order, not the owner, not draining; None when there is none."""
    order = [
        server
        for server in standby_order(context_id, servers)
        if server != owner and not servers[server].draining
    ]
    return order[0] if order else None


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
