"""Rows of a DataFrame in the format that `Accept` asks for: what is kept, what is sent, what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobserver.model import JobRecord, JobSpec, JobState, ResultFormat
from jobserver.stored_results import StoredResult
from tests.contract.conftest import Rest
from tests.fakes.service import FakeService

AT = datetime(2024, 5, 29, tzinfo=UTC)
ARROW, PARQUET = ResultFormat.ARROW, ResultFormat.PARQUET
ROWS = b"ARROW1" * 1000
SHOWN = '{"schema":[],"format":"x","rowCount":7,"truncated":false}'


def finished(fake: FakeService, form: ResultFormat, result: str | None = None) -> JobRecord:
    """A job whose rows are kept so, or whose result is this text."""
    stored = StoredResult(len(ROWS), "a" * 64, form, SHOWN)
    fake.stored[stored.digest] = ROWS
    job = JobRecord("j1", "ctx-id", "ctx", JobSpec("sql", (), result_format=form), JobState.FINISHED, AT)
    return fake.put_job(replace(job, attempt=1, ended_at=AT, result=result or stored.reference))


@pytest.mark.parametrize("form", [ARROW, PARQUET])
async def test_rows_are_sent_in_the_format_in_which_they_are_kept(
    rest: Rest, fake: FakeService, form: ResultFormat
) -> None:
    finished(fake, form)
    reply = await rest("GET", "/jobs/j1/result", headers={"Accept": form.media_type})
    assert (reply.status, reply.type, reply.text.encode()) == (200, form.media_type, ROWS)
    assert reply.headers["Content-Length"] == str(len(ROWS))
    part = await rest("GET", "/jobs/j1/result", headers={"Accept": form.media_type, "Range": "bytes=0-5"})
    assert (part.status, part.text) == (206, "ARROW1")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/vnd.apache.arrow.stream;q=0.1, */*"]
)
async def test_who_prefers_json_is_told_what_the_rows_are(rest: Rest, fake: FakeService, accept: str) -> None:
    finished(fake, ARROW)
    reply = await rest("GET", "/jobs/j1/result", headers={"Accept": accept})
    assert (reply.status, reply.type, reply.text) == (200, "application/json", SHOWN)
    assert reply.headers["Vary"] == "Accept"
    assert (await rest("GET", "/jobs/j1")).json["result"]["rowCount"] == 7


async def test_rows_that_are_kept_in_another_format_are_a_406_with_a_sentence(
    rest: Rest, fake: FakeService
) -> None:
    finished(fake, ARROW)
    reply = await rest("GET", "/jobs/j1/result", headers={"Accept": PARQUET.media_type})
    assert (reply.status, reply.json["status"], reply.json["jobId"]) == (406, "ERROR", "j1")
    assert (
        reply.json["result"]
        == f"the result of job j1 is kept as {ARROW.media_type}, not as {PARQUET.media_type}"
    )


async def test_a_result_in_json_says_how_its_rows_can_be_had_otherwise(rest: Rest, fake: FakeService) -> None:
    finished(fake, ResultFormat.JSON, '{"a":1}')
    reply = await rest("GET", "/jobs/j1/result", headers={"Accept": ARROW.media_type})
    assert reply.status == 406
    assert (
        f"POST /jobs with Accept: {ARROW.media_type} keeps the rows of a DataFrame so" in reply.json["result"]
    )
    assert (await rest("GET", "/jobs/j1/result", headers={"Accept": "text/html"})).status == 406


async def test_without_a_result_nothing_is_said_of_formats(rest: Rest, fake: FakeService) -> None:
    job = JobRecord("j1", "c", "ctx", JobSpec("sql", ()), JobState.RUNNING, AT)
    fake.put_job(job)
    assert (await rest("GET", "/jobs/j1/result", headers={"Accept": ARROW.media_type})).status == 404


async def test_a_submission_carries_the_format(rest: Rest, fake: FakeService) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={context}"
    body = '{"input": {"string": "a"}}'
    for accept, wanted in [(None, "json"), ("text/html", "json"), (PARQUET.media_type, "parquet")]:
        reply = await rest("POST", path, body, {"Accept": accept} if accept else None)
        assert (reply.status, reply.type) == (202, "application/json")
        assert fake.submissions[-1].result_format == wanted


async def test_a_sync_job_without_rows_is_a_406_that_names_it_unless_json_will_do(
    rest: Rest, fake: FakeService
) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={context}&sync=true"
    body = '{"input": {"string": "a"}}'
    refused = await rest("POST", path, body, {"Accept": ARROW.media_type})
    assert (refused.status, refused.json["status"]) == (406, "ERROR")
    assert f"GET /jobs/{refused.json['jobId']}/result has it" in refused.json["result"]
    both = await rest("POST", path, body, {"Accept": f"{ARROW.media_type}, application/json;q=0.1"})
    assert (both.status, both.json["result"]) == (200, {"a": 1})


async def test_a_failed_sync_job_is_told_in_json_whatever_was_asked_for(
    rest: Rest, fake: FakeService
) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.Failing&context={context}&sync=true"
    reply = await rest("POST", path, "", {"Accept": ARROW.media_type})
    assert (reply.status, reply.json["status"]) == (200, "ERROR")
