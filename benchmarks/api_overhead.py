"""What the REST layer costs over aiohttp itself: POST /jobs?sync=true on a service that answers at once, against a bare
handler that reads the body and returns the same bytes.

One server process holds both; each case is measured in turns, as CPU time of the server per request (which other load on
the machine does not change much) and as round-trip time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from datetime import UTC, datetime

import psutil
from aiohttp import web

from benchmarks.measure import Effort, Section, Series
from jobserver.api import make_app
from jobserver.model import JobRecord, JobSpec, JobState
from jobserver.service import Submission, Submitted

AT = datetime(2024, 1, 1, tzinfo=UTC)
RESULT = '{"a":2,"b":2,"c":1,"see":1}'
JOB = JobRecord(
    "job-1",
    "cid",
    "ctx",
    JobSpec("m.C", ()),
    JobState.FINISHED,
    AT,
    started_at=AT,
    ended_at=AT,
    result=RESULT,
)
JSON_BODY = b'{"input":{"string":"a b c a b see"}}'
HOCON_BODY = b"input.string = a b c a b see"
BARE = "bare aiohttp"


class InstantService:
    """Answers every submission with the same finished job."""

    async def submit(self, submission: Submission) -> Submitted:
        return Submitted(JOB)


async def bare(request: web.Request) -> web.Response:
    """The floor: a body in, bytes out."""
    await request.read()
    return web.Response(
        body=f'{{"jobId":"job-1","result":{RESULT}}}'.encode(), content_type="application/json"
    )


def serve(ours: socket.socket, floor: socket.socket) -> None:
    """Both applications in one process, until it is terminated."""

    async def run() -> None:
        plain = web.Application()
        plain.router.add_post("/jobs", bare)
        for app, listener in ((make_app(InstantService()), ours), (plain, floor)):  # type: ignore[arg-type]
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()

    asyncio.run(run())


def request(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /jobs?cp=demo&mainClass=m.C&context=ctx&sync=true HTTP/1.1", b"Host: x", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


async def repeat(port: int, data: bytes, times: int) -> list[float]:
    """Round-trip seconds of the same request on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r", 1)[0]))
        taken.append(time.perf_counter() - started)
    writer.close()
    return taken


async def measure(server: psutil.Process, ours: int, floor: int, effort: Effort) -> list[Series]:
    """Round trips and CPU per request of each case; the first turn warms up."""
    cases = {
        BARE: (floor, request(JSON_BODY)),
        "JSON body": (ours, request(JSON_BODY)),
        "JSON body with key": (ours, request(JSON_BODY, b"Idempotency-Key: k1")),
        "HOCON body": (ours, request(HOCON_BODY)),
    }
    trips, cpu = _series(list(cases), "round trip", "s"), _series(list(cases), "server CPU a request", "µs")
    requests = effort.times(400, 50)
    for turn in range(effort.rounds_of(10) + 1):
        for name, (port, data) in cases.items():
            before = sum(server.cpu_times()[:2])
            taken = await repeat(port, data, requests)
            if turn:
                cpu[name].values.append((sum(server.cpu_times()[:2]) - before) / requests * 1e6)
                trips[name].values += taken
    return [*trips.values(), *cpu.values()]


def _series(names: list[str], what: str, unit: str) -> dict[str, Series]:
    bare = Series(f"{BARE}, {what}", unit)
    return {BARE: bare} | {
        name: Series(f"{name}, {what}", unit, baseline=bare) for name in names if name != BARE
    }


def run(effort: Effort) -> Section:
    """Both applications in one server process, in turns."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    process = multiprocessing.get_context("fork").Process(target=serve, args=listeners)
    process.start()
    try:
        ports = [listener.getsockname()[1] for listener in listeners]
        series = asyncio.run(measure(psutil.Process(process.pid), ports[0], ports[1], effort))
    finally:
        process.terminate()
        process.join()
    return Section(
        "The REST layer alone",
        "POST /jobs?sync=true on a service that answers at once, against a bare aiohttp handler, in one process.",
        series,
    )
