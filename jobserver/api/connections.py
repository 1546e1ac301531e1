"""How many clients may be connected: a bound at the door, so that a flood costs neither memory nor file descriptors.

Connections over the bound are accepted, told 503 with `Retry-After`, and closed, before a byte of theirs is looked at. What is
slow on an accepted one is ended elsewhere: a head that does not come by the keep-alive timeout, a body by `read_timeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator
from typing import cast

from aiohttp import web

log = logging.getLogger(__name__)

SPARE_FILES = 512
"""File descriptors kept for everything but clients: drivers, peers, SQL, logs."""
BACKLOG = 1024
_BODY = b"Too many connections: try again later, or on another server."
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=UTF-8\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class BoundedConnections:
    """What a listening socket asks for a protocol: the server's while fewer than `most` are open, else a refusal.

    Connections that are accepted in one go are counted only after it, so a burst may pass the bound by its own size (BACKLOG).
    """

    def __init__(self, server: web.Server, most: int) -> None:
        self._server = server
        self._most = most
        self.refused = 0

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) < self._most:
            return self._server()
        if self.refused == 0:
            log.warning("%d clients are connected: more are refused (api.max_connections)", self._most)
        self.refused += 1
        return _Refusal()


class _Refusal(asyncio.Protocol):
    """Says why and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        open_one = cast(asyncio.Transport, transport)
        open_one.write(_REFUSAL)
        open_one.close()


@contextlib.asynccontextmanager
async def listening(runner: web.AppRunner, host: str, port: int, most: int) -> AsyncIterator[int]:
    """Listens; the port that it got. At the end no new connection is accepted; the runner ends the others. Raises OSError."""
    if runner.server is None:
        raise RuntimeError("the runner must be set up before it listens")
    allow_files(most + SPARE_FILES)
    door = BoundedConnections(runner.server, most)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(door, host, port, backlog=BACKLOG, reuse_address=True)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def allow_files(needed: int) -> None:
    """Raises the soft limit of open files to `needed`, as far as the hard one lets; says when that is not far enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning(
            "only %d files may be open, %d are needed for api.max_connections: raise the limit (ulimit -n)",
            allowed,
            needed,
        )
