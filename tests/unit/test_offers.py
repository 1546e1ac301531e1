"""Jobs offered by one server to another, over real connections."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from socket import SO_LINGER, SOL_SOCKET
from unittest.mock import Mock

import aiohttp
import pytest
import uvloop
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobserver.api import offers
from jobserver.api.internal import InternalRoutes
from jobserver.api.job_records import accepted_bytes, offer_of
from jobserver.api.offers import OfferDesk, OfferLink
from jobserver.api.peers import HttpPeers
from jobserver.contexts.waiters import Accepted, Offer, Until
from jobserver.errors import OwnerUnavailable, QueueFull
from jobserver.model import JobRecord, JobSpec, JobState

SPEC = JobSpec("m:f", (), "{}", 3)


def offer(job_id: str) -> Offer:
    return Offer(JobRecord(job_id, "c1", "ctx", SPEC, JobState.QUEUED, datetime.now(UTC)), 10)


class Owner:
    """Accepts each offer when the test says so, or at once what it was told before."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Until, float]] = []
        self.came = asyncio.Event()
        self._ends: dict[str, asyncio.Future[str]] = {}

    def end(self, job_id: str) -> asyncio.Future[str]:
        """To be given the job's result, or what goes wrong."""
        return self._ends.setdefault(job_id, asyncio.get_running_loop().create_future())

    async def submit(self, asked: Offer, until: Until, seconds: float) -> Accepted:
        job = asked.record
        self.asked.append((job.id, until, seconds))
        self.came.set()
        result = await self.end(job.id)
        return Accepted(replace(job, state=JobState.FINISHED, result=result), done=True)


@asynccontextmanager
async def linked(owner):
    app = web.Application()
    internal = web.Application()
    OfferDesk(owner.submit).add_routes(internal)
    app.add_subapp("/internal", internal)
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
        link = OfferLink(session, str(server.make_url("")).rstrip("/"))
        yield link, server
        await link.close()


async def until_asked(owner, count):
    async with asyncio.timeout(10):
        while len(owner.asked) < count:
            owner.came.clear()
            await owner.came.wait()


async def test_answers_come_in_the_order_of_the_jobs_ends():
    owner = Owner()
    async with linked(owner) as (link, _):
        slow = asyncio.create_task(link.submit(offer("slow"), Until.ENDED, 20.0))
        await until_asked(owner, 1)
        owner.end("quick").set_result("2")
        quick = await link.submit(offer("quick"), Until.ACCEPTED, 5.0)
        assert (quick.job.id, quick.job.result, quick.done) == ("quick", "2", True)
        assert not slow.done()
        owner.end("slow").set_result("1")
        assert (await slow).job.result == "1"
    assert owner.asked == [("slow", Until.ENDED, 20.0), ("quick", Until.ACCEPTED, 5.0)]


@pytest.mark.parametrize(
    ("error", "told"),
    [(QueueFull("it is full"), "it is full"), (ZeroDivisionError("secret"), "the owner failed")],
)
async def test_an_offer_that_is_not_taken_is_answered_with_the_reason(error, told):
    owner = Owner()
    async with linked(owner) as (link, _):
        owner.end("j").set_exception(error)
        with pytest.raises(OwnerUnavailable, match=told) as refused:
            await link.submit(offer("j"), Until.ENDED, 20.0)
        assert "secret" not in refused.value.message
        owner.end("k").set_result("1")
        assert (await link.submit(offer("k"), Until.ENDED, 20.0)).job.result == "1"


async def test_at_the_connections_end_no_offer_is_left_waiting_and_the_next_one_connects_anew():
    owner = Owner()
    async with linked(owner) as (link, server):
        waiting = [asyncio.create_task(link.submit(offer(name), Until.ENDED, 20.0)) for name in ("a", "b")]
        await until_asked(owner, 2)
        for handler in list(server.handler.connections):
            handler.transport.abort()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [OwnerUnavailable, OwnerUnavailable]
        owner.end("c").set_result("3")
        assert (await link.submit(offer("c"), Until.ENDED, 20.0)).job.result == "3"


async def test_a_server_that_leaves_ends_what_waits_for_it_at_once():
    owner = Owner()
    async with linked(owner) as (link, server):
        waiting = asyncio.create_task(link.submit(offer("a"), Until.ENDED, 20.0))
        await until_asked(owner, 1)
        async with asyncio.timeout(10):
            await server.close()
            with pytest.raises(OwnerUnavailable):
                await waiting
            with pytest.raises(OwnerUnavailable, match="does not answer"):
                await link.submit(offer("b"), Until.ENDED, 20.0)


async def test_an_owner_that_does_not_answer_in_its_time_is_unavailable(monkeypatch):
    monkeypatch.setattr(offers, "GRACE", 0.05)
    owner = Owner()
    async with linked(owner) as (link, _):
        with pytest.raises(OwnerUnavailable, match="TimeoutError"):
            await link.submit(offer("late"), Until.ENDED, 0.05)
        owner.end("late").set_result("1")  # its answer meets nobody
        owner.end("j").set_result("2")
        assert (await link.submit(offer("j"), Until.ENDED, 20.0)).job.result == "2"


async def test_who_gives_up_leaves_the_connection_to_the_others():
    owner = Owner()
    async with linked(owner) as (link, _):
        given_up = asyncio.create_task(link.submit(offer("a"), Until.ENDED, 20.0))
        other = asyncio.create_task(link.submit(offer("b"), Until.ENDED, 20.0))
        await until_asked(owner, 2)
        given_up.cancel()
        owner.end("b").set_result("2")
        assert (await other).job.result == "2"
        with pytest.raises(asyncio.CancelledError):
            await given_up


