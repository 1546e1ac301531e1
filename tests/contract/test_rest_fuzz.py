"""Promise 10: no request of any shape yields a 500 or a stack trace, and every error body says what it is.

Requests go over a real socket, so that the bytes no client library would send are sent too.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

import pytest
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS
from tests.fakes.service import FakeService

pytestmark = pytest.mark.skipif("JOBSERVER_URL" in os.environ, reason="reads the counters of the application")

EXAMPLES = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

METHODS = st.sampled_from(
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "BREW"]
)
WORDS = st.sampled_from(
    [
        "binaries",
        "jars",
        "contexts",
        "jobs",
        "config",
        "objects",
        "healthz",
        "cluster",
        "data",
        "configs",
        "audit",
        "history",
        "progress",
        "log",
        "metricz",
        "metrics",
        "openapi.json",
        "docs",
        "html",
        "page.js",
        "x",
        "ctx",
        "",
        ".",
        "..",
    ]
)
ODD = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
SEGMENT = st.one_of(WORDS, ODD.map(lambda text: "".join(f"%{byte:02X}" for byte in text.encode())), ODD)
PATHS = st.lists(SEGMENT, max_size=4).map(lambda parts: "/" + "/".join(parts))
KEYS = st.sampled_from(
    [
        "appName",
        "classPath",
        "cp",
        "mainClass",
        "context",
        "sync",
        "timeout",
        "limit",
        "status",
        "force",
        "reset",
        "_method",
        "maxAttempts",
        "onFailover",
        "priority",
        "callbackUrl",
        "wait",
        "offset",
        "cursor",
        "sql",
        "grace",
        "revert",
        "num-cpu-cores",
        "a.b",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        ["true", "reboot", "1", "-1", "0", "x", "ctx", "", "GET", "delete", "99999999999", "%ff", "%0d%0a"]
    ),
    ODD,
)
QUERIES = st.lists(st.tuples(KEYS, VALUES), max_size=5).map(
    lambda pairs: "&".join(f"{key}={value}" for key, value in pairs)
)
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
HOCON = st.text(st.sampled_from('abc.${}?[]=:,+"\\ \n#/01-e\tcp'), max_size=40)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=60),
    HOCON.map(str.encode),
    NESTED.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"cp": NESTED, "mainClass": NESTED, "jobserver": NESTED, "spark": NESTED}).map(
        lambda value: json.dumps(value).encode()
    ),
    st.binary(max_size=20).map(lambda tail: b"PK\x03\x04" + tail),
)
TYPES = [
    "application/java-archive",
    "text/x-python",
    "text/plain; charset=nonsense",
    "multipart/form-data",
    ";",
    "a",
]
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Type",
            "Idempotency-Key",
            "Origin",
            "Access-Control-Request-Method",
            "Content-Encoding",
            "Prefer",
            "If-None-Match",
            "Range",
            "Expect",
        ]
    ),
    st.one_of(
        st.sampled_from([*TYPES, "gzip", "deflate", "100-continue", "POST", "http://x"]).map(str.encode),
        st.binary(max_size=8).filter(lambda value: not set(value) & set(b"\r\n\0")),
    ),
    max_size=4,
)

TEXTS = (
    "The requested resource could not be found.",
    "HTTP method not allowed, supported methods: ",
    "The query parameter '",
    "Request is missing required query parameter '",
    "The request content was malformed:\n",
    "The server either does not recognize the request method",
    "CORS: invalid method '",
)


def request_bytes(method: str, path: str, query: str, headers: dict[str, bytes], body: bytes) -> bytes:
    target = (path + ("?" + query if query else "")).replace(" ", "%20").replace("\r", "").replace("\n", "")
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: x", b"Connection: close"]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def checked(raw: bytes, method: str) -> int:
    """The status of an answer, after the check that its body is one of ours."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        head, _, body = body.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert status != 500, raw
    assert b"Traceback" not in body
    if status < 400 or not body:
        return status
    if b"application/json" in head:
        value = json.loads(body)
        assert isinstance(value["status"], str), raw
        assert value["result"], raw
    elif b"Server: " in head and status in (400, 404, 405, 413, 501):
        text = body.decode()
        # what is no HTTP at all is answered by the HTTP library, in its own plain words
        assert text.startswith(TEXTS) or status == 400 or text == "404: Not Found", raw
    return status


Send = Callable[[bytes], Awaitable[bytes]]


async def exchange(port: int, data: bytes) -> bytes:
    """Everything the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def run_all(requests: list[tuple[str, bytes]]) -> None:
    """One server, all requests one after another, and the check that it met no error of ours."""
    app = make_app(FakeService(), ApiLimits(max_body=10_000, read_timeout=0.2))
    async with TestServer(app, host="127.0.0.1") as server:
        assert server.port is not None
        for method, data in requests:
            checked(await exchange(server.port, data), method)
        alive = await exchange(server.port, request_bytes("GET", "/healthz", "", {}, b""))
        assert alive.startswith(b"HTTP/1.1 200 ")
    assert app[COUNTERS].internal_errors == 0


REQUEST = st.tuples(METHODS, PATHS, QUERIES, HEADERS, BODIES)


@EXAMPLES
@given(requests=st.lists(REQUEST, min_size=1, max_size=8))
def test_no_request_of_any_shape_is_answered_with_a_500(
    requests: list[tuple[str, str, str, dict[str, bytes], bytes]],
) -> None:
    asyncio.run(run_all([(parts[0], request_bytes(*parts)) for parts in requests]))


@EXAMPLES
@given(
    path=st.sampled_from(
        ["/jobs?cp=a&mainClass=b", "/contexts/ctx", "/jobs?appName=a&classPath=b&sync=true"]
    ),
    body=st.one_of(HOCON.map(str.encode), BODIES),
)
def test_no_configuration_of_any_shape_is_answered_with_a_500(path: str, body: bytes) -> None:
    first, _, query = path.partition("?")
    asyncio.run(run_all([("POST", request_bytes("POST", first, query, {}, body))]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /jobs HTTP/9.9\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://other/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /jobs HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\nConnection: close\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nabc\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd",
        b"POST /jobs?\xff\xfe HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"POST /contexts/c\xe4 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ],
)
async def test_bytes_that_are_hardly_http_end_in_a_refusal_and_the_server_lives_on(data: bytes) -> None:
    app = make_app(FakeService(), ApiLimits(max_body=10_000, read_timeout=0.2))
    async with TestServer(app, host="127.0.0.1") as server:
        assert server.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        writer.write_eof()
        raw = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        if raw:
            assert checked(raw, "") != 200 or b"http://other" in data
        alive = await exchange(server.port, request_bytes("GET", "/healthz", "", {}, b""))
        assert alive.startswith(b"HTTP/1.1 200 ")
    assert app[COUNTERS].internal_errors == 0
