"""The REST contract's two targets: our API on the fake service, or the server that JOBSERVER_URL names.

Tests that take `rest` alone speak HTTP only and run on both; those that take `fake` arrange the service behind the API,
and are skipped against a live server.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from yarl import URL

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS
from tests.fakes.service import FakeService

LIVE = os.environ.get("JOBSERVER_URL")
_kept: list[str] = []
"""On a live server a context is a process: tests that ask for any context get the last one while it runs."""

JOBS = Path(__file__).with_name("contract_jobs.py").read_bytes()


def unique(prefix: str = "n") -> str:
    """A name that nothing else has."""
    return f"{prefix}{uuid.uuid4().hex[:10]}"


@dataclass(frozen=True)
class Reply:
    """One answer, read to its end."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def type(self) -> str:
        return self.headers.get("Content-Type", "")


class Rest:
    """A client that sends paths and bodies as they are written."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self.base = base.rstrip("/")

    async def __call__(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        data = body.encode() if isinstance(body, str) else body
        url = URL(self.base + path, encoded=True)
        async with self._session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as response:
            text = (await response.read()).decode()
            return Reply(response.status, text, response.headers.copy())

    async def upload(self) -> str:
        """Uploads the contract's jobs under a name of their own."""
        name = f"contract_{uuid.uuid4().hex[:8]}"
        reply = await self("POST", f"/binaries/{name}", JOBS, {"Content-Type": "text/x-python"})
        assert reply.status == 201, reply.text
        return name

    async def context(self, query: str = "") -> str:
        """A context that runs: a new one under a name of its own, on a live server the last one if it still runs."""
        if _kept and not query and _kept[-1] in (await self("GET", "/contexts")).json:
            return _kept[-1]
        name = f"c{uuid.uuid4().hex[:8]}"
        reply = await self("POST", f"/contexts/{name}{query}")
        assert reply.status == 200, reply.text
        if LIVE and not query:
            _kept.append(name)
        return name

    async def run(self, job: str, *, query: str = "", body: str = "", context: bool = True) -> Reply:
        """Uploads the jobs, and submits one of them to a new context (or to an ad-hoc one)."""
        name = await self.upload()
        where = f"&context={await self.context()}" if context else ""
        return await self("POST", f"/jobs?cp={name}&mainClass=contract_jobs.{job}{where}{query}", body)


@pytest.fixture
def fake() -> FakeService:
    """The service behind the API."""
    if LIVE:
        pytest.skip("arranges the service behind the API: not possible on a live server")
    return FakeService()


@pytest.fixture
def limits() -> ApiLimits:
    return ApiLimits(max_body=100_000, max_hocon=20_000, max_python_source=50_000, read_timeout=5.0)


@pytest.fixture
async def rest(request: pytest.FixtureRequest, limits: ApiLimits) -> AsyncIterator[Rest]:
    """The client. On the fake, every test ends with the check that no error of ours was met."""
    if LIVE:
        async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session:
            yield Rest(session, LIVE)
        return
    app = make_app(request.getfixturevalue("fake"), limits)
    async with (
        TestServer(app, host="127.0.0.1") as server,
        aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session,
    ):
        yield Rest(session, str(server.make_url("")))
        assert app[COUNTERS].internal_errors == 0
