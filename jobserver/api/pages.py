"""Pages for people: the cluster at `/`, the API at `/html/api.html`. Files from the packages; nothing from elsewhere.

The page is made of files in `page/`, the description is drawn by Swagger UI from the package `swagger-ui-py`. Only the files
named here are served, so no path can lead to another one.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.util
import json
from pathlib import Path

from jobserver.api.calls import Call
from jobserver.api.conditions import tagged
from jobserver.api.envelopes import JSON, Answer
from jobserver.api.openapi import document
from jobserver.api.rejections import no_route

INDEX = "index.html"
STATUS = "statusz.html"
_OWN = Path(__file__).with_name("page")
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
}
_OWN_FILES = (INDEX, "page.js", "page.css", "icon.svg", "api.html", "api.js")
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


async def page(call: Call) -> Answer:
    """GET /"""
    return await _file(call, INDEX)


async def page_file(call: Call) -> Answer:
    """GET /html/<file>. Raises Rejected (404) for any other name than those of the pages' files."""
    if call.name == INDEX:
        raise no_route()
    return await _file(call, call.name)


async def statusz(call: Call) -> Answer:
    """GET /statusz: the operator's own page, `statusz.html` of the server's working directory. Raises Rejected (404)."""
    try:
        body = await asyncio.to_thread(Path(STATUS).read_bytes)
    except OSError:
        raise no_route() from None
    return Answer(200, body, _TYPES["html"])


async def docs(call: Call) -> Answer:
    """GET /docs: to the page of the API's description."""
    up = "../" if call.request.path.endswith("/") else ""
    return Answer(302, b"", headers={"Location": f"{up}html/api.html"})


async def openapi(call: Call) -> Answer:
    """GET /openapi.json"""
    body, tag = _description()
    return tagged(Answer(200, body, JSON), tag, call.request.headers)


async def _file(call: Call, name: str) -> Answer:
    if name not in _OWN_FILES and name not in _SWAGGER_FILES:
        raise no_route()
    body, tag = await asyncio.to_thread(_read, name)
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    answer = Answer(200, body, _TYPES[name.rpartition(".")[2]], headers=headers)
    return tagged(answer, tag, call.request.headers)


@functools.cache
def _description() -> tuple[bytes, str]:
    body = json.dumps(document(), separators=(",", ":"), ensure_ascii=False).encode()
    return body, hashlib.sha256(body).hexdigest()[:32]


@functools.cache
def _read(name: str) -> tuple[bytes, str]:
    folder = _OWN if name in _OWN_FILES else _swagger()
    body = folder.joinpath(name).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:32]


def _swagger() -> Path:
    """The files in the package; it is not imported, as its handlers are for other frameworks."""
    found = importlib.util.find_spec("swagger_ui")
    if found is None or not found.submodule_search_locations:
        raise no_route()
    return Path(next(iter(found.submodule_search_locations))) / "static"
