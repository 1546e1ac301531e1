"""Jobs offered to their owner on one kept WebSocket between two servers; offers and answers pass each other on it.

A call over HTTP for each job would cost the server that was asked more than all else that it does for the job. An offer is
`_OFFER` and its JSON; its answer is `_ANSWER` and the JSON of the accepted job, or the sentence why there is none. Where the
connection ends, it is open which offers on it were accepted. The route is mounted behind the check of the cluster's secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections import deque
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from jobserver.api.job_records import accepted_bytes, accepted_of, offer_bytes, offer_of
from jobserver.contexts.clock import within
from jobserver.contexts.waiters import Accepted, Offer, Until
from jobserver.errors import JobServerError, OwnerUnavailable

log = logging.getLogger(__name__)

_OFFER = struct.Struct(">Qd?")
"""Its number on the connection, seconds to wait, whether for the job's end (else for its acceptance)."""
_ANSWER = struct.Struct(">Q?")
"""The number of the offer, whether the job was accepted."""
CONNECT_TIMEOUT = 2.0
HEARTBEAT = 10.0
"""Seconds between pings; a server that is silent for half as long after one counts as gone."""
GRACE = 2.0
"""Seconds an answer may come later than the wait that was asked for."""
CLOSE_TIMEOUT = 1.0
"""Seconds a leaving server waits for the others to say goodbye."""
_CLOSING = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=CLOSE_TIMEOUT)

Submit = Callable[[Offer, Until, float], Awaitable[Accepted]]


class NotSpoken(Exception):
    """The other server is of a release that has no such connection."""


class OfferLink:
    """Offers to one other server. Connects when it is first used, and again after an end. Belongs to the event loop."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._number = 0
        self._answers: dict[int, asyncio.Future[Accepted]] = {}
        self._unsent: deque[tuple[int, bytes]] = deque()
        self._wanted = asyncio.Event()
        self._socket: asyncio.Task[aiohttp.ClientWebSocketResponse] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def submit(self, offer: Offer, until: Until, seconds: float) -> Accepted:
        """The job as its owner accepted it. Raises NotSpoken, and OwnerUnavailable: then it may have been accepted."""
        await self._connected()
        self._number += 1
        number = self._number
        head = _OFFER.pack(number, seconds, until is Until.ENDED)
        data = head + offer_bytes(offer)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._unsent.append((number, data))
        self._wanted.set()
        try:
            return await within(answer, seconds + GRACE)
        except TimeoutError as error:
            raise OwnerUnavailable(f"{self._url} does not answer: TimeoutError") from error
        finally:
            del self._answers[number]

    async def close(self) -> None:
        """Ends the connection, and what waits for answers on it."""
        for task in (self._socket, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def _connected(self) -> None:
        if self._socket is None:
            self._socket = asyncio.create_task(self._connect())
        connecting = self._socket
        try:
            await asyncio.shield(connecting)
        except Exception:
            if self._socket is connecting:
                self._socket = None
            raise
        if self._socket is not connecting:
            raise OwnerUnavailable(f"the connection to {self._url} ended as soon as it was made")

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                socket = await self._session.ws_connect(
                    f"{self._url}/internal/offers", heartbeat=HEARTBEAT, max_msg_size=0, timeout=_CLOSING
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 404:
                raise NotSpoken from error
            raise OwnerUnavailable(f"{self._url} answers {error.status}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise OwnerUnavailable(f"{self._url} does not answer: {type(error).__name__}") from error
        self._reading = asyncio.create_task(self._read(socket), name=f"offers-{self._url}")
        return socket

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        writing = asyncio.create_task(self._write(socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    self._settle(message.data)
        finally:
            self._socket = None
            self._unsent.clear()
            writing.cancel()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(OwnerUnavailable(f"the connection to {self._url} ended"))
            await socket.close()

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Alone: those who wait until an owner reads again all wait for one future of aiohttp's, and who gave up would end it."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._unsent:
                number, data = self._unsent.popleft()
                if number in self._answers:  # else who waited has given up
                    try:
                        await socket.send_bytes(data)
                    except (aiohttp.ClientError, OSError):
                        await socket.close()  # then the reader ends, and all that wait
                        return

    def _settle(self, data: bytes) -> None:
        number, accepted = _ANSWER.unpack_from(data)
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return  # who waited has given up
        try:
            if not accepted:
                raise OwnerUnavailable(f"{self._url}: {data[_ANSWER.size :].decode(errors='replace')}")
            answer.set_result(accepted_of(data[_ANSWER.size :]))
        except OwnerUnavailable as error:
            answer.set_exception(error)
        except ValueError:
            text = f"{self._url} answers something else than an accepted job"
            answer.set_exception(OwnerUnavailable(text))


class OfferDesk:
    """The owner's side: takes offers with `submit`, which raises JobServerError where it cannot."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._sockets: dict[web.WebSocketResponse, asyncio.Transport | None] = {}

    def add_routes(self, app: web.Application) -> None:
        """Where other servers connect; to an application that checks the secret."""
        app.router.add_get("/offers", self._serve)
        app.on_shutdown.append(self._say_goodbye)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, timeout=CLOSE_TIMEOUT)
        await socket.prepare(request)
        self._sockets[socket] = request.transport
        at_work: set[asyncio.Task[None]] = set()
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    task = asyncio.create_task(self._take(socket, message.data))
                    at_work.add(task)
                    task.add_done_callback(at_work.discard)
        finally:
            del self._sockets[socket]
            for task in at_work:  # what was accepted goes on without it
                task.cancel()
        return socket

    async def _take(self, socket: web.WebSocketResponse, data: bytes) -> None:
        number, seconds, ended = _OFFER.unpack_from(data)
        accepted, body = await self._answer(
            data[_OFFER.size :], Until.ENDED if ended else Until.ACCEPTED, seconds
        )
        with contextlib.suppress(ConnectionError):  # the other server has gone
            await socket.send_bytes(_ANSWER.pack(number, accepted) + body)

    async def _answer(self, offer: bytes, until: Until, seconds: float) -> tuple[bool, bytes]:
        try:
            return True, accepted_bytes(await self._submit(offer_of(offer), until, seconds))
        except JobServerError as error:
            return False, error.message.encode(errors="replace")
        except ValueError as error:
            return False, f"the offer cannot be used: {error!r}".encode(errors="replace")
        except Exception:
            # the other server must hear of it, or it would wait for its whole time
            log.exception("an offered job ended in an error nobody foresaw")
            return False, b"the owner failed; its log has the details"

    async def _say_goodbye(self, _app: web.Application) -> None:
        """This server leaves: what others wait for here, they ask the next owner. One that reads nothing is not waited for."""
        known = dict(self._sockets)
        with contextlib.suppress(TimeoutError):
            # the sockets' own limit holds for the other's goodbye, not for the way of ours
            async with asyncio.timeout(2 * CLOSE_TIMEOUT):
                closing = [socket.close(code=WSCloseCode.GOING_AWAY) for socket in known]
                await asyncio.gather(*closing, return_exceptions=True)
        for transport in known.values():
            if transport is not None:
                transport.abort()
