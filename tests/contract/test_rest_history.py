"""What the REST API adds to the contract about the past: lists in pages, histories, configs, the audit, kills by context."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from jobserver.errors import StoreUnavailable
from jobserver.history import JobMove
from jobserver.model import JobRecord, JobSpec, JobState

T0 = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def put_jobs(fake, count=7):
    for number in range(count):
        spec = JobSpec(f"demo.Class{number % 2}", ())
        state = JobState.ERROR if number % 3 == 0 else JobState.FINISHED
        fake.put_job(
            JobRecord(f"j{number}", "c1", "ctx", spec, state, T0 + timedelta(seconds=number), result="1")
        )


def next_of(reply):
    """Path and query of the next page."""
    link = reply.headers["Link"]
    assert link.endswith('>; rel="next"')
    return link[1 : link.index(">")]


async def ids(rest, query):
    reply = await rest("GET", f"/jobs?{query}")
    assert reply.status == 200, reply.text
    return [job["jobId"] for job in reply.json]


# Lists


async def test_a_list_is_read_page_by_page(rest, fake):
    put_jobs(fake)
    path, pages = "/jobs?limit=3&status=finished&status=x", []
    while path is not None:
        reply = await rest("GET", path)
        assert reply.status == 200
        pages.append([job["jobId"] for job in reply.json])
        assert all("result" not in job for job in reply.json)
        path = next_of(reply) if "Link" in reply.headers else None
    assert pages == [["j5", "j4", "j2"], ["j1"]]


async def test_the_next_page_keeps_the_filters_and_forgets_the_offset(rest, fake):
    put_jobs(fake)
    reply = await rest("GET", "/jobs?limit=1&offset=2&class=demo.Class0&context=ctx")
    assert [job["jobId"] for job in reply.json] == ["j2"]
    query = parse_qs(urlsplit(next_of(reply)).query)
    assert set(query) == {"limit", "class", "context", "cursor"}
    assert [job["jobId"] for job in (await rest("GET", next_of(reply))).json] == ["j0"]


async def test_the_last_page_leads_nowhere(rest, fake):
    put_jobs(fake)
    for query in ("limit=7", "limit=0", "limit=3&offset=4", "status=nothing"):
        assert "Link" not in (await rest("GET", f"/jobs?{query}")).headers


async def test_jobs_are_filtered_by_context_class_and_time(rest, fake):
    put_jobs(fake)
    assert await ids(rest, "context=ctx&class=demo.Class1") == ["j5", "j3", "j1"]
    assert await ids(rest, "context=other") == []
    since = (T0 + timedelta(seconds=5)).isoformat()
    assert await ids(rest, f"since={quote(since)}") == ["j6", "j5"]
    assert await ids(rest, f"since={since}") == ["j6", "j5"], "the plus of an offset need not be escaped"
    assert await ids(rest, "until=2026-01-02T04:04:06.678%2B01:00") == ["j0"]
    assert await ids(rest, "since=2027-01-01") == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("cursor=x", "Link header"),
        ("cursor=%ED%B2%80", "Link header"),
        ("since=yesterday", "'since' was malformed"),
        ("until=2026-13-01", "'until' was malformed"),
        ("since=0001-01-01T00:00:00%2B14:00", "'since' was malformed"),
        ("offset=-1", "offset must be from 0"),
        ("offset=1000001", "offset must be from 0"),
    ],
)
async def test_a_place_or_time_that_is_none_is_refused(rest, query, words):
    reply = await rest("GET", f"/jobs?{query}")
    assert reply.status == 400
    assert words in reply.text


# Histories


async def test_the_history_of_a_job_names_states_servers_and_reasons(rest, fake):
    put_jobs(fake, 1)
    fake.histories["j0"] = [
        JobMove(0, JobState.QUEUED, T0, "s1"),
        JobMove(1, JobState.RUNNING, T0 + timedelta(seconds=1), "s2", 3),
        JobMove(1, JobState.ERROR, T0 + timedelta(seconds=2), "s2", 3, "it broke"),
    ]
    reply = await rest("GET", "/jobs/j0/history")
    assert reply.status == 200
    assert reply.json == [
        {"attempt": 0, "state": "QUEUED", "at": "2026-01-02T03:04:05.678Z", "server": "s1"}
        | {"epoch": None, "reason": None},
        {"attempt": 1, "state": "RUNNING", "at": "2026-01-02T03:04:06.678Z", "server": "s2"}
        | {"epoch": 3, "reason": None},
        {"attempt": 1, "state": "ERROR", "at": "2026-01-02T03:04:07.678Z", "server": "s2"}
        | {"epoch": 3, "reason": "it broke"},
    ]


async def test_an_unknown_job_has_no_history(rest):
    reply = await rest("GET", "/jobs/nobody/history")
    assert (reply.status, reply.json) == (404, {"status": "ERROR", "result": "No such job ID nobody"})


# Configs


async def test_a_config_is_saved_shown_listed_and_deleted(rest):
    assert (await rest("PUT", "/configs/nightly", "input { string = a, n = 2 }")).status == 201
    assert (await rest("GET", "/configs/nightly")).json == {"input": {"string": "a", "n": 2}}
    assert (await rest("POST", "/configs/nightly", '{"other": true}')).status == 200
    assert (await rest("GET", "/configs/nightly")).json == {"other": True}
    (listed,) = [one for one in (await rest("GET", "/configs?limit=100")).json if one["name"] == "nightly"]
    assert listed["principal"] == "anonymous"
    assert listed["changedAt"] >= listed["createdAt"]
    assert (await rest("DELETE", "/configs/nightly")).json == {"status": "SUCCESS"}
    for method in ("GET", "DELETE"):
        reply = await rest(method, "/configs/nightly")
        assert (reply.status, reply.json["result"]) == (404, "config nightly not found")


async def test_configs_are_listed_by_name_in_pages(rest, fake):
    for name in ("b", "a", "ü"):
        await rest("PUT", f"/configs/{quote(name)}", "{}")
    first = await rest("GET", "/configs?limit=2")
    assert [one["name"] for one in first.json] == ["a", "b"]
    second = await rest("GET", next_of(first))
    assert [one["name"] for one in second.json] == ["ü"]
    assert "Link" not in second.headers


async def test_a_saved_config_lies_under_the_posted_one(rest, fake):
    await rest("PUT", "/configs/base", '{"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}, "c": 3}')
    await rest.run("Nothing", query="&config=base", body='{"a": {"x": 9, "y": [3]}, "b": "text", "d": null}')
    (submitted,) = fake.submissions
    assert submitted.config == {"a": {"x": 9, "y": [3]}, "b": "text", "c": 3, "d": None}


async def test_a_saved_config_alone_can_say_what_to_run(rest, fake):
    name = await rest.upload()
    saved = json.dumps({"cp": [name], "mainClass": "contract_jobs.Nothing"})
    await rest("PUT", "/configs/run", saved)
    reply = await rest("POST", "/jobs?config=run&sync=true")
    assert (reply.status, reply.json["result"]) == (200, None)


async def test_a_config_that_is_not_there_is_named(rest):
    reply = await rest("POST", "/jobs?config=missing", "{}")
    assert (reply.status, reply.json["result"]) == (404, "config missing not found")


@pytest.mark.parametrize("name", ["a%2Fb", "%20", "..", "x" * 256, "a%0Ab"])
async def test_a_config_cannot_be_called_anything(rest, name):
    assert (await rest("PUT", f"/configs/{name}", "{}")).status == 400


async def test_a_config_must_be_an_object(rest):
    reply = await rest("PUT", "/configs/list", "[1, 2]")
    assert reply.status == 400
    assert reply.json["result"].startswith("Cannot parse config: ")


# Kills by context, and the audit


async def test_all_jobs_of_a_context_are_killed_at_once(rest, fake):
    name = await rest.upload()
    context, other = await rest.context(), await rest.context("?x=1")
    jobs = [
        (await rest("POST", f"/jobs?cp={name}&mainClass=contract_jobs.Sleeping&context={where}")).json[
            "jobId"
        ]
        for where in (context, context, other)
    ]
    reply = await rest("DELETE", f"/jobs?context={context}")
    assert (reply.status, reply.json) == (200, {"status": "KILLED", "jobs": jobs[:2]})
    states = [(await rest("GET", f"/jobs/{job}")).json["status"] for job in jobs]
    assert states == ["KILLED", "KILLED", "RUNNING"]
    again = await rest("DELETE", f"/jobs?context={context}")
    assert again.json == {"status": "KILLED", "jobs": []}


async def test_killing_needs_a_context_that_lives(rest):
    assert (await rest("DELETE", "/jobs")).status == 404
    reply = await rest("DELETE", "/jobs?context=nobody")
    assert (reply.status, reply.json["result"]) == (404, "context nobody not found")


async def test_the_audit_says_who_did_what_to_what(rest, fake):
    context = await rest.context("?num-cpu-cores=1")
    await rest("GET", "/contexts")
    await rest("DELETE", "/contexts/nobody")
    await rest("PUT", "/configs/c", "{}")
    await rest("POST", f"/contexts/{context}?_method=DELETE&force=true")
    reply = await rest("GET", "/audit?limit=3")
    assert reply.status == 200
    assert [(one["action"], one["target"], one["detail"]) for one in reply.json] == [
        ("delete context", context, {"force": "true"}),
        ("save config", "c", {}),
        ("create context", context, {"num-cpu-cores": "1"}),
    ]
    assert {(one["principal"], one["server"]) for one in reply.json} == {("anonymous", "server-1")}


async def test_what_was_done_is_answered_though_the_audit_cannot_be_written(rest, fake, caplog):
    async def away(operation):
        raise StoreUnavailable("the store is away")

    fake.records._store.audit.add = away
    assert (await rest("DELETE", f"/contexts/{await rest.context()}")).status == 200
    assert "not in the audit: anonymous did delete context" in caplog.text
