"""Jobs offered by one server to another, over real connections."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobserver.api import offers
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


async def test_without_the_clusters_secret_nothing_is_offered():
    async def refuse(request):
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/internal/offers", refuse)
    async with TestServer(app, host="127.0.0.1") as server:
        peers = HttpPeers("wrong")
        with pytest.raises(OwnerUnavailable, match="401"):
            await peers.submit(str(server.make_url("")).rstrip("/"), "c1", offer("j"), Until.ENDED, 5.0)
        await peers.close()
