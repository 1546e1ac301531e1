"""Proof of death: the port, and what this machine's kernel knows of its own processes.

`LocalDeaths` holds a descriptor of each process that turns readable when it ends: no polling, told within a millisecond.
Servers of other machines are watched by their links (`ha/peers.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ha.coordination import ServerInfo


class Died(Protocol):
    """Called with a server proven dead."""

    def __call__(self, server: ServerInfo, context_id: str | None = None, /) -> None:
        """`context_id`: it is proven for this one of its contexts only (its driver says so)."""


class Deaths(Protocol):
    """Tells of servers whose process has ended; each one once."""

    def watch(self, servers: Mapping[str, ServerInfo]) -> None:
        """Watches those of the servers that it can and does not watch yet."""

    def close(self) -> None:
        """Watches nothing any more."""


WatchDeaths = Callable[[ServerInfo, Died], Deaths]


class AllDeaths:
    """Several ways of knowing; a death may be told more than once."""

    def __init__(self, *ways: Deaths) -> None:
        self._ways = ways

    def watch(self, servers: Mapping[str, ServerInfo]) -> None:
        """All ways watch all servers."""
        for way in self._ways:
            way.watch(servers)

    def close(self) -> None:
        """Watches nothing any more."""
        for way in self._ways:
            way.close()


class LocalDeaths:
    """Watches the processes of this machine's other servers. Belongs to the event loop; `died` is called once for each."""

    def __init__(self, me: ServerInfo, died: Died) -> None:
        self._me = me
        self._died = died
        self._watched: dict[tuple[str, str], int] = {}

    def watch(self, servers: Mapping[str, ServerInfo]) -> None:
        """Watches every server of this host that is new; those already watched stay watched until they end."""
        for info in servers.values():
            key = (info.id, info.incarnation)
            if info.host == self._me.host and info.id != self._me.id and key not in self._watched:
                self._watch(key, info)

    def close(self) -> None:
        """Watches nothing any more."""
        for descriptor in self._watched.values():
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()

    def _watch(self, key: tuple[str, str], info: ServerInfo) -> None:
        try:
            descriptor = os.pidfd_open(info.pid)
        except ProcessLookupError:
            self._died(info)
            return
        except OSError:
            return  # not supported or not allowed here: ZooKeeper's session timeout decides
        if start_ticks(info.pid) != info.pid_started:
            os.close(descriptor)
            self._died(info)
            return
        self._watched[key] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ended, key, info)

    def _ended(self, key: tuple[str, str], info: ServerInfo) -> None:
        descriptor = self._watched.pop(key, None)
        if descriptor is None:
            return
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._died(info)


def start_ticks(pid: int) -> int | None:
    """Kernel ticks since boot at which the process started; None when there is none, or only its zombie. Linux (/proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
