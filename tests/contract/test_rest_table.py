"""The contract's tables, row by row, against one server. `tests/integration/test_main_job.py` does so on a real cluster."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.contract.conftest import Rest
from tests.contract.contract_table import ROWS, Row
from tests.contract.situation import Situation


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_request_is_answered_as_the_contract_says(rest: Rest, row: Row) -> None:
    async def send(
        method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str, Mapping[str, str]]:
        reply = await rest(method, path, body, headers)
        return reply.status, reply.text, reply.headers

    assert await Situation(send, rest.context).differences(row) == []
