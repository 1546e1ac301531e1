"""Ports of the loopback address: free ones, busy ones, and waiting for one to open."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from jobserver.errors import LocalPartFailed

LOOPBACK = "127.0.0.1"
SPAN = 4000
"""How many ports are chosen from."""
CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the range from which connections get theirs.

    From within it, a connection could take one before its user listens, or while that is being restarted.
    """
    first = _first_of_connections()
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(range(first - SPAN, first), SPAN):
            if len(found) == count:
                return found
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
    raise LocalPartFailed(
        f"there are no {count} free ports from {first - SPAN} to {first - 1} on {LOOPBACK}."
    )


def _first_of_connections() -> int:
    try:
        return max(int(CONNECTIONS.read_text().split()[0]), 10_000)
    except (OSError, ValueError):  # not told: what Linux has by default
        return 32_768


def busy_ports(ports: Iterable[int]) -> list[int]:
    """Those of the ports that a server could not listen on."""
    return [port for port in ports if not _can_listen(port)]


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of a server that has just ended may linger on the port; they do not hinder a new one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError:
            return False
        return True