async def test_a_server_of_an_older_release_is_called_for_each_job():
    calls = []

    async def take(request):
        calls.append((request.match_info["context"], dict(request.query)))
        job = offer_of(await request.read()).record
        return web.Response(body=accepted_bytes(Accepted(job, done=False)))

    app = web.Application()
    app.router.add_post("/internal/contexts/{context}/jobs", take)
    async with TestServer(app, host="127.0.0.1") as server:
        peers = HttpPeers("secret")
        url = str(server.make_url("")).rstrip("/")
        accepted = await peers.submit(url, "c1", offer("j"), Until.ENDED, 5.0)
        await peers.close()
    assert (accepted.job.id, accepted.done) == ("j", False)
    assert calls == [("c1", {"seconds": "5.0", "until": "ended"})]


@pytest.mark.parametrize("given", ["wrong", ""])
async def test_without_the_clusters_secret_nothing_is_offered(given):
    owner, none = Owner(), Mock()
    owner.end("j").set_result("1")
    routes = InternalRoutes(owner, none, none, none, incarnation="i1", secret="right")  # type: ignore[arg-type]  # only offers reach it
    app = web.Application()
    app.add_subapp("/internal", routes.application())
    async with TestServer(app, host="127.0.0.1") as server:
        url, strange, own = str(server.make_url("")).rstrip("/"), HttpPeers(given), HttpPeers("right")
        with pytest.raises(OwnerUnavailable, match="401"):
            await strange.submit(url, "c1", offer("j"), Until.ENDED, 5.0)
        assert not owner.asked
        assert (await own.submit(url, "c1", offer("j"), Until.ENDED, 5.0)).job.result == "1"
        await strange.close()
        await own.close()


LARGE = '"' + "x" * 2_000_000 + '"'
"""Ten of them are more than the kernel holds of one connection."""


@asynccontextmanager
async def clogged():
    """A link whose owner reads nothing until it is told to, and offers that fill it."""
    owner = Owner()
    async with linked(owner) as (link, server):
        owner.end("first").set_result("1")
        await link.submit(offer("first"), Until.ENDED, 20.0)
        transports = [handler.transport for handler in server.handler.connections]
        for transport in transports:
            transport.pause_reading()
        small = [offer(f"j{n}") for n in range(10)]
        large = [replace(one, record=replace(one.record, spec=replace(SPEC, config=LARGE))) for one in small]

        def read():
            for transport in transports:
                transport.resume_reading()

        try:
            yield owner, link, large, read
        finally:
            read()


async def test_an_owner_that_reads_nothing_costs_no_offer_more_than_its_time(monkeypatch):
    """Frozen, or behind a cut link: once the kernel's buffers are full, to send waits for it, too."""
    monkeypatch.setattr(offers, "GRACE", 0.05)
    async with clogged() as (_, link, asked, _), asyncio.timeout(offers.HEARTBEAT / 2):
        calls = [link.submit(one, Until.ENDED, 0.05) for one in asked]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends] == [OwnerUnavailable] * len(asked)


async def test_who_gives_up_while_the_owner_reads_nothing_takes_no_other_along():
    async with clogged() as (owner, link, asked, read), asyncio.timeout(offers.HEARTBEAT):
        tasks = [asyncio.create_task(link.submit(one, Until.ENDED, 20.0)) for one in asked]
        for one in asked:
            owner.end(one.record.id).set_result("1")
        for _ in range(10):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        read()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError, Accepted] * (len(asked) // 2)
        # what nobody waited for any more before it went out was not offered
        given_up = {one.record.id for one in asked[::2]}
        assert len(given_up.intersection(job for job, *_ in owner.asked)) < len(given_up)


async def test_a_server_leaves_although_another_reads_none_of_its_answers():
    owner = Owner()
    async with linked(owner) as (link, server):
        calls = [asyncio.create_task(link.submit(offer(f"j{n}"), Until.ENDED, 20.0)) for n in range(10)]
        await until_asked(owner, len(calls))
        (mine,) = [handler.transport for handler in server.handler.connections]
        theirs = link._socket.result()._conn.transport
        theirs.pause_reading()
        for n in range(len(calls)):
            owner.end(f"j{n}").set_result(LARGE)
        async with asyncio.timeout(10):
            while mine.get_write_buffer_size() < len(LARGE):
                await asyncio.sleep(0)
            await server.close()
        theirs.resume_reading()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert OwnerUnavailable in {type(end) for end in ends}


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_an_offer_in_any_step_of_a_connections_reset_finds_an_owner_that_is_gone(loop):
    async def offered():
        owner = Owner()
        async with linked(owner) as (link, server):
            calls = [asyncio.create_task(link.submit(offer("first"), Until.ENDED, 20.0))]
            await until_asked(owner, 1)
            reading = link._reading
            for handler in list(server.handler.connections):
                # Closed without lingering, the kernel resets it.
                handler.transport.get_extra_info("socket").setsockopt(
                    SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0)
                )
                handler.transport.abort()
            while not reading.done():
                calls.append(asyncio.create_task(link.submit(offer("next"), Until.ENDED, 20.0)))
                await asyncio.sleep(0)
            owner.end("next").set_result("1")
            ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} <= {OwnerUnavailable, Accepted}
        assert type(ends[0]) is OwnerUnavailable

    unheard = []
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
        runner.run(offered())
    assert not unheard
