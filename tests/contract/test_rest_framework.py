"""What the framework of the REST dialect answers by itself, and a server about itself. See `test_rest_jobs.py`."""

from __future__ import annotations

import pytest

from tests.contract.conftest import Rest

OK = '{"status":"SUCCESS"}'
NOT_FOUND = "The requested resource could not be found."


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/binaries/a/b"),
        ("GET", "/jobs/a/b"),
        ("GET", "/jobs//config"),
        ("GET", "//jobs"),
        ("POST", "/binaries"),
        ("POST", "/jobs/anything"),
        ("POST", "/contexts"),
        ("DELETE", "/contexts"),
        ("PUT", "/contexts/x"),
        ("GET", "/Jobs"),
    ],
)
async def test_a_path_that_leads_nowhere_is_a_404_text(rest: Rest, method: str, path: str) -> None:
    reply = await rest(method, path)
    assert (reply.status, reply.text, reply.type) == (404, NOT_FOUND, "text/plain; charset=UTF-8")


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("PUT", "/binaries/x", "GET, POST, DELETE"),
        ("PATCH", "/jobs", "GET, POST, DELETE"),
        ("PUT", "/jobs/x", "GET, POST, DELETE"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/cluster", "GET, POST"),
        ("OPTIONS", "/jobs", "GET, POST, DELETE"),
    ],
)
async def test_a_wrong_method_is_a_405_with_the_right_ones(
    rest: Rest, method: str, path: str, methods: str
) -> None:
    reply = await rest(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, methods)
    assert reply.text == f"HTTP method not allowed, supported methods: {methods}"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/jobs?limit=abc",
            "The query parameter 'limit' was malformed:\n'abc' is not a valid 32-bit signed integer value",
        ),
        (
            "/jobs?limit=2147483648",
            "The query parameter 'limit' was malformed:\n'2147483648' is not a valid 32-bit signed integer value",
        ),
    ],
)
async def test_a_malformed_number_is_a_400_text(rest: Rest, path: str, text: str) -> None:
    reply = await rest("GET", path)
    assert (reply.status, reply.text, reply.type) == (400, text, "text/plain; charset=UTF-8")


async def test_a_malformed_boolean_is_a_400_text(rest: Rest) -> None:
    reply = await rest("POST", "/jobs?appName=x&classPath=y&sync=maybe")
    assert reply.status == 400
    assert reply.text == "The query parameter 'sync' was malformed:\n'maybe' is not a valid Boolean value"


@pytest.mark.parametrize("query", ["timeout=0", "timeout=-1", "maxAttempts=0", "onFailover=sometimes"])
async def test_a_number_or_word_out_of_range_is_a_400_with_a_sentence(rest: Rest, query: str) -> None:
    reply = await rest("POST", f"/jobs?appName=x&classPath=y&{query}")
    assert (reply.status, reply.json["status"]) == (400, "ERROR")
    assert "must be" in reply.json["result"]


async def test_the_method_can_be_overridden_in_the_query(rest: Rest) -> None:
    name = await rest.context()
    reply = await rest("POST", f"/contexts/{name}?_method=delete")
    assert reply.json["result"] == "Context stopped"
    unknown = await rest("GET", "/jobs?_method=fly")
    assert unknown.status == 501
    assert unknown.text.startswith("The server either does not recognize the request method")


async def test_head_is_answered_like_get_without_a_body(rest: Rest) -> None:
    reply = await rest("HEAD", "/healthz")
    assert (reply.status, reply.text) == (200, "")
    assert reply.headers["Content-Length"] == str(len(OK))


async def test_a_healthy_server_says_success(rest: Rest) -> None:
    reply = await rest("GET", "/healthz")
    assert (reply.status, reply.text, reply.type) == (200, OK, "application/json")


async def test_the_cluster_is_shown_as_one_object(rest: Rest) -> None:
    reply = await rest("GET", "/cluster")
    assert reply.status == 200
    assert isinstance(reply.json, dict)


async def test_pages_of_other_origins_may_call(rest: Rest) -> None:
    reply = await rest("GET", "/healthz", None, {"Origin": "http://ui.example"})
    assert reply.headers["Access-Control-Allow-Origin"] == "http://ui.example"
    asked = {"Origin": "http://ui.example", "Access-Control-Request-Method": "POST"}
    preflight = await rest("OPTIONS", "/jobs", None, asked)
    assert (preflight.status, preflight.headers["Access-Control-Max-Age"]) == (200, "1800")
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST, HEAD, OPTIONS"
    plain = await rest("GET", "/healthz")
    assert "Access-Control-Allow-Origin" not in plain.headers
