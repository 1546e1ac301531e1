"""What ZooKeeper's nodes hold, as JSON. Pure.

Servers of several releases read each other's nodes while a cluster is upgraded: unknown keys are left out, missing ones have
their defaults.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from ha.coordination import OwnerNode, ServerInfo


def owner_data(node: OwnerNode) -> bytes:
    """The content of an owner node; the context is in its path."""
    return json.dumps(
        {"server": node.server, "incarnation": node.incarnation, "election": node.election}
    ).encode()


def owner_of(context_id: str, data: bytes) -> OwnerNode:
    """An owner node's content as a value."""
    node = json.loads(data)
    return OwnerNode(context_id, node["server"], node["incarnation"], int(node["election"]))


def server_data(info: ServerInfo) -> bytes:
    """The content of a server's node."""
    return json.dumps(asdict(info)).encode()


def server_of(data: bytes) -> ServerInfo:
    """A server's node as a value."""
    known = {field.name for field in fields(ServerInfo)}
    values = {key: value for key, value in json.loads(data).items() if key in known}
    lists = {key: tuple(values.get(key, ())) for key in ("hot", "readying")}
    return ServerInfo(**{**values, **lists})
