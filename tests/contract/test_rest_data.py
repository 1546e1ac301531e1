"""Data files over HTTP: the answers of rest_contract section 6."""

from __future__ import annotations

import re
import uuid
from urllib.parse import quote

import pytest

from jobserver.errors import StoreUnavailable
from tests.contract.conftest import Rest
from tests.fakes.service import FakeService


async def uploaded(rest: Rest, data: bytes = b"\0 1") -> str:
    prefix = f"p{uuid.uuid4().hex[:8]}"
    reply = await rest("POST", f"/data/{prefix}", data)
    assert reply.status == 200
    assert list(reply.json) == ["result"]
    path = str(reply.json["result"]["filename"])
    assert re.fullmatch(rf".*/{prefix}-\d{{4}}-\d\d-\d\dT\d\d_\d\d_\d\d\.\d{{3}}(Z|[+-]\d\d_\d\d)\.dat", path)
    return path


async def test_an_uploaded_file_is_listed_and_can_be_deleted_once(rest: Rest) -> None:
    path = await uploaded(rest)
    assert path in (await rest("GET", "/data")).json
    reply = await rest("DELETE", f"/data/{quote(path, safe='')}")
    assert (reply.status, reply.text) == (200, "OK")
    assert path not in (await rest("GET", "/data")).json
    again = await rest("DELETE", f"/data/{quote(path, safe='')}")
    assert again.status == 400
    assert again.json == {"status": "ERROR", "result": f"Unable to delete data file '{path}'."}


@pytest.mark.parametrize("prefix", ["..%2F..%2Fetc", "%2e%2e", "a%5Cb", "a%00", "%20", "_hidden", "x" * 200])
async def test_a_prefix_that_would_leave_the_folder_is_refused_with_a_sentence(
    rest: Rest, prefix: str
) -> None:
    reply = await rest("POST", f"/data/{prefix}", b"x")
    assert reply.status == 400
    assert reply.json["result"].startswith("the prefix of a data file must")


async def test_reset_deletes_all_and_knows_one_value(rest: Rest) -> None:
    await uploaded(rest)
    assert (await rest("PUT", "/data")).status == 404
    assert (await rest("PUT", "/data?reset=x")).status == 400
    reply = await rest("PUT", "/data?reset=reboot")
    assert (reply.status, reply.json) == (200, {"status": "SUCCESS", "result": "Data reset"})
    assert (await rest("GET", "/data")).json == []
    reply = await rest("PUT", "/data?reset=reboot&sync=false")
    assert reply.json == {"status": "SUCCESS", "result": "Data reset requested"}


async def test_an_upload_without_a_prefix_leads_nowhere(rest: Rest) -> None:
    assert (await rest("POST", "/data", b"x")).status == 404
    assert (await rest("POST", "/data/a/b", b"x")).status == 404


async def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back(
    rest: Rest, fake: FakeService
) -> None:
    fake.script["upload_data"].append(StoreUnavailable("the store of data files does not answer"))
    reply = await rest("POST", "/data/p", b"x")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
