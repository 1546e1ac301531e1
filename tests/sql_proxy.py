"""A TCP proxy between a server and its database: counts bytes, cuts after so many, delays, swallows, refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from jobserver.local.ports import LOOPBACK
from tests.mariadb import address_of


@dataclass
class Cut:
    """Ends a connection after `after` more bytes in one direction; `passed` tells how many have gone through."""

    after: int
    passed: int = 0


@dataclass
class SqlProxy:
    """`url` leads through the proxy to the database of `target`."""

    target: str
    url: str = ""
    requests: bytearray = field(default_factory=bytearray)
    replies: bytearray = field(default_factory=bytearray)
    delay: float = 0.0
    refusing: bool = False
    request_cut: Cut | None = None
    reply_cut: Cut | None = None
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def record(self) -> None:
        """Forgets what went through so far."""
        self.requests.clear()
        self.replies.clear()

    def swallow(self) -> None:
        """From now on nothing goes through, and nobody is told: a network that drops packets."""
        self._open.clear()

    def heal(self) -> None:
        """Everything goes through again, at once."""
        self.delay, self.refusing, self.request_cut, self.reply_cut = 0.0, False, None, None
        self._open.set()

    def sever(self) -> None:
        """Resets every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, from its begin to its end."""
        if self.refusing:
            writer.transport.abort()
            return
        address = address_of(self.target)
        try:
            upstream, downstream = await asyncio.open_connection(address.host, address.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, downstream}
        pumps = [
            asyncio.create_task(self._pump(reader, downstream, asked=True)),
            asyncio.create_task(self._pump(upstream, writer, asked=False)),
        ]
        try:
            # one side has ended: the other does, too
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers -= {writer, downstream}
            writer.transport.abort()
            downstream.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asked: bool) -> None:
        while data := await reader.read(1 << 16):
            await self._open.wait()
            if asked and self.delay:
                await asyncio.sleep(self.delay)
            (self.requests if asked else self.replies).extend(data)
            cut = self.request_cut if asked else self.reply_cut
            if cut is not None:
                data = data[: cut.after - cut.passed]
                cut.passed += len(data)
            writer.write(data)
            await writer.drain()
            if cut is not None and cut.passed >= cut.after:
                # what was let through arrives; then both sides see the end
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return


@contextlib.asynccontextmanager
async def proxy_to(target: str) -> AsyncIterator[SqlProxy]:
    """A proxy to the database of that address, for as long as the block runs."""
    proxy = SqlProxy(target)
    proxy.heal()
    server = await asyncio.start_server(proxy.serve, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    address = address_of(target)
    proxy.url = target.replace(f"{address.host}:{address.port}", f"{LOOPBACK}:{port}")
    try:
        yield proxy
    finally:
        server.close()
        proxy.heal()
        proxy.sever()
        await server.wait_closed()


def reply_ends(replies: bytes) -> list[int]:
    """Where each packet of the database's protocol ends in what it sent."""
    ends, at = [], 0
    while at + 4 <= len(replies):
        at += 4 + int.from_bytes(replies[at : at + 3], "little")
        ends.append(at)
    return ends
