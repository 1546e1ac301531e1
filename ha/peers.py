"""Links between servers over HTTP: how `ha/peerwatch.py` connects and asks, and what it answers to the others.

Each server dials every other announced one at its advertised URL and keeps a WebSocket open on which nothing is sent after the
greeting: so it ends only by what the other side's kernel says (EOF, reset), never by a timeout of ours. Questions go by
calls of their own. The routes are mounted behind the check of the cluster's secret; the secret goes along as a header.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from ha.coordination import ServerInfo
from ha.peerlinks import Connected, Ended, Event, OtherLife, Refused, Sight, TakenDown, Unclear
from ha.peerwatch import ASK_TIMEOUT, CONNECT_TIMEOUT, AskTheDrivers, Feed, PeerWatch

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds a leaving server waits for the others to say goodbye."""

_CLOSING = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=CLOSE_TIMEOUT)
_NOT_PROVEN = 401
_NOBODY_THERE = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


class PeerLinks(PeerWatch):
    """The links of one server. Create and use it inside the event loop."""

    def __init__(
        self,
        me: ServerInfo,
        headers: Mapping[str, str],
        ask_drivers: AskTheDrivers,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        ask_timeout: float = ASK_TIMEOUT,
    ) -> None:
        super().__init__(me, ask_drivers)
        self._connect_timeout = connect_timeout
        self._ask_timeout = ask_timeout
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._accepted: set[web.WebSocketResponse] = set()
        self._strangers: set[str] = set()

    async def stop(self) -> None:
        """Closes what is left of the connections; what others hold, the HTTP application's shutdown ends."""
        self.close()
        await self._session.close()

    @property
    def accepted(self) -> int:
        """How many others hold a link to this server."""
        return len(self._accepted)

    # What the others ask

    def add_routes(self, app: web.Application) -> None:
        """Where the others connect and ask; to an application that checks the secret."""
        app.router.add_get("/link", self._accept)
        app.router.add_get("/links/{server}/{incarnation}", self._tell_sight)
        app.on_shutdown.append(self._say_goodbye)

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT)
        await socket.prepare(request)
        self._accepted.add(socket)
        try:
            await socket.send_json({"server": self._me.id, "incarnation": self._me.incarnation})
            async for _ in socket:
                pass
        except ConnectionError:
            pass  # the other side is gone, which is its own affair
        finally:
            self._accepted.discard(socket)
        return socket

    async def _tell_sight(self, request: web.Request) -> web.Response:
        seen = self.seen(request.match_info["server"], request.match_info["incarnation"])
        return web.json_response({"sight": seen.value})

    async def _say_goodbye(self, _app: web.Application) -> None:
        """A server that leaves says so: its links are taken down, they do not end."""
        await asyncio.gather(
            *(socket.close(code=aiohttp.WSCloseCode.GOING_AWAY) for socket in set(self._accepted))
        )

    # Connecting

    async def dial(self, info: ServerInfo, feed: Feed) -> None:
        """One attempt; when it succeeds, the link until its end."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                socket = await self._session.ws_connect(
                    f"{info.url}/internal/link", autoping=False, timeout=_CLOSING
                )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == _NOT_PROVEN:
                self._tell_stranger(info)
            feed(_failure(error))
            return
        try:
            greeted = await self._greeting(info, socket)
            feed(greeted)
            if isinstance(greeted, Connected):
                feed(await _end_of(socket))
        finally:
            await socket.close()

    def _tell_stranger(self, info: ServerInfo) -> None:
        """Once for each life of the other: it is tried again every second."""
        if info.incarnation not in self._strangers:
            self._strangers.add(info.incarnation)
            log.error(
                "server %s at %s has another secret than this one, so neither hears the other: give all servers the same"
                " cluster.secret or cluster.secret_file and start them again",
                info.id,
                info.url,
            )

    async def _greeting(self, info: ServerInfo, socket: aiohttp.ClientWebSocketResponse) -> Event:
        try:
            async with asyncio.timeout(self._connect_timeout):
                message = await socket.receive()
        except TimeoutError:
            return Unclear()
        if message.type is aiohttp.WSMsgType.CLOSED:
            return Refused()
        if message.type is not aiohttp.WSMsgType.TEXT:
            return Unclear()
        try:
            said = json.loads(message.data)
            server, incarnation = said["server"], said["incarnation"]
        except (ValueError, KeyError, TypeError):
            return Unclear()
        if server != info.id:
            log.warning("at %s, the address of server %s, server %s answers", info.url, info.id, server)
            return Unclear()
        return Connected() if incarnation == info.incarnation else OtherLife()

    # Asking

    async def sight(self, other: ServerInfo, of: ServerInfo) -> Sight | None:
        """None when it does not say."""
        url = f"{other.url}/internal/links/{of.id}/{of.incarnation}"
        try:
            async with (
                asyncio.timeout(self._ask_timeout),
                self._session.get(url, allow_redirects=False) as response,
            ):
                return Sight((await response.json())["sight"]) if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError):
            return None


def _failure(error: Exception) -> Event:
    """Only what the other side's kernel says is a refusal: a timeout, a status, a name that is not found are none."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Refused()
    return Refused() if isinstance(error, OSError) and error.errno in _NOBODY_THERE else Unclear()


async def _end_of(socket: aiohttp.ClientWebSocketResponse) -> Event:
    """Reads until the end. A goodbye arrives as a message; EOF and reset arrive as a socket that is closed without one."""
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.CLOSED:
            return Ended()
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR):
            return TakenDown()
