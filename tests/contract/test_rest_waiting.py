"""Waiting for jobs, and not fetching twice what does not change: `wait`, `Prefer`, `ETag`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobserver.model import JobRecord, JobState, OutcomeKind
from tests.contract.conftest import Rest
from tests.fakes.service import FakeService


def ends(job: JobRecord) -> JobRecord:
    return replace(
        job, state=JobState.FINISHED, result="7", ended_at=job.submitted_at, outcome=OutcomeKind.FINISHED
    )


async def sleeping(rest: Rest) -> str:
    return str((await rest.run("Sleeping")).json["jobId"])


@pytest.mark.parametrize(
    ("query", "seconds"), [("30s", 30.0), ("30", 30.0), ("250ms", 0.25), ("2m", 120.0), ("1.5", 1.5)]
)
async def test_a_job_can_be_waited_for(rest: Rest, fake: FakeService, query: str, seconds: float) -> None:
    job = await sleeping(rest)
    fake.ends_meanwhile = ends
    reply = await rest("GET", f"/jobs/{job}?wait={query}")
    assert (reply.status, reply.json["status"], reply.json["result"]) == (200, "FINISHED", 7)
    assert fake.waits == [seconds]


async def test_a_wait_that_is_over_shows_the_job_as_it_is(rest: Rest) -> None:
    job = await sleeping(rest)
    reply = await rest("GET", f"/jobs/{job}?wait=50ms")
    assert (reply.status, reply.json["status"]) == (200, "RUNNING")
    assert "ETag" not in reply.headers
    await rest("DELETE", f"/jobs/{job}")


async def test_a_wait_is_cut_to_the_limit(rest: Rest, fake: FakeService) -> None:
    job = await sleeping(rest)
    await rest("GET", f"/jobs/{job}?wait=999999h")
    assert fake.waits == [86_400.0]


@pytest.mark.parametrize("wait", ["soon", "-1", "1e9", "1d", "%201", "1" * 40])
async def test_a_wait_that_is_no_duration_is_a_400_text(rest: Rest, wait: str) -> None:
    reply = await rest("GET", f"/jobs/x?wait={wait}")
    assert reply.status == 400
    assert reply.text.startswith("The query parameter 'wait' was malformed:")


async def test_waiting_for_an_unknown_job_is_a_404_at_once(rest: Rest) -> None:
    assert (await rest("GET", "/jobs/none?wait=60s")).status == 404


async def test_a_preferred_wait_is_followed_and_said_so(rest: Rest, fake: FakeService) -> None:
    job = await sleeping(rest)
    fake.ends_meanwhile = ends
    reply = await rest("GET", f"/jobs/{job}", None, {"Prefer": "respond-async, wait=5"})
    assert (reply.json["status"], reply.headers["Preference-Applied"]) == ("FINISHED", "wait=5")


async def test_a_submission_that_prefers_to_wait_gets_the_value_or_the_202(
    rest: Rest, fake: FakeService
) -> None:
    name = await rest.upload()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.Sleeping&context={await rest.context()}"
    waits = {"Prefer": "wait=3"}
    running = await rest("POST", path, "", waits)
    assert (running.status, running.json["status"]) == (202, "STARTED")
    assert running.headers["Preference-Applied"] == "wait=3"
    fake.ends_meanwhile = ends
    ended = await rest("POST", path, "", waits)
    assert (ended.status, ended.json["result"], list(ended.json)) == (200, 7, ["jobId", "result"])
    plain = await rest("POST", path, "")
    assert (plain.status, "Preference-Applied" in plain.headers) == (202, False)


async def test_a_submission_that_is_refused_is_refused_whatever_it_prefers(rest: Rest) -> None:
    name = await rest.upload()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={await rest.context()}"
    reply = await rest("POST", path, "", {"Prefer": "wait=3"})
    assert (reply.status, reply.json["status"]) == (400, "VALIDATION FAILED")


async def test_the_answer_of_an_ended_job_is_not_sent_twice(rest: Rest) -> None:
    reply = await rest.run("Nothing", query="&sync=true")
    path = f"/jobs/{reply.json['jobId']}"
    first = await rest("GET", path)
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await rest("GET", path, None, {"If-None-Match": known})
        assert (again.status, again.text, again.headers["ETag"]) == (304, "", tag)
    other = await rest("GET", path, None, {"If-None-Match": '"other"'})
    assert (other.status, other.text) == (200, first.text)


async def test_the_tag_of_a_binary_changes_with_every_upload(rest: Rest) -> None:
    name = await rest.upload()
    first = await rest("GET", f"/binaries/{name}")
    tag = first.headers["ETag"]
    assert (await rest("GET", f"/binaries/{name}", None, {"If-None-Match": tag})).status == 304
    await rest("POST", f"/binaries/{name}", b"x = 1\n", {"Content-Type": "text/x-python"})
    assert (await rest("GET", f"/binaries/{name}", None, {"If-None-Match": tag})).status == 200
