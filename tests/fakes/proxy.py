"""A TCP proxy between two parts of a cluster, which cuts them off from each other: by reset, or by silence; and heals.

`TcpProxy` belongs to an event loop; `Proxies` runs several in a thread of its own, for tests that are not asynchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

LOOPBACK = "127.0.0.1"
Who = Callable[[int], str | None]
"""Which client has this local port; None when it is not known (any more)."""


class Cut(Enum):
    """How two parts are cut off."""

    RESET = (
        "reset"  # connections end by RST, new ones are refused (or reset at once, where others may connect)
    )
    SILENCE = "silence"  # nothing arrives any more, also no end


@dataclass(eq=False)
class _Passage:
    """One connection and its other half. While `open` is not set nothing passes, in either direction."""

    who: str | None
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                _reset(writer)


class TcpProxy:
    """Passes bytes to `upstream` (host, port). `who` tells clients apart, so that one of them can be cut off alone."""

    def __init__(self, upstream: tuple[str, int], who: Who = lambda port: None) -> None:
        self.upstream = upstream
        self._who = who
        self._passages: set[_Passage] = set()
        self._server: asyncio.Server | None = None
        self._cut: Cut | None = None
        self._whom: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.port = 0

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Listens; at the same port again after it has been closed."""
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self, how: Cut, whom: str | None = None) -> None:
        """Cuts everybody off, or one client."""
        self._cut, self._whom = how, whom
        if how is Cut.RESET and whom is None and self._server is not None:
            self._server.close()
            self._server = None
        for passage in list(self._passages):
            if self._is_cut(passage.who):
                passage.open.clear()
                if how is Cut.RESET:
                    passage.reset()

    def reset(self) -> None:
        """Ends the present connections by RST."""
        for passage in list(self._passages):
            passage.reset()

    async def heal(self) -> None:
        """Everything passes again; what was held back by silence arrives."""
        self._cut = None
        for passage in self._passages:
            passage.open.set()
        if self._server is None:
            await self.start()

    async def close(self) -> None:
        """Ends all connections."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for passage in list(self._passages):
            passage.open.set()
            passage.reset()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _is_cut(self, who: str | None) -> bool:
        return self._cut is not None and self._whom in (None, who)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        passage = _Passage(self._who(writer.get_extra_info("peername")[1]), writer)
        self._passages.add(passage)
        try:
            await self._pass(passage, reader)
        finally:
            self._passages.discard(passage)
            passage.reset()

    async def _pass(self, passage: _Passage, reader: asyncio.StreamReader) -> None:
        if self._is_cut(passage.who):
            if self._cut is Cut.RESET:
                return
        else:
            passage.open.set()
        await passage.open.wait()
        if self._closed:
            return
        try:
            back, passage.server = await asyncio.open_connection(*self.upstream)
        except OSError:
            return  # nobody there: reset, as near to a refusal as a proxy comes
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, passage.server, passage))
            both.create_task(_pump(back, passage.client, passage))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passage: _Passage) -> None:
    try:
        while data := await reader.read(2**16):
            await passage.open.wait()
            writer.write(data)
            await writer.drain()
        await passage.open.wait()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        await passage.open.wait()
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection by RST."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxies:
    """Proxies in a thread of their own; every call returns when it has taken effect."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._proxies: list[TcpProxy] = []

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Proxies]:
        """All proxies end with the block."""
        proxies = cls()
        proxies._thread.start()
        try:
            yield proxies
        finally:
            for proxy in proxies._proxies:
                proxies._run(proxy.close())
            proxies._loop.call_soon_threadsafe(proxies._loop.stop)
            proxies._thread.join()
            proxies._loop.close()

    def open(self, upstream: tuple[str, int], who: Who = lambda port: None) -> TcpProxy:
        """A proxy that listens."""
        proxy = TcpProxy(upstream, who)
        self._run(proxy.start())
        self._proxies.append(proxy)
        return proxy

    @contextlib.contextmanager
    def cut(self, how: Cut, *proxies: TcpProxy, whom: str | None = None) -> Iterator[None]:
        """These proxies are cut for as long as the block lasts."""
        for proxy in proxies:
            self._run(proxy.cut(how, whom))
        try:
            yield
        finally:
            for proxy in proxies:
                self._run(proxy.heal())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
