"""The owner's end of a driver's connection, on the event loop that servers run on."""

import asyncio
import socket
import struct
from socket import SO_LINGER, SOL_SOCKET

import pytest
import uvloop

from jobserver.contexts.link import DriverLink, LinkBroken
from jobserver.model import DriverRecord
from jobserver.protocol import VERSION, Frames, Request, frame


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_request_in_any_step_of_a_connections_reset_finds_a_broken_link(loop):
    async def challenge(reader, writer):
        writer.write(frame({"t": "challenge", "version": VERSION, "nonce": "n"}))
        await reader.read(1)
        connections.append(writer)

    connections = []

    async def requested():
        server = await asyncio.start_server(challenge, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        driver = DriverRecord("d1", host, port, pid=1, pid_started=1, secret="secret", epoch=1)
        link = await DriverLink.connect(driver, timeout=10)
        closed = asyncio.Event()
        link.on_closed = lambda why: closed.set()
        while not connections:
            await asyncio.sleep(0)
        # Closed without lingering, and with bytes unread: the kernel resets it.
        connections[0].get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        connections[0].transport.abort()
        asked = []
        while not closed.is_set():
            asked.append(asyncio.create_task(link.request(Request.PING, timeout=10)))
            link.tell(Request.ACK)
            await asyncio.sleep(0)
        asked.append(asyncio.create_task(link.request(Request.PING, timeout=10)))
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(end) for end in ends} == {LinkBroken}
        server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(requested())


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_request_that_is_called_sent_has_left_the_process(loop):
    """A server that ends at this very moment has spent its epoch: the driver may read of it."""
    mine, peer = socket.socketpair()
    arrived = []

    async def requested():
        link = DriverLink.over(*await asyncio.open_connection(sock=mine), "d1")
        peer.setblocking(False)
        asked = link.request(
            Request.ADOPT, timeout=10, sent=lambda: arrived.extend(Frames().messages(peer.recv(4096)))
        )
        asking = asyncio.create_task(asked)
        while not arrived and not asking.done():
            await asyncio.sleep(0)
        peer.send(frame({"t": "reply", "n": 1, "ok": True}))
        assert await asking
        await link.close()

    with peer, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(requested())
    assert [message["t"] for message in arrived] == ["adopt"]


class Pieces:
    """A StreamWriter that keeps each piece which it was given."""

    def __init__(self):
        self.written = []
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.written.append(data)

    def close(self):
        self.closed = True

    def kinds(self):
        """The types of the messages in each piece."""
        return [[message["t"] for message in Frames().messages(piece)] for piece in self.written]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def pieces():
    return Pieces()


@pytest.fixture
async def link(pieces):
    made = DriverLink.over(asyncio.StreamReader(), pieces, "d1")
    yield made
    await made.close()


async def test_what_is_sent_in_one_turn_goes_out_in_one_piece_and_in_order(link, pieces):
    asked = asyncio.gather(*(link.request(Request.RUN, timeout=10) for _ in range(2)), return_exceptions=True)
    await asyncio.sleep(0)
    link.tell(Request.KILL)
    await until(lambda: pieces.written)
    link.tell(Request.KILL)
    await until(lambda: len(pieces.written) > 1)
    assert pieces.kinds() == [["run", "run", "kill"], ["kill"]]
    await link.close()
    assert [type(end) for end in await asked] == [LinkBroken, LinkBroken]


async def test_what_may_wait_goes_out_with_what_is_sent_next(link, pieces):
    link.tell_soon(Request.ACK)
    link.tell_soon(Request.ACK)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not pieces.written
    link.tell(Request.KILL)
    await until(lambda: pieces.written)
    assert pieces.kinds() == [["ack", "ack", "kill"]]


async def test_what_may_wait_goes_out_although_nothing_follows(link, pieces):
    link.tell_soon(Request.ACK)
    await until(lambda: pieces.written)
    assert pieces.kinds() == [["ack"]]


async def test_what_was_not_sent_yet_goes_out_before_this_side_closes(link, pieces):
    link.tell(Request.KILL)
    link.tell_soon(Request.ACK)
    await link.close()
    assert pieces.kinds() == [["kill", "ack"]]
    link.tell(Request.KILL)
    link.tell_soon(Request.ACK)
    await asyncio.sleep(0)
    assert len(pieces.written) == 1
