"""The owner's end of the connection to a driver: requests with answers, events, and the news of its end.

A link belongs to the event loop. It never reconnects: a broken link is the driver's loss, and the ownership machine decides.
What is sent in one turn of the loop goes out in one piece: each piece costs both sides a call of the kernel, and the driver a
thread that wakes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, Self

from jobserver.contexts.clock import now, within
from jobserver.errors import DriverFailed
from jobserver.model import DriverRecord
from jobserver.protocol import (
    PIECE,
    VERSION,
    Event,
    Frames,
    Message,
    ProtocolError,
    Request,
    frame,
    proof_of,
    read_frame,
)

log = logging.getLogger(__name__)

EventHandler = Callable[[Event, Message], None]

SOON = 0.005
"""Seconds that `tell_soon` may wait for other messages, to be sent together with them."""


def _nothing() -> None:
    return None


class RefusedByDriver(DriverFailed):
    """The driver answered and said no; `code` is one of protocol.Refused."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the driver refused ({code}): {message}")
        self.code = code
        self.sentence = message


class LinkBroken(DriverFailed):
    """The connection ended, or no answer came in time: the outcome of the request is unknown."""


class DriverLink:
    """An authenticated connection. What `listen` is given and `on_closed` are called from the loop, `on_closed` exactly once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._number = 0
        self._closed: str | None = None
        self.heard_at = now()
        self._on_event: EventHandler | None = None
        self._unheard: list[tuple[Event, Message]] = []
        self.on_closed: Callable[[str], None] = lambda why: None
        self._task: asyncio.Task[None] | None = None
        self._unsent: list[bytes] = []
        self._turn: asyncio.Handle | None = None
        self._later: asyncio.Handle | None = None

    @classmethod
    async def connect(cls, driver: DriverRecord, *, timeout: float) -> Self:
        """Connects and proves the secret. Raises LinkBroken."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(driver.host, driver.port, limit=2**20)
                challenge = await read_frame(reader)
                if challenge.get("version") != VERSION:
                    raise LinkBroken(
                        f"the driver speaks protocol {challenge.get('version')}, this server {VERSION}"
                    )
                nonce = str(challenge.get("nonce"))
                proof = {"t": "proof", "version": VERSION, "proof": proof_of(driver.secret, nonce)}
                writer.write(frame(proof))
                await writer.drain()
        except (OSError, RuntimeError, asyncio.IncompleteReadError, ProtocolError) as error:  # see _send
            raise LinkBroken(
                f"no connection to the driver at {driver.host}:{driver.port}: {error}"
            ) from error
        else:
            proven, writer = writer, None
            return cls.over(reader, proven, driver.driver_id)
        finally:
            if writer is not None:  # refused, too slow, or given up
                writer.close()

    @classmethod
    def over(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, driver_id: str) -> Self:
        """A link on a connection whose peer has checked the secret."""
        link = cls(reader, writer)
        link._task = asyncio.create_task(link._read(), name=f"driver-link-{driver_id}")
        return link

    def listen(self, handler: EventHandler) -> None:
        """Events go to the handler from now on, those first that came since the connection began.

        The outcome of a job may come right behind the reply to `adopt`, before anybody is ready to commit it.
        """
        self._on_event = handler
        unheard, self._unheard = self._unheard, []
        for event, message in unheard:
            handler(event, message)

    @property
    def closed(self) -> bool:
        return self._closed is not None

    async def request(
        self, kind: Request, *, timeout: float, sent: Callable[[], None] = _nothing, **fields: Any
    ) -> Message:
        """The driver's answer; `sent` is called once the request has left this process.

        Raises RefusedByDriver, or LinkBroken when the outcome is unknown.
        """
        if self._closed is not None:
            raise LinkBroken(self._closed)
        self._number += 1
        number = self._number
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            self._send({"t": kind.value, "n": number, **fields})
            if sent is not _nothing:
                await self._leave()
                sent()
            reply = await within(answer, timeout)
        except TimeoutError as error:
            raise LinkBroken(f"the driver gave no answer to {kind} within {timeout:g} s") from error
        finally:
            self._pending.pop(number, None)
        if not reply.get("ok"):
            raise RefusedByDriver(str(reply.get("refused")), str(reply.get("message")))
        return reply

    def tell(self, kind: Request, **fields: Any) -> None:
        """Sends without asking for an answer; lost with the connection."""
        if self._closed is None:
            self._send({"t": kind.value, **fields})

    def tell_soon(self, kind: Request, **fields: Any) -> None:
        """The same, together with what is sent next, or after SOON."""
        if self._closed is None:
            self._unsent.append(frame({"t": kind.value, **fields}))
            if self._turn is None and self._later is None:
                self._later = asyncio.get_running_loop().call_later(SOON, self._send_all)

    def _send(self, message: Message) -> None:
        self._unsent.append(frame(message))
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._send_all)

    def _send_all(self) -> None:
        for handle in (self._turn, self._later):
            if handle is not None:
                handle.cancel()
        self._turn = self._later = None
        data, self._unsent = b"".join(self._unsent), []
        try:
            self._writer.write(data)
        except (
            OSError,
            RuntimeError,
        ) as error:  # uvloop's word for one that was reset and whose end is not read yet
            self._end(f"the connection to the driver broke: {error}")

    async def _leave(self) -> None:
        """Returns when the kernel has what was sent, as far as the peer reads; uvloop gives it that at the end of a turn."""
        self._send_all()
        await asyncio.sleep(0)

    async def until_closed(self, timeout: float) -> None:
        """Returns at the connection's end. Raises TimeoutError."""
        if self._task is not None:
            await asyncio.wait_for(asyncio.shield(self._task), timeout)

    async def close(self) -> None:
        """Ends the connection from this side; `on_closed` is not called."""
        self.on_closed = lambda why: None
        self._end("closed by this server")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])  # unlike awaiting it, tells its cancellation from ours

    async def _read(self) -> None:
        why = "the driver closed the connection"
        frames = Frames()
        try:
            while data := await self._reader.read(PIECE):
                self.heard_at = now()
                for message in frames.messages(data):
                    self._dispatch(message)
            raise asyncio.IncompleteReadError(data, None)
        except (OSError, asyncio.IncompleteReadError) as error:
            why = f"EOF from the driver ({type(error).__name__})"
        except ProtocolError as error:
            why = f"the driver broke the protocol: {error}"
        finally:
            self._end(why)

    def _dispatch(self, message: Message) -> None:
        if message["t"] == "event":
            try:
                event = Event(str(message.get("e")))
            except ValueError as error:
                raise ProtocolError(f"an event named {message.get('e')!r}") from error
            if self._on_event is None:
                self._unheard.append((event, message))
            else:
                self._on_event(event, message)
            return
        answer = self._pending.get(message.get("n", -1))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _end(self, why: str) -> None:
        if self._closed is not None:
            return
        self._closed = why
        if self._unsent:
            self._send_all()
        self._writer.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(LinkBroken(why))
        self.on_closed(why)


class Connect(Protocol):
    """How a driver is reached: `DriverLink.connect`, or a simulation's."""

    async def __call__(self, driver: DriverRecord, *, timeout: float) -> DriverLink:
        """Connects and proves the secret. Raises LinkBroken."""
