"""Links between servers over HTTP: the shell around `ha/peerlinks.py`, and what it answers to the others.

Each server dials every other announced one at its advertised URL and keeps a WebSocket open on which nothing is sent after the
greeting: so it ends only by what the other side's kernel says (EOF, reset), never by a timeout of ours. Questions go by
calls of their own. The routes are mounted behind the check of the cluster's secret; the secret goes along as a header.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from ha.coordination import ServerInfo
from ha.deaths import Died
from ha.peerlinks import (
    Action,
    AskDrivers,
    AskOthers,
    Connect,
    Connected,
    DriverSaid,
    Ended,
    Event,
    LinkPhase,
    OtherLife,
    OthersSaid,
    PeerLink,
    Refused,
    Sight,
    TakenDown,
    TellDead,
    TellOwnerLost,
    Unclear,
    begin,
    sight_of,
    step,
)

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2.0
"""Seconds until a connection must have been greeted; later is no refusal, but no answer."""
ASK_TIMEOUT = 0.05
"""Seconds another server has to tell of its link; it is asked again with the next attempt to connect."""
CLOSE_TIMEOUT = 1.0
"""Seconds a leaving server waits for the others to say goodbye."""

AskTheDrivers = Callable[[ServerInfo, Callable[[str], None]], Awaitable[None]]
"""Asks the drivers of a server's contexts, and calls back with the id of each context whose driver has lost that server."""

_CLOSING = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=CLOSE_TIMEOUT)
_NOBODY_THERE = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
Key = tuple[str, str]
"""Server id and incarnation."""


@dataclass(slots=True)
class _Peer:
    info: ServerInfo
    state: PeerLink = field(default_factory=PeerLink)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class PeerLinks:
    """The links of one server: a `Deaths` that sees other machines, too. Create and use it inside the event loop."""

    def __init__(
        self,
        me: ServerInfo,
        headers: Mapping[str, str],
        ask_drivers: AskTheDrivers,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        ask_timeout: float = ASK_TIMEOUT,
    ) -> None:
        self._me = me
        self._ask_drivers = ask_drivers
        self._connect_timeout = connect_timeout
        self._ask_timeout = ask_timeout
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._peers: dict[Key, _Peer] = {}
        self._accepted: set[web.WebSocketResponse] = set()
        self._died: Died = _nobody_listens

    # Deaths

    def telling(self, died: Died) -> PeerLinks:
        """Tells of proven deaths from now on."""
        self._died = died
        return self

    def watch(self, servers: Mapping[str, ServerInfo]) -> None:
        """Keeps a link to each of these lives, and to no other."""
        announced = {(one.id, one.incarnation): one for one in servers.values() if one.id != self._me.id}
        for key in self._peers.keys() - announced.keys():
            self._drop(self._peers.pop(key))
        for key, info in announced.items():
            known = self._peers.get(key)
            if known is None:
                state, actions = begin()
                peer = self._peers[key] = _Peer(info, state)
                self._carry_out(peer, actions)
            else:
                known.info = info

    def close(self) -> None:
        """Watches nothing any more. What others hold stays until the HTTP application is shut down."""
        self._died = _nobody_listens
        for peer in self._peers.values():
            self._drop(peer)
        self._peers.clear()

    async def stop(self) -> None:
        """Closes what is left of the connections."""
        self.close()
        await self._session.close()

    @property
    def phases(self) -> Mapping[str, LinkPhase]:
        """What is known of the announced servers, by id."""
        return {peer.info.id: peer.state.phase for peer in self._peers.values()}

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
        peer = self._peers.get((request.match_info["server"], request.match_info["incarnation"]))
        return web.json_response({"sight": sight_of(peer.state if peer else None).value})

    async def _say_goodbye(self, _app: web.Application) -> None:
        """A server that leaves says so: its links are taken down, they do not end."""
        await asyncio.gather(
            *(socket.close(code=aiohttp.WSCloseCode.GOING_AWAY) for socket in set(self._accepted))
        )

    # The machine

    def _feed(self, peer: _Peer, event: Event) -> None:
        if self._peers.get((peer.info.id, peer.info.incarnation)) is not peer:
            return
        before = peer.state.phase
        peer.state, actions = step(peer.state, event)
        if peer.state.phase is not before:
            loud = LinkPhase.SUSPECTED in (before, peer.state.phase)
            log.log(
                logging.INFO if loud else logging.DEBUG,
                "server %s: %s → %s: %s",
                peer.info.id,
                before,
                peer.state.phase,
                _SENTENCES[type(event)],
            )
        self._carry_out(peer, actions)

    def _carry_out(self, peer: _Peer, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Connect(after=after):
                    self._spawn(peer, self._hold_link(peer, after))
                case AskOthers(round=number):
                    self._spawn(peer, self._ask_others(peer, number))
                case AskDrivers(round=number):
                    self._spawn(peer, self._ask_the_drivers(peer, number))
                case TellDead():
                    self._died(peer.info)
                case TellOwnerLost(context_id=context_id):
                    self._died(peer.info, context_id)

    def _spawn(self, peer: _Peer, work: Any) -> None:
        task = asyncio.create_task(work, name=f"link-{peer.info.id}")
        peer.tasks.add(task)
        task.add_done_callback(peer.tasks.discard)

    def _drop(self, peer: _Peer) -> None:
        for task in list(peer.tasks):
            task.cancel()

    # Connecting

    async def _hold_link(self, peer: _Peer, after: float) -> None:
        """One attempt; when it succeeds, the link until its end."""
        await asyncio.sleep(after)
        try:
            async with asyncio.timeout(self._connect_timeout):
                socket = await self._session.ws_connect(
                    f"{peer.info.url}/internal/link", autoping=False, timeout=_CLOSING
                )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._feed(peer, _failure(error))
            return
        try:
            greeted = await self._greeting(peer, socket)
            self._feed(peer, greeted)
            if isinstance(greeted, Connected):
                self._feed(peer, await _end_of(socket))
        finally:
            await socket.close()

    async def _greeting(self, peer: _Peer, socket: aiohttp.ClientWebSocketResponse) -> Event:
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
        if server != peer.info.id:
            log.warning(
                "at %s, the address of server %s, server %s answers", peer.info.url, peer.info.id, server
            )
            return Unclear()
        return Connected() if incarnation == peer.info.incarnation else OtherLife()

    # Asking

    async def _ask_others(self, peer: _Peer, number: int) -> None:
        others = [one.info for one in self._peers.values() if one.info.id != peer.info.id]
        answers = await asyncio.gather(*(self._sight(other, peer.info) for other in others))
        sights = tuple(sight for sight in answers if sight is not None)
        self._feed(peer, OthersSaid(number, sights, len(answers) - len(sights)))

    async def _sight(self, other: ServerInfo, of: ServerInfo) -> Sight | None:
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

    async def _ask_the_drivers(self, peer: _Peer, number: int) -> None:
        await self._ask_drivers(
            peer.info, lambda context_id: self._feed(peer, DriverSaid(number, context_id))
        )


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


def _nobody_listens(_server: ServerInfo, _context_id: str | None = None) -> None:
    return None


_SENTENCES: Mapping[type, str] = {
    Connected: "the link is up",
    Ended: "the link ended by EOF or reset",
    TakenDown: "the link was taken down",
    Refused: "a new connection is refused",
    OtherLife: "a new connection meets another incarnation",
    Unclear: "a new connection gets no clear answer, which proves nothing",
    OthersSaid: "no other server has a link to it",
    DriverSaid: "a driver has lost it",
}
