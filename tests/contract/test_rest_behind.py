"""Answers that need the service behind the API arranged: states that are hard to reach, and errors of every kind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS
from jobserver.errors import (
    BadRequest,
    ContextInitFailed,
    CoordinationUnavailable,
    DriverFailed,
    InvalidJobType,
    JobLoadingFailed,
    JobServerError,
    ObjectRefused,
    OutcomeUnknown,
    OwnerUnavailable,
    QueueFull,
    StoreUnavailable,
    Superseded,
    TimedOut,
    ValidationFailed,
)
from jobserver.model import (
    ContextRecord,
    ContextState,
    ErrorInfo,
    Failover,
    JobRecord,
    JobSpec,
    JobState,
    NamedObjectInfo,
    ObjectDeed,
    ObjectOrder,
)
from jobserver.stored_results import StoredResult
from tests.contract.conftest import JOBS, Rest
from tests.fakes.service import FakeService

AT = datetime(2013, 5, 29, 0, 0, 0, 7_000, tzinfo=UTC)
ERROR = ErrorInfo("driver died", "x.Y", "a\n\tb")


def job(state: JobState, **changes: object) -> JobRecord:
    record = JobRecord("j1", "ctx-id", "ctx", JobSpec("m.C", ()), state, AT, started_at=AT)
    return replace(record, **changes)


@pytest.mark.parametrize(
    ("record", "tail"),
    [
        (job(JobState.QUEUED, started_at=None), '"duration":"Job not done yet","status":"QUEUED"}'),
        (job(JobState.RUNNING), '"duration":"Job not done yet","status":"RUNNING"}'),
        (
            job(JobState.RESTARTING, error=ERROR),
            '"duration":"Job not done yet","status":"RESTARTING",'
            '"result":{"message":"driver died","errorClass":"x.Y","stack":"a\\n\\tb"}}',
        ),
        (
            job(JobState.FINISHED, ended_at=AT + timedelta(milliseconds=6341), result='{"a" : [1.50]}'),
            '"duration":"6.341 secs","status":"FINISHED","result":{"a" : [1.50]}}',
        ),
        (
            job(JobState.FINISHED, ended_at=AT + timedelta(minutes=5)),
            '"duration":"300.0 secs","status":"FINISHED"}',
        ),
        (
            job(JobState.KILLED, ended_at=AT, error=ERROR),
            '"duration":"0.0 secs","status":"KILLED",'
            '"result":{"message":"driver died","errorClass":"x.Y","stack":"a\\n\\tb"}}',
        ),
    ],
)
async def test_a_job_is_shown_to_the_byte_in_every_state(
    rest: Rest, fake: FakeService, record: JobRecord, tail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.put_job(record)
    reply = await rest("GET", "/jobs/j1")
    start = reply.json["startTime"]
    assert datetime.fromisoformat(start) == AT
    head = f'{{"jobId":"j1","startTime":"{start}","classPath":"m.C","context":"ctx","contextId":"ctx-id",'
    assert reply.text == head + tail


async def test_a_job_whose_stored_result_was_removed_is_shown_without_it(
    rest: Rest, fake: FakeService
) -> None:
    stored = StoredResult(7, "a" * 64)
    fake.put_job(job(JobState.FINISHED, ended_at=AT, result=stored.reference))
    assert (await rest("GET", "/jobs/j1/result")).status == 404
    reply = await rest("GET", "/jobs/j1")
    assert (reply.status, reply.json["status"], "result" in reply.json) == (200, "FINISHED", False)
    fake.stored[stored.digest] = b'"large"'
    assert (await rest("GET", "/jobs/j1")).json["result"] == "large"


async def test_a_context_is_shown_to_the_byte(rest: Rest, fake: FakeService) -> None:
    context = ContextRecord("id1", "ctx", {}, ContextState.ERROR, False, AT, ended_at=AT + timedelta(hours=1))
    fake.put_context(replace(context, last_failover=Failover(AT, "adopted", 0.25)))
    assert (await rest("GET", "/contexts/ctx")).text == (
        '{"id":"id1","name":"ctx","startTime":"2013-05-29T00:00:00.007Z","endTime":"2013-05-29T01:00:00.007Z",'
        '"state":"ERROR","epoch":3,"owner":"server-1","standbys":[{"server":"server-2","kind":"hot"}],'
        '"lastFailover":{"at":"2013-05-29T00:00:00.007Z","kind":"adopted","seconds":0.25},"data":null}'
    )


async def test_a_running_context_shows_its_application(rest: Rest, fake: FakeService) -> None:
    shown = (await rest("GET", f"/contexts/{await rest.context()}")).json
    assert (shown["applicationId"], shown["url"]) == ("local-1337", "http://127.0.0.1:4040")


async def test_context_settings_of_the_body_win_over_those_of_the_query(
    rest: Rest, fake: FakeService
) -> None:
    body = "ignored = 1\nspark.context-settings { num-cpu-cores = 4, spark.executor.cores = 2, cp = [a, b] }"
    reply = await rest("POST", "/contexts/c1?num-cpu-cores=1&memory-per-node=1g&timeout=5&x=", body)
    assert reply.status == 200
    assert fake.created_with["c1"] == {
        "num-cpu-cores": 4,
        "memory-per-node": "1g",
        "timeout": "5",
        "x": "",
        "spark.executor.cores": 2,
        "cp": ["a", "b"],
    }


async def test_a_context_class_path_of_unknown_urls_is_refused(rest: Rest, fake: FakeService) -> None:
    reply = await rest("POST", "/contexts/c1?dependent-jar-uris=hdfs://h/a.jar")
    assert (reply.status, reply.json["status"]) == (400, "CONTEXT INIT ERROR: Malformed URL")
    assert fake.created_with == {}


async def test_a_context_that_stops_slowly_is_a_202_with_an_address_and_no_body(
    rest: Rest, fake: FakeService
) -> None:
    fake.stop_slowly = True
    name = await rest.context()
    reply = await rest("DELETE", f"/contexts/{name}?force=false")
    assert (reply.status, reply.text) == (202, "")
    assert reply.headers["Location"] == f"/contexts/{name}?force=false"
    upload = await rest.upload()
    refused = await rest("POST", f"/jobs?cp={upload}&mainClass=contract_jobs.Nothing&context={name}")
    assert (refused.status, refused.json["result"]) == (409, "Context stop in progress")


async def test_a_context_is_deleted_with_its_checkpoint_unless_that_is_to_be_kept(
    rest: Rest, fake: FakeService
) -> None:
    gone, kept = await rest.context(), await rest.context()
    assert (await rest("DELETE", f"/contexts/{gone}")).status == 200
    assert (await rest("DELETE", f"/contexts/{kept}?keep-checkpoint=true")).status == 200
    assert fake.kept == [kept]
    assert (await rest("DELETE", f"/contexts/{kept}?keep-checkpoint=perhaps")).status == 400


@pytest.mark.parametrize(
    ("query", "wait", "words"),
    [("", True, "Context reset"), ("&sync=no", False, "Context reset requested")],
)
async def test_reset_waits_unless_told_not_to(
    rest: Rest, fake: FakeService, query: str, wait: bool, words: str
) -> None:
    reply = await rest("PUT", f"/contexts?reset=reboot{query}")
    assert (reply.status, reply.json["result"], fake.resets) == (200, words, [wait])


async def test_named_objects_are_shown_with_their_details(rest: Rest, fake: FakeService) -> None:
    name = await rest.context()
    fake.objects[name] = [NamedObjectInfo("people", "dataframe", "3-7", {"rows": 5})]
    reply = await rest("GET", f"/contexts/{name}/objects")
    assert reply.text == '[{"name":"people","kind":"dataframe","version":"3-7","rows":5}]'


async def test_one_named_object_is_shown_destroyed_and_then_absent(rest: Rest, fake: FakeService) -> None:
    name = await rest.context()
    fake.objects[name] = [NamedObjectInfo("a/b c", "value", "3-7", {"bytes": 5})]
    path = f"/contexts/{name}/objects/a%2Fb%20c"
    assert (await rest("GET", path)).text == '{"name":"a/b c","kind":"value","version":"3-7","bytes":5}'
    gone = await rest("DELETE", path)
    assert (gone.status, gone.json["result"]) == (200, "Named object a/b c destroyed")
    for method in ("GET", "DELETE"):
        reply = await rest(method, path)
        assert (reply.status, reply.json["status"]) == (404, "ERROR")


async def test_a_refresh_waits_as_long_as_asked_and_is_202_while_it_goes_on(
    rest: Rest, fake: FakeService
) -> None:
    name = await rest.context()
    path = f"/contexts/{name}/objects/people"
    fake.objects[name] = [NamedObjectInfo("people", "dataframe", "3-7", {"refreshing": False})]
    assert (await rest("POST", f"{path}?refresh&timeout=3")).status == 200
    assert fake.object_orders == [ObjectOrder("people", ObjectDeed.REFRESH, 3.0)]
    fake.objects[name] = [NamedObjectInfo("people", "dataframe", "3-7", {"refreshing": True})]
    assert (await rest("POST", f"{path}?refresh")).status == 202
    await rest("POST", f"{path}?revert=2-1")
    assert fake.object_orders[-1] == ObjectOrder("people", ObjectDeed.REVERT, version="2-1")


@pytest.mark.parametrize(
    ("query", "error", "status", "text"),
    [
        ("", None, 400, "?refresh"),
        ("?refresh&revert=1", None, 400, "?refresh"),
        ("?refresh&timeout=-1", None, 400, "timeout must be from 0"),
        ("?refresh", ObjectRefused("it was materialized"), 409, "it was materialized"),
        ("?refresh", OwnerUnavailable("being taken over"), 503, "being taken over"),
    ],
)
async def test_what_cannot_be_done_to_an_object_is_refused_with_a_sentence(
    rest: Rest, fake: FakeService, query: str, error: Exception | None, status: int, text: str
) -> None:
    name = await rest.context()
    if error is not None:
        fake.script["named_object"].append(error)
    reply = await rest("POST", f"/contexts/{name}/objects/people{query}")
    assert reply.status == status
    assert text in reply.json["result"]
    assert ("Retry-After" in reply.headers) == (status == 503)


async def test_a_full_context_is_a_503_with_the_contract_s_title(rest: Rest, fake: FakeService) -> None:
    fake.slots = 1
    upload, name = await rest.upload(), await rest.context()
    path = f"/jobs?cp={upload}&mainClass=contract_jobs.Sleeping&context={name}"
    assert (await rest("POST", path)).status == 202
    reply = await rest("POST", path)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.json == {
        "status": "NO SLOTS AVAILABLE",
        "result": f"Too many running jobs (1) for job context '{name}'",
    }


async def test_what_a_submission_asks_for_reaches_the_service(rest: Rest, fake: FakeService) -> None:
    upload = await rest.upload()
    code = f"cp={upload}&mainClass=contract_jobs.Nothing"
    body = "jobserver { max-attempts = 5, on-failover = fail, priority = -2 }"
    key = {"Idempotency-Key": "k1"}
    await rest("POST", f"/jobs?{code}", body, key)
    await rest(
        "POST", f"/jobs?{code}&maxAttempts=1&onFailover=rerun&priority=7&sync=on&timeout=99999999", body
    )
    first, second = fake.submissions
    assert (first.max_attempts, first.on_failover, first.priority) == (5, "fail", -2)
    assert (first.sync, first.wait_seconds, first.principal) == (False, 10.0, "anonymous")
    assert first.idempotency_key == "k1"
    assert first.request_digest is not None
    assert (second.max_attempts, second.on_failover, second.priority) == (1, "rerun", 7)
    assert (second.sync, second.wait_seconds) == (True, 86_400.0)
    assert (second.idempotency_key, second.request_digest) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        "jobserver = 3",
        "jobserver.max-attempts = 0",
        "jobserver.max-attempts = true",
        "jobserver.max-attempts = 1.5",
        'jobserver.priority = "high"',
        "jobserver.on-failover = maybe",
        "jobserver.on-failover = [1]",
    ],
)
async def test_wrong_settings_of_a_job_in_its_body_are_refused(
    rest: Rest, fake: FakeService, body: str
) -> None:
    reply = await rest("POST", "/jobs?cp=a&mainClass=b", body)
    assert (reply.status, reply.json["status"]) == (400, "ERROR")
    assert "must be" in reply.json["result"]
    assert fake.submissions == []


@pytest.mark.parametrize(
    ("error", "status", "title", "retry"),
    [
        (BadRequest("no"), 400, "ERROR", None),
        (InvalidJobType("Invalid job type for this context"), 400, "ERROR", None),
        (JobLoadingFailed("no", "x.Y", "stack"), 400, "JOB LOADING FAILED", None),
        (ValidationFailed("no"), 400, "VALIDATION FAILED", None),
        (QueueFull("full"), 503, "NO SLOTS AVAILABLE", "1"),
        (StoreUnavailable("sql"), 503, "ERROR", "1"),
        (CoordinationUnavailable("zk"), 503, "ERROR", "1"),
        (OwnerUnavailable("restarting"), 503, "ERROR", "1"),
        (OutcomeUnknown("lost"), 503, "ERROR", "1"),
        (Superseded("old"), 503, "ERROR", "1"),
        (TimedOut("late", "j9"), 500, "ERROR", None),
        (ContextInitFailed("no"), 500, "ERROR", None),
        (DriverFailed("no"), 500, "ERROR", None),
    ],
)
async def test_every_error_of_the_tree_has_its_answer(
    rest: Rest, fake: FakeService, error: JobServerError, status: int, title: str, retry: str | None
) -> None:
    fake.script["submit"].append(error)
    reply = await rest("POST", "/jobs?cp=a&mainClass=b")
    assert (reply.status, reply.json["status"]) == (status, title)
    assert reply.headers.get("Retry-After") == retry


@pytest.mark.parametrize(
    ("method", "call", "title"),
    [("POST", "create_context", "CONTEXT INIT ERROR"), ("DELETE", "delete_context", "CONTEXT DELETE ERROR")],
)
async def test_a_driver_that_fails_is_titled_by_what_was_asked(
    rest: Rest, fake: FakeService, method: str, call: str, title: str
) -> None:
    fake.script[call].append(ContextInitFailed("no") if method == "POST" else DriverFailed("no"))
    reply = await rest(method, "/contexts/c1")
    assert (reply.status, reply.json["status"], reply.json["result"]["message"]) == (500, title, "no")


async def test_a_sick_server_says_what_is_wrong(rest: Rest, fake: FakeService) -> None:
    fake.trouble = "SQL has not answered for 12 s"
    reply = await rest("GET", "/healthz")
    assert reply.status == 500
    assert reply.json == {"status": "ERROR", "result": "SQL has not answered for 12 s"}


async def test_an_error_nobody_foresaw_is_counted_and_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeService()
    fake.script["health"].append(RuntimeError("secret detail"))
    app = make_app(fake)
    async with TestClient(TestServer(app)) as client:
        reply = await client.get("/healthz")
        assert (reply.status, await reply.text()) == (500, "There was an internal server error.")
    assert app[COUNTERS].internal_errors == 1
    assert "an error nobody foresaw: GET /healthz" in caplog.text


async def test_routes_added_to_the_application_come_before_the_dialect() -> None:
    async def own(request: web.Request) -> web.Response:
        return web.Response(text="mine")

    inner = web.Application()
    inner.router.add_get("/ping", own)
    app = make_app(FakeService())
    app.add_subapp("/internal", inner)
    async with TestClient(TestServer(app)) as client:
        assert await (await client.get("/internal/ping")).text() == "mine"
        assert (await client.get("/healthz")).status == 200


# size and time


async def test_a_body_over_the_limit_is_a_413_announced_or_not(
    rest: Rest, fake: FakeService, limits: ApiLimits
) -> None:
    too_much = b"PK\x03\x04" + b"x" * limits.max_body
    announced = await rest("POST", "/binaries/a", too_much, {"Content-Type": "application/zip"})
    assert announced.status == 413
    assert announced.text.startswith(
        "The request content was malformed:\nEntityStreamSizeException: incoming entity size "
        f"({len(too_much)}) exceeded size limit ({limits.max_body} bytes)!"
    )

    async def chunks():
        for _ in range(8):
            yield b"x" * (limits.max_body // 4)

    async with aiohttp.ClientSession() as session, session.post(f"{rest.base}/jobs", data=chunks()) as reply:
        assert reply.status == 413
        assert "exceeded size limit" in await reply.text()


async def test_a_body_that_does_not_come_ends_with_408(fake: FakeService) -> None:
    app = make_app(fake, ApiLimits(read_timeout=0.05))
    async with TestServer(app, host="127.0.0.1") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")


async def test_a_python_file_over_its_limit_is_refused(
    rest: Rest, fake: FakeService, limits: ApiLimits
) -> None:
    source = JOBS + b"#" * limits.max_python_source
    reply = await rest("POST", "/binaries/a", source, {"Content-Type": "text/x-python"})
    assert (reply.status, reply.json["status"]) == (400, "ERROR")
    assert "must not be larger" in reply.json["result"]


async def test_a_long_body_that_is_no_json_is_refused(
    rest: Rest, fake: FakeService, limits: ApiLimits
) -> None:
    reply = await rest("POST", "/jobs", "a = " + "x" * limits.max_hocon)
    assert reply.status == 400
    assert "must be a plain JSON object" in reply.json["result"]


async def test_the_charset_of_the_content_type_is_honoured(rest: Rest, fake: FakeService) -> None:
    upload = await rest.upload()
    path = f"/jobs?cp={upload}&mainClass=contract_jobs.Nothing"
    latin = {"Content-Type": "text/plain; charset=ISO-8859-1"}
    assert (await rest("POST", path, 'a = "caf\u00e9"'.encode("latin-1"), latin)).status == 202
    assert fake.submissions[-1].config == {"a": "caf\u00e9"}
    unknown = await rest("POST", path, "a = 1", {"Content-Type": "text/plain; charset=rot13"})
    assert unknown.status == 400
    assert "charset" in unknown.json["result"]
