"""Bad requests, and code that is none, are refused with the answer of the contract, on every server."""

from __future__ import annotations

import pytest
from live_cluster import Live

NO_ROUTE = "The requested resource could not be found."


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/nothing", b"", 404, NO_ROUTE),
        ("POST", "/binaries", b"x", 404, NO_ROUTE),
        ("PUT", "/binaries/x", b"", 405, "HTTP method not allowed, supported methods: GET, POST, DELETE"),
        ("GET", "/jobs?limit=many", b"", 400, "'many' is not a valid 32-bit signed integer value"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&sync=maybe", b"", 400, "'maybe' is not a valid Boolean value"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&timeout=-1", b"", 400, "timeout must be from 1 to 2147483647, not -1"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&priority=1e3", b"", 400, "priority"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&onFailover=pray", b"", 400, "rerun or fail"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&maxAttempts=0", b"", 400, "maxAttempts"),
        ("POST", "/jobs?cp=bad", b"", 400, "mainClass parameter is missing!"),
        ("POST", "/jobs", b"", 400, "appName or cp parameters should be configured!"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"{ a = ", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"\xff\xfe", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"a = ${b}", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"[1, 2]", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=nobody&mainClass=a:b&context=place", b"", 404, "appName nobody not found"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=nowhere", b"", 404, "context nowhere not found"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&_method=BREW", b"", 501, "recognize the request method"),
        ("POST", "/contexts/9lives", b"", 400, "context name must start with letters"),
        ("POST", "/contexts/broken?num-cpu-cores=many", b"", 400, "num-cpu-cores"),
        ("POST", "/contexts/broken?memory-per-node=much", b"", 400, "memory-per-node"),
        ("POST", "/contexts/broken?max-jobs=0", b"", 400, "max-jobs"),
        ("POST", "/contexts/broken", b"spark.context-settings { a = ", 400, "Cannot parse config: "),
        ("DELETE", "/contexts/nowhere", b"", 404, "context nowhere not found"),
        ("GET", "/contexts/nowhere/objects", b"", 404, "nowhere"),
        ("GET", "/jobs/no-such-job", b"", 404, "No such job ID no-such-job"),
        ("DELETE", "/jobs/no-such-job", b"", 404, "No such job ID no-such-job"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_on_every_server_with_its_fault(
    live: Live, code: str, place: str, method: str, path: str, body: bytes, status: int, text: str
) -> None:
    for server in live.ids:
        reply = live.ask(method, path, body, server=server)
        assert reply.status == status, str(reply)
        assert text in reply.body.decode()
        assert b"Traceback" not in reply.body


@pytest.mark.parametrize(
    ("kind", "data", "status", "text"),
    [
        ("text/x-python", b"def f(:\n", 400, "Binary is not of the right format"),
        ("text/x-python", b"x = '\xff'", 400, "Binary is not of the right format"),
        ("application/python-wheel", b"no zip", 400, "Binary is not of the right format"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "Unsupported binary type"),
    ],
)
def test_an_upload_that_cannot_be_code_is_refused(
    live: Live, kind: str, data: bytes, status: int, text: str
) -> None:
    reply = live.ask("POST", "/binaries/bad_upload", data, headers={"Content-Type": kind})
    assert (reply.status, text in reply.json["result"]) == (status, True), str(reply)
    assert live.ask("GET", "/binaries/bad_upload").status == 404


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("main", "status", "text"),
    [
        ("bad:nothing", 404, "classPath bad:nothing not found"),
        ("bad.Nothing", 404, "classPath bad.Nothing not found"),
        ("other.module.Job", 404, "classPath other.module.Job not found"),
        ("no main class", 404, "classPath no main class not found"),
        ("bad:json", 404, "classPath bad:json not found"),
        ("bad.NoJob", 400, "JOB LOADING FAILED"),
        ("bad.CannotBeMade", 400, "no such thing"),
        ("bad.NeedsWords", 400, "config words not found; and no letters either"),
    ],
)
def test_code_that_is_no_job_is_refused_in_both_ways_of_asking(
    live: Live, code: str, place: str, unharmed: None, main: str, status: int, text: str, sync: bool
) -> None:
    reply = live.submit(code, main, place, sync=sync)
    assert reply.status == status, str(reply)
    assert text in reply.body.decode()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("raise ValueError('at import')", "at import"),
        ("import sys\nsys.exit(4)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(): return g(\n", None),
        ("from __future__ import braces", "not a chance"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_400_that_tells_why(
    live: Live, place: str, unharmed: None, source: str, text: str | None
) -> None:
    reply = live.ask("POST", "/binaries/unloadable", source, headers={"Content-Type": "text/x-python"})
    if text is None:
        assert reply.status == 400
        return
    assert reply.status == 201, str(reply)
    reply = live.submit("unloadable", "unloadable:run", place)
    assert (reply.status, reply.json["status"]) == (400, "JOB LOADING FAILED"), str(reply)
    assert text in reply.json["result"]["message"]
