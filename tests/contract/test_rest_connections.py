"""Floods and slow clients: refused in words, ended in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import io
import resource
import socket
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS
from jobserver.api.connections import listening
from tests.fakes.service import FakeService

MOST = 20
CROWD = 10_000
BURST = 500
ASK = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
HEALTHY = b'{"status":"SUCCESS"}'
SHORT = 0.3
"""Seconds that heads and bodies may take."""


@dataclass
class Door:
    port: int
    app: web.Application

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with opened(SHORT) as one:
        yield one


@contextlib.asynccontextmanager
async def opened(keepalive: float) -> AsyncIterator[Door]:
    """A server with a bound; every test ends with the check that it met no error of ours."""
    app = make_app(FakeService(), ApiLimits(max_body=100_000, read_timeout=SHORT))
    runner = web.AppRunner(app, keepalive_timeout=keepalive, shutdown_timeout=1.0)
    await runner.setup()
    async with listening(runner, "127.0.0.1", 0, MOST) as port:
        yield Door(port, app)
        assert app[COUNTERS].internal_errors == 0
    await runner.cleanup()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The head of one answer, with its body if the connection ends after it."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    return head + (await asyncio.wait_for(reader.read(), 10) if b"Connection: close" in head else b"")


async def test_more_clients_than_the_limit_are_told_to_come_back() -> None:
    async with opened(60.0) as door:  # nobody is hung up on meanwhile: each that is served keeps its place
        clients = [await door.open() for _ in range(5 * MOST)]
        for _, writer in clients:
            writer.write(ASK)
        answers = await asyncio.gather(*(answer(reader) for reader, _ in clients), return_exceptions=True)
        for _, writer in clients:
            writer.close()
    served = [each for each in answers if isinstance(each, bytes) and each.startswith(b"HTTP/1.1 200")]
    refused = [each for each in answers if isinstance(each, bytes) and each.startswith(b"HTTP/1.1 503")]
    assert len(served) == MOST
    assert refused
    assert all(b"Retry-After: 1" in each and each.endswith(b"another server.") for each in refused)
    others = [each for each in answers if each not in served and each not in refused]
    assert all(isinstance(each, (ConnectionError, asyncio.IncompleteReadError)) for each in others)


async def test_ten_thousand_clients_at_once_are_refused_and_the_others_served() -> None:
    told: Counter[str] = Counter()
    with many_files(CROWD + 500), contextlib.ExitStack() as crowd:
        async with opened(60.0) as door:
            reader, kept = await door.open()
            for _ in range(0, CROWD, BURST):
                told += await asyncio.to_thread(burst, crowd, door.port)
                kept.write(ASK)
                assert (await answer(reader)).startswith(b"HTTP/1.1 200"), "who was there is served meanwhile"
                await reader.readexactly(len(HEALTHY))
            kept.close()
    assert told.total() == CROWD
    assert told["200"] <= MOST + BURST, "the bound, and the burst in which it was reached"
    assert told["503"] > CROWD / 2, f"most are told so: {told}"


def burst(crowd: contextlib.ExitStack, port: int) -> Counter[str]:
    """What so many clients are told that come at once, and stay."""
    told: Counter[str] = Counter()
    clients = [
        crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(BURST)
    ]
    for client in clients:
        with contextlib.suppress(ConnectionError):  # hung up on already
            client.sendall(ASK)
    for client in clients:
        try:
            told[client.recv(100)[9:12].decode() or "hung up"] += 1
        except ConnectionError:
            told["hung up"] += 1
    return told


@contextlib.contextmanager
def many_files(count: int) -> Iterator[None]:
    """This process may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= count, (
        f"the limit of open files is {hard}: this needs {count}"
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_places_are_free_again_when_clients_leave(door: Door) -> None:
    opened = [await door.open() for _ in range(MOST)]
    for reader, writer in opened:
        writer.write(ASK)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
    for _ in range(1000):
        reader, writer = await door.open()
        writer.write(ASK)
        found = await answer(reader)
        writer.close()
        if found.startswith(b"HTTP/1.1 200"):
            return
    raise AssertionError("no place became free")


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ", ASK + b"GET /jobs HTTP"],
    ids=["nothing", "half a line", "half a head", "half a second request"],
)
async def test_a_client_that_does_not_finish_its_head_is_hung_up_on(door: Door, sent: bytes) -> None:
    reader, writer = await door.open()
    writer.write(sent)
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /binaries/a HTTP/1.1\r\nHost: a\r\nContent-Type: text/x-python\r\nContent-Length: 1000\r\n\r\nx = ",
        b"POST /data/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST /jobs?cp=a&mainClass=b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
        b"POST /contexts/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    ],
    ids=["upload", "chunked", "job", "context"],
)
async def test_a_body_that_does_not_come_is_a_408_and_stores_nothing(door: Door, head: bytes) -> None:
    reader, writer = await door.open()
    writer.write(head)
    found = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert found.startswith(b"HTTP/1.1 408")
    writer.close()
    reader, writer = await door.open()
    writer.write(b"GET /binaries/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await answer(reader)).startswith(b"HTTP/1.1 404")
    writer.close()


async def test_an_upload_that_is_cut_off_stores_nothing(door: Door) -> None:
    _, writer = await door.open()
    writer.write(
        b"POST /binaries/cut HTTP/1.1\r\nHost: a\r\nContent-Type: text/x-python\r\nContent-Length: 90\r\n\r\nx = 1"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    reader, writer = await door.open()
    writer.write(b"GET /binaries HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await answer(reader)).endswith(b"{}")
    writer.close()


@pytest.mark.parametrize("kind", ["application/python-wheel", "application/java-archive", "application/zip"])
async def test_an_archive_that_would_hurt_who_unpacks_it_is_refused(door: Door, kind: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../etc/cron.d/x", b"x")
    body = out.getvalue()
    head = (
        f"POST /binaries/bad HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    )
    reader, writer = await door.open()
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    found = await answer(reader)
    assert found.startswith(b"HTTP/1.1 400")
    assert b"an entry that leaves it" in found
    writer.close()
