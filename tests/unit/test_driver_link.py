"""The owner's end of a driver's connection, on the event loop that servers run on."""

import asyncio
import struct
from socket import SO_LINGER, SOL_SOCKET

import pytest
import uvloop

from jobserver.contexts.link import DriverLink, LinkBroken
from jobserver.model import DriverRecord
from jobserver.protocol import VERSION, Request, frame


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
