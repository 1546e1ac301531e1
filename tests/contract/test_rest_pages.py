"""The pages: served whole from the packages, asking nobody else, drawing what the API says."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

import jobserver.api
from tests.contract.conftest import Rest
from tests.fakes.service import FakeService

PAGE = Path(jobserver.api.__file__).with_name("page")
IN_NODE = Path(__file__).with_name("page_in_node.js")
NODE = shutil.which("node")


@pytest.mark.parametrize("path", ["/", "/html/api.html"])
async def test_all_that_a_page_needs_is_served_by_the_same_server(rest: Rest, path: str) -> None:
    reply = await rest("GET", path)
    assert (reply.status, reply.type) == (200, "text/html; charset=utf-8")
    found = re.findall(r'(?:src|href)="([^"]+)"', reply.text)
    assert found
    for address in found:
        assert "//" not in address
        at = address if path == "/" else f"/html/{address}"
        assert (await rest("HEAD", f"/{at.lstrip('/')}")).status == 200, address


async def test_pages_may_load_nothing_from_elsewhere(rest: Rest) -> None:
    reply = await rest("GET", "/")
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'self'")
    for name in ("page.js", "api.js", "page.css", "icon.svg"):
        text = (PAGE / name).read_text(encoding="utf-8")
        assert re.findall(r"(?:https?:)?//[a-z]", text.replace("http://www.w3.org/2000/svg", "")) == []


async def test_a_file_is_sent_once_until_it_changes(rest: Rest) -> None:
    reply = await rest("GET", "/html/swagger-ui.css")
    assert (reply.status, reply.type) == (200, "text/css; charset=utf-8")
    again = await rest("GET", "/html/swagger-ui.css", None, {"If-None-Match": reply.headers["ETag"]})
    assert (again.status, again.text) == (304, "")


@pytest.mark.parametrize(
    "path",
    [
        "/html",
        "/html/",
        "/html/..%2Fpages.py",
        "/html/%2e%2e%2fapp.py",
        "/html/page",
        "/html/index.html",
        "/html/a/b",
    ],
)
async def test_no_other_file_can_be_reached(rest: Rest, path: str) -> None:
    reply = await rest("GET", path)
    assert (reply.status, reply.text) == (404, "The requested resource could not be found.")


@pytest.mark.parametrize(("path", "target"), [("/docs", "html/api.html"), ("/docs/", "../html/api.html")])
async def test_docs_leads_to_the_description(rest: Rest, path: str, target: str) -> None:
    reply = await rest("GET", path)
    assert (reply.status, reply.headers["Location"]) == (302, target)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
async def test_the_page_draws_the_cluster_and_kills_jobs_without_an_error(
    rest: Rest, fake: FakeService
) -> None:
    fake.picture = {
        "leader": "s1",
        "servers": [
            {"id": "s1", "url": "http://h:1", "state": "alive", "warm_drivers": 1, "hot_standbys": 0},
            {"id": "s2", "url": "http://h:2", "state": "draining", "warm_drivers": 0, "hot_standbys": 2},
        ],
        "contexts": [
            {
                "name": "<b>shop</b>",
                "state": "RUNNING",
                "owner": "s1",
                "epoch": 4,
                "standbys": [{"server": "s2", "mode": "hot"}],
                "last_failover": {"at": "2024-05-29T12:00:00+00:00", "kind": "adopted", "seconds": 0.1234},
            }
        ],
    }
    job = (await rest.run("Sleeping")).json["jobId"]
    process = await asyncio.create_subprocess_exec(
        NODE or "", str(IN_NODE), str(PAGE / "page.js"), f"{rest.base}/",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, trouble = await process.communicate()
    assert (process.returncode, trouble.decode()) == (0, "")
    seen = json.loads(out)
    assert seen["drawn"]["state"] == "2 servers, 1 contexts"
    assert seen["drawn"]["servers"][0].startswith("s1 (leader) alive")
    assert seen["drawn"]["contexts"] == [
        "<b>shop</b> RUNNING s1 4 s2 (hot) adopted in 0.12 s, 2024-05-29 12:00:00 stop"
    ]
    assert seen["drawn"]["jobs"][0].startswith(f"{job} contract_jobs.Sleeping")
    assert f"DELETE jobs/{job}" in seen["asked"]
    assert "KILLED" in seen["killed"][0]
