"""Saved queries: kept under a name, run by it, with values that a submission may replace."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import Rest
from tests.fakes.service import FakeService

SAVED = 'sql = "select * from rows where part = :part", args { part = 2, most = [1, 2] }, context = demo'


async def test_a_query_is_saved_shown_listed_replaced_and_deleted(rest: Rest, fake: FakeService) -> None:
    assert (await rest("PUT", "/queries/parts", SAVED.encode())).status == 201
    shown = (await rest("GET", "/queries/parts")).json
    assert (shown["name"], shown["context"], shown["args"]) == ("parts", "demo", {"part": 2, "most": [1, 2]})
    assert (await rest("PUT", "/queries/parts", b'sql = "select 1"')).status == 200
    assert [query["sql"] for query in (await rest("GET", "/queries")).json] == ["select 1"]
    assert (await rest("DELETE", "/queries/parts")).status == 200
    for method in ("GET", "DELETE"):
        assert (await rest(method, "/queries/parts")).status == 404


async def test_a_saved_query_is_run_by_its_name_with_values_of_the_body_over_its_own(
    rest: Rest, fake: FakeService
) -> None:
    await fake.create_context("demo", {})
    await rest("PUT", "/queries/parts", SAVED.encode())
    await rest("POST", "/jobs?query=parts&limit=5", b"args { part = 3 }")
    asked = fake.submissions[-1]
    assert asked.sql is not None
    assert (asked.context, asked.sql.limit) == ("demo", 5)
    assert asked.sql.text == "select * from rows where part = :part"
    assert json.loads(asked.sql.args) == {"part": 3, "most": [1, 2]}
    await rest("POST", "/jobs?query=parts&context=other", b"")
    assert (await rest("POST", "/jobs?query=nothing", b"")).status == 404


@pytest.mark.parametrize(
    "body", [b"", b"sql = 3", b'sql = "select 1", args = [1]', b'sql = "select 1", args { a { b = 1 } }',
             b'sql = "select 1", context = 1', b'sql = "select 1", context = "1x"'],
)  # fmt: skip
async def test_what_is_no_query_is_not_saved(rest: Rest, fake: FakeService, body: bytes) -> None:
    assert (await rest("PUT", "/queries/bad", body)).status == 400
    assert (await rest("GET", "/queries/bad")).status == 404


@pytest.mark.parametrize("more", ["sql=select+1", "cp=code&mainClass=m.C", "appName=a&classPath=m.C"])
async def test_a_saved_query_excludes_other_work(rest: Rest, fake: FakeService, more: str) -> None:
    await rest("PUT", "/queries/parts", SAVED.encode())
    assert (await rest("POST", f"/jobs?query=parts&{more}", b"")).status == 400
