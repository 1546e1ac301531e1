"""The API answers what its own description says: requests made from `/openapi.json`, good ones and broken ones, fixed seeds.

Against the fake service, with things behind the names that the description gives as examples. DESCRIBED_EXAMPLES makes the
tests look longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS, HANDLERS
from jobserver.api.openapi import document
from jobserver.api.operations import OPERATIONS
from jobserver.api.parameters import Flag, Moment, Span, Whole, Word
from jobserver.api.routes import Route, listed
from jobserver.model import BinaryType, NamedObjectInfo
from jobserver.service import Submission
from tests.contract.conftest import JOBS, Rest
from tests.fakes.service import FakeService

pytestmark = pytest.mark.skipif("JOBSERVER_URL" in os.environ, reason="needs its own service behind the API")

EXAMPLES = settings(
    max_examples=int(os.environ.get("DESCRIBED_EXAMPLES", "12")),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
SCHEMA = schemathesis.openapi.from_dict(document())
PROMISED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
    ]
)
LABELS = [
    found.ok().label
    for found in SCHEMA.get_all_operations()
    if not found.ok().definition.raw.get("deprecated")
]
BREAKABLE = [
    found.ok().label
    for found in SCHEMA.get_all_operations()
    if found.ok().label in LABELS and found.ok().query.items
]
"""What has more to break than a name in its path and a body of bytes, which take anything."""


async def furnished() -> FakeService:
    """A service with something behind each of the description's example names."""
    fake = FakeService()
    await fake.upload_binary("demo", BinaryType.PYTHON, JOBS)
    await fake.create_context("demo", {})
    fake.objects["demo"] = [NamedObjectInfo("rows", "dataframe", "1-1")]
    for job in ("Nothing", "Failing", "Sleeping"):
        await fake.submit(Submission(f"contract_jobs.{job}", ("demo",), {}, "demo", False, 1.0))
    await fake.upload_data("demo", b"x")
    await fake.records.save_config("demo", {"cp": "demo", "mainClass": "contract_jobs.Nothing"}, "eve")
    return fake


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, web.Application]]:
    """The API on a loop of its own: the requests come from a client that blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, str, web.Application]:
        app = make_app(await furnished(), ApiLimits(max_body=100_000, read_timeout=5.0))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}", app

    runner, url, app = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield url, app
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def operation(label: str) -> Any:
    return next(found.ok() for found in SCHEMA.get_all_operations() if found.ok().label == label)


def test_the_description_is_valid_openapi() -> None:
    SCHEMA.validate()
    assert document()["openapi"] == "3.1.0"


@pytest.mark.parametrize("label", LABELS)
def test_requests_as_described_are_answered_as_described(
    label: str, served: tuple[str, web.Application]
) -> None:
    exchange(label, GenerationMode.POSITIVE, served)


@pytest.mark.parametrize("label", BREAKABLE)
def test_requests_that_break_the_description_are_answered_as_described(
    label: str, served: tuple[str, web.Application]
) -> None:
    exchange(label, GenerationMode.NEGATIVE, served)


def exchange(label: str, mode: GenerationMode, served: tuple[str, web.Application]) -> None:
    url, app = served

    @EXAMPLES
    @given(case=operation(label).as_strategy(mode))
    def ask(case: Any) -> None:
        answer = case.call(base_url=url, allow_redirects=False, timeout=20)
        case.validate_response(answer, checks=PROMISED)

    ask()
    assert app[COUNTERS].internal_errors == 0


def test_every_route_is_described_and_handled() -> None:
    assert set(OPERATIONS) == set(Route) - {Route.PAGE_FILE}
    assert set(HANDLERS) == set(Route)
    assert {route for route, _, _ in listed()} == set(Route)


def test_operation_ids_are_unique() -> None:
    ids = [each["operationId"] for path in document()["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_every_parameter_that_a_handler_module_defines_is_described() -> None:
    known = {id(parameter) for each in OPERATIONS.values() for parameter in each.parameters}
    modules = {handler.__module__ for handler in HANDLERS.values()}
    for name in sorted(modules):
        module = __import__(name, fromlist=["_"])
        for key, value in vars(module).items():
            if key.isupper() and isinstance(value, (Flag, Whole, Word, Span, Moment)):
                assert id(value) in known, f"{name}.{key}"


async def test_the_description_is_served_and_not_sent_twice(rest: Rest) -> None:
    reply = await rest("GET", "/openapi.json")
    assert (reply.status, reply.json) == (200, json.loads(json.dumps(document())))
    again = await rest("GET", "/openapi.json", None, {"If-None-Match": reply.headers["ETag"]})
    assert (again.status, again.text) == (304, "")


async def test_every_refusal_of_the_framework_kind_is_described(rest: Rest) -> None:
    described = document()["paths"]["/jobs"]["get"]["responses"]
    for path in ("/jobs?limit=abc", "/jobs?limit=-1"):
        reply = await rest("GET", path)
        assert re.split(";", reply.type)[0] in described[str(reply.status)]["content"]
