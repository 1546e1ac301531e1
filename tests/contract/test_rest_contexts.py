"""Contexts in the REST dialect, request by request. See `test_rest_jobs.py`."""

from __future__ import annotations

import re

import pytest

from tests.contract.conftest import Rest, unique

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def test_a_context_is_created_listed_shown_and_deleted(rest: Rest) -> None:
    name = unique("c")
    created = await rest("POST", f"/contexts/{name}?num-cpu-cores=1&memory-per-node=512m")
    assert (created.status, created.text) == (200, '{"status":"SUCCESS","result":"Context initialized"}')
    assert name in (await rest("GET", "/contexts")).json
    shown = (await rest("GET", f"/contexts/{name}")).json
    assert list(shown)[:5] == ["id", "name", "startTime", "endTime", "state"]
    assert (shown["name"], shown["endTime"], shown["state"]) == (name, "Empty", "RUNNING")
    assert INSTANT.fullmatch(shown["startTime"])
    deleted = await rest("DELETE", f"/contexts/{name}/")
    assert (deleted.status, deleted.text) == (200, '{"status":"SUCCESS","result":"Context stopped"}')


async def test_an_ended_context_can_still_be_read(rest: Rest) -> None:
    name = await rest.context()
    await rest("DELETE", f"/contexts/{name}")
    shown = await rest("GET", f"/contexts/{name}")
    assert shown.status == 200
    assert shown.json["state"] == "FINISHED"
    assert INSTANT.fullmatch(shown.json["endTime"])
    assert "applicationId" not in shown.json
    assert name not in (await rest("GET", "/contexts")).json


async def test_our_own_keys_of_a_context_come_after_those_of_the_contract(rest: Rest) -> None:
    shown = (await rest("GET", f"/contexts/{await rest.context()}")).json
    ours = ["epoch", "owner", "standbys", "lastFailover", "data"]
    assert list(shown)[-5:] == ours


async def test_a_living_context_cannot_be_created_again_but_an_ended_one_can(rest: Rest) -> None:
    name = await rest.context()
    again = await rest("POST", f"/contexts/{name}")
    assert (again.status, again.text) == (400, f'{{"status":"ERROR","result":"context {name} exists"}}')
    first = (await rest("GET", f"/contexts/{name}")).json["id"]
    await rest("DELETE", f"/contexts/{name}")
    assert (await rest("POST", f"/contexts/{name}")).status == 200
    assert (await rest("GET", f"/contexts/{name}")).json["id"] != first


@pytest.mark.parametrize("name", ["1abc", "-a", "_a", "%20a", "%2F"])
async def test_a_context_name_starts_with_a_letter(rest: Rest, name: str) -> None:
    reply = await rest("POST", f"/contexts/{name}", "this { is no config")
    assert reply.status == 400
    assert reply.text == '{"status":"ERROR","result":"context name must start with letters"}'


@pytest.mark.parametrize(
    "body", ["a = {", "[1]", "a = ${nothing}", "spark.context-settings = 3", 'include "/etc/passwd"']
)
async def test_a_context_body_that_cannot_be_read_is_a_400(rest: Rest, body: str) -> None:
    reply = await rest("POST", f"/contexts/{unique('c')}", body)
    assert reply.status == 400
    assert reply.json["result"].startswith("Cannot parse config: ")


async def test_unknown_contexts_are_404_in_the_words_of_the_contract(rest: Rest) -> None:
    got = await rest("GET", "/contexts/nobody")
    assert (got.status, got.json["result"]) == (404, "can't find context with name nobody")
    deleted = await rest("DELETE", "/contexts/nobody")
    assert (deleted.status, deleted.json["result"]) == (404, "context nobody not found")
    objects = await rest("GET", "/contexts/nobody/objects")
    assert objects.status == 404


async def test_a_new_context_has_no_named_objects(rest: Rest) -> None:
    reply = await rest("GET", f"/contexts/{await rest.context()}/objects")
    assert (reply.status, reply.text) == (200, "[]")


async def test_reset_needs_its_parameter_and_knows_one_value(rest: Rest) -> None:
    missing = await rest("PUT", "/contexts")
    assert missing.status == 404
    assert missing.text == "Request is missing required query parameter 'reset'"
    assert (await rest("PUT", "/contexts?reset=other")).status == 400
