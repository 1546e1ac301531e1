"""The contract's tables, row by row, against one server. `tests/integration/test_main_job.py` does so on a real cluster."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

import pytest

from tests.contract.conftest import Rest
from tests.contract.contract_table import ELSEWHERE, ROWS, Row
from tests.contract.situation import Situation


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_request_is_answered_as_the_contract_says(rest: Rest, row: Row) -> None:
    async def send(
        method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str, Mapping[str, str]]:
        reply = await rest(method, path, body, headers)
        return reply.status, reply.text, reply.headers

    assert await Situation(send, rest.context).differences(row) == []


CONTRACT = """
GET /binaries, GET /binaries/{name}, POST /binaries/{name}, DELETE /binaries/{name}, GET /contexts, GET /contexts/{name},
POST /contexts/{name}, DELETE /contexts/{name}, PUT /contexts, GET /jobs, GET /jobs/{id}, GET /jobs/{id}/config, POST /jobs,
DELETE /jobs/{id}, GET /data, POST /data/{name}, DELETE /data/{name}, PUT /data, GET /healthz, GET /, GET /html/{name},
GET /metricz, GET /statusz
"""


@pytest.mark.parametrize("route", re.split(r",\s+", CONTRACT.strip()))
def test_every_route_of_the_contract_is_in_its_tables(route: str) -> None:
    method, path = route.split(" ")
    shape = re.compile(re.sub(r"\\{\w+\\}", "[^/?]+", re.escape(path)) + r"/?(\?.*)?")
    rows = [row for row in ROWS if row.request.startswith(f"{method} ")]
    shown = any(shape.fullmatch(row.request.partition(" ")[2]) for row in rows)
    assert shown or any(route in case for case in ELSEWHERE)


def test_what_no_row_shows_is_shown_by_a_test_that_exists() -> None:
    for name in ELSEWHERE.values():
        module, _, function = name.partition(".")
        assert callable(getattr(importlib.import_module(f"tests.contract.{module}"), function)), name


def test_no_two_rows_have_one_name() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)
