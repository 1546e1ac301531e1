"""Callbacks: from the row of an ended job to the request that tells it, through failures of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobserver.api.callbacks import LEASE_MARGIN, CallbackDelivery, CallbackSettings, GuardedResolver
from jobserver.model import ErrorInfo, JobRecord, JobSpec, JobState, OutcomeKind
from jobserver.saved import Callback, CallbackState
from tests.contract.conftest import Rest
from tests.fakes.database import FakeStore
from tests.fakes.metadata import FakeMetadata
from tests.fakes.service import FakeService

AT = datetime(2024, 5, 29, 12, 0, tzinfo=UTC)
TRIES = 3


class Receiver:
    """The other side: what it was told, and how it answers next."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, Any], str]] = []
        self.answers: list[int] = []
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.told.append((await request.json(), request.headers["Idempotency-Key"]))
        self.reached.set()
        if self.hold is not None:
            await self.hold.wait()
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/end", receiver.take)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/end"))


class Cluster:
    """Servers over one store, and the clock they share."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.now = AT
        self.leads = True
        self.open: list[CallbackDelivery] = []

    def server(self, *, private: bool = True) -> CallbackDelivery:
        metadata = FakeMetadata(self.store)
        made = CallbackDelivery(
            metadata.callbacks,
            metadata,
            CallbackSettings(TRIES, 2.0, private),
            leads=lambda: self.leads,
            now=lambda: self.now,
        )
        self.open.append(made)
        return made

    def put(self, url: str, state: JobState = JobState.FINISHED, **changes: Any) -> None:
        job = JobRecord("j1", "c1", "ctx", JobSpec("m.C", ()), state, AT, **changes)
        self.store.jobs["j1"] = job
        self.store.saved.callbacks["j1"] = Callback("j1", url, CallbackState.PENDING, 0, AT)

    @property
    def row(self) -> Callback:
        return self.store.saved.callbacks["j1"]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    for server in made.open:
        await server.close()


ERROR = ErrorInfo("no", "x.Y", "a\n\tb")
SHOWN = {"message": "no", "errorClass": "x.Y", "stack": "a\n\tb"}


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"state": JobState.FINISHED, "result": '{"a":[1]}'}, {"jobId": "j1", "result": {"a": [1]}}),
        ({"state": JobState.ERROR, "error": ERROR}, {"jobId": "j1", "status": "ERROR", "result": SHOWN}),
        (
            {"state": JobState.ERROR, "error": ERROR, "outcome": OutcomeKind.INVALID},
            {"jobId": "j1", "status": "ERROR", "result": SHOWN},
        ),
        ({"state": JobState.KILLED, "error": ERROR}, {"jobId": "j1", "status": "KILLED", "result": SHOWN}),
    ],
)
async def test_the_end_of_a_job_is_told_with_its_id_and_outcome(
    cluster: Cluster, receiver: Receiver, url: str, job: dict[str, Any], told: dict[str, Any]
) -> None:
    cluster.put(url, **job)
    assert await cluster.server().deliver() == 1
    assert receiver.told == [(told, "j1")]
    assert cluster.row.state is CallbackState.DELIVERED
    assert await cluster.server().deliver() == 0


async def test_a_callback_that_breaks_keeps_no_other_from_being_told(
    cluster: Cluster, receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    cluster.put(url)
    cluster.store.saved.callbacks["j0"] = Callback("j0", url, CallbackState.PENDING, 0, AT)
    cluster.store.jobs["j0"] = replace(cluster.store.jobs["j1"], id="j0")
    server = cluster.server()
    read = server._jobs.job

    async def broken(job_id: str) -> JobRecord | None:
        if job_id == "j0":
            raise RuntimeError("a row in a bad state")
        return await read(job_id)

    monkeypatch.setattr(server._jobs, "job", broken)
    assert await server.deliver() == 1
    assert [told for _, told in receiver.told] == ["j1"]
    assert "a row in a bad state" in caplog.text


async def test_callbacks_go_on_after_a_look_that_broke(
    cluster: Cluster, receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.put(url)
    server = cluster.server()
    due, answers = server._rows.due, iter([RuntimeError("a row in a bad state")])

    async def broken_once(now: Any, limit: int) -> list[Callback]:
        for error in answers:
            raise error
        return await due(now, limit)

    monkeypatch.setattr(server._rows, "due", broken_once)
    monkeypatch.setattr("jobserver.api.callbacks.EVERY", 0.01)
    running = asyncio.create_task(server.run())
    async with asyncio.timeout(10):
        while not receiver.told:
            await asyncio.wait([running], timeout=0.01)
            assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_a_job_that_has_not_ended_is_not_told(cluster: Cluster, receiver: Receiver, url: str) -> None:
    cluster.put(url, JobState.RUNNING)
    assert await cluster.server().deliver() == 0
    assert receiver.told == []


@pytest.mark.parametrize("answer", [500, 404, 302])
async def test_a_refused_callback_is_tried_again_later(
    cluster: Cluster, receiver: Receiver, url: str, answer: int
) -> None:
    cluster.put(url)
    receiver.answers = [answer]
    await cluster.server().deliver()
    assert (cluster.row.state, cluster.row.tries) == (CallbackState.PENDING, 1)
    assert f"the other side answers {answer}" in (cluster.row.last_error or "")
    assert await cluster.server().deliver() == 0
    cluster.now += timedelta(seconds=10)
    assert await cluster.server().deliver() == 1
    assert cluster.row.state is CallbackState.DELIVERED
    assert len(receiver.told) == 2


async def test_a_callback_is_given_up_after_its_last_try_and_says_why(cluster: Cluster, url: str) -> None:
    cluster.put("http://127.0.0.1:1/nobody")
    for _ in range(TRIES):
        assert await cluster.server().deliver() == 1
        cluster.now += timedelta(hours=2)
    assert (cluster.row.state, cluster.row.tries) == (CallbackState.FAILED, TRIES)
    assert "ClientConnectorError" in (cluster.row.last_error or "")
    assert await cluster.server().deliver() == 0


async def test_two_servers_that_both_take_themselves_for_the_leader_call_once(
    cluster: Cluster, receiver: Receiver, url: str
) -> None:
    cluster.put(url)
    made = await asyncio.gather(*(cluster.server().deliver() for _ in range(4)))
    assert sum(made) == 1
    assert len(receiver.told) == 1


async def test_what_a_dead_server_began_is_made_by_the_next_when_its_lease_is_over(
    cluster: Cluster, receiver: Receiver, url: str
) -> None:
    cluster.put(url)
    receiver.hold = asyncio.Event()
    dying = asyncio.create_task(cluster.server().deliver())
    await receiver.reached.wait()
    dying.cancel()
    await asyncio.wait([dying])
    receiver.hold.set()
    assert await cluster.server().deliver() == 0
    cluster.now += timedelta(seconds=2.0 + LEASE_MARGIN)
    assert await cluster.server().deliver() == 1
    assert (cluster.row.state, cluster.row.tries) == (CallbackState.DELIVERED, 2)
    assert receiver.told[0] == receiver.told[1]


async def test_a_name_that_leads_to_a_forbidden_address_is_not_called(
    cluster: Cluster, receiver: Receiver, url: str
) -> None:
    cluster.put(url.replace("127.0.0.1", "localhost"))
    await cluster.server(private=False).deliver()
    assert receiver.told == []
    assert "callbacks.private_addresses" in (cluster.row.last_error or "")
    with pytest.raises(OSError, match="may be called"):
        await GuardedResolver(private=False).resolve("localhost", 80)


async def test_a_submission_keeps_its_callback_url(rest: Rest, fake: FakeService) -> None:
    await rest.run("Nothing", query="&callbackUrl=http%3A%2F%2F127.0.0.1%3A9%2Fend%3Fa%3Db")
    assert fake.submissions[-1].callback_url == "http://127.0.0.1:9/end?a=b"


async def test_a_callback_url_of_another_scheme_is_a_400_in_the_words_of_the_contract(rest: Rest) -> None:
    reply = await rest.run("Nothing", query="&callbackUrl=ftp%3A%2F%2Fh%2Fx")
    assert reply.status == 400
    assert reply.json == {"status": "ERROR", "result": "Callback Url has to be 'http'/'https'"}


async def test_settings_can_forbid_private_addresses_at_the_submission(fake: FakeService) -> None:
    from aiohttp.test_utils import TestClient

    from jobserver.api import ApiLimits, make_app

    app = make_app(fake, replace(ApiLimits(), private_callbacks=False))
    async with TestClient(TestServer(app)) as client:
        reply = await client.post("/jobs?cp=x&mainClass=m.C&callbackUrl=http://10.0.0.1/", data=b"")
        assert reply.status == 400
        assert "private ones only with callbacks.private_addresses" in (await reply.json())["result"]
