"""`GET /openapi.json`: the API as OpenAPI 3.1, made of the routes, their operations and the parameters they read. Pure.

Nothing is written twice: a route, parameter or media type that the server knows is in here because it knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from jobserver import __version__
from jobserver.api.envelopes import JSON
from jobserver.api.operations import OPERATIONS, PLAIN, Operation, Reply
from jobserver.api.parameters import Parameter, Word
from jobserver.api.routes import Route, listed
from jobserver.api.schemas import SCHEMAS, ref

COMMON = (400, 404, 500, 503)
"""What any route may answer: a malformed request, nothing there, a wait that is over or a driver that failed, a part away."""

_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Idempotency-Key": (
        "The client's name for one submission: 1 to 255 printable ASCII characters.",
        {"type": "string", "pattern": "^[ -~]{1,255}$"},
    ),
    "Prefer": ("`wait=<seconds>`: answer when the job ends, or after so long.", {"type": "string"}),
    "If-None-Match": ("Tag of an answer that the client has.", {"type": "string"}),
    "ETag": ("Tag of an answer that never changes.", {"type": "string"}),
    "Link": ('`<…>; rel="next"`: the next page, while there is one.', {"type": "string"}),
    "Last-Event-ID": ("Id of the last event that the client has seen.", {"type": "string"}),
    "Range": ("`bytes=<first>-<last>`: one range of the whole.", {"type": "string"}),
    "Content-Range": ("The range that is sent, and the size of the whole.", {"type": "string"}),
    "X-Log-Size": ("Bytes of the whole output until now.", {"type": "string"}),
    "X-Job-Id": ("The job whose rows are sent alone.", {"type": "string"}),
    "Location": ("Where to look.", {"type": "string"}),
    "Preference-Applied": ("The preference that was followed.", {"type": "string"}),
    "Retry-After": ("Seconds after which the same request may succeed.", {"type": "string"}),
}
_EXAMPLES = {"id": "job-0001", "name": "demo", "item": "rows"}
_MEANINGS = {"id": "The job's id.", "name": "A name, percent-encoded.", "item": "The named object's name."}
_DESCRIPTION = (
    "Any server takes every request. `_method=<VERB>` in the query replaces the method; HEAD is answered like GET. "
    "Bodies of refusals are JSON with `status` and `result`, or one sentence as text where existing servers send text."
)


def document() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = {}
    for route, method, path in listed():
        operation = OPERATIONS.get(route)
        if operation is not None:
            paths.setdefault(path, {})[method.lower()] = _operation(route, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HA Spark job server",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _operation(route: Route, path: str, operation: Operation) -> dict[str, Any]:
    alias = path.startswith("/jars")
    shown: dict[str, Any] = {
        "operationId": f"{route.value}_by_jars" if alias and route is not Route.POST_JAR else route.value,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [
            *(_in_path(name) for name in _names(path)),
            *(_in_query(parameter) for parameter in operation.parameters),
            *(_in_header(name) for name in operation.headers),
            *([_ANY_QUERY] if operation.any_query else []),
        ],
        "responses": _responses(operation),
    }
    if alias:
        shown["deprecated"] = True
    if operation.body:
        content = {kind: {"schema": schema} for kind, schema in operation.body.items()}
        shown["requestBody"] = {"required": False, "content": content}
    return shown


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _MEANINGS[name],
        "schema": {"type": "string", "minLength": 1},
        "example": _EXAMPLES[name],
    }


def _in_query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": isinstance(parameter, Word) and parameter.needed,
        "description": parameter.meaning,
        "schema": parameter.schema(),
    }


_ANY_QUERY = {
    "name": "settings",
    "in": "query",
    "style": "form",
    "explode": True,
    "description": "Settings of the context, each a parameter of its own.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


def _in_header(name: str) -> dict[str, Any]:
    meaning, schema = _HEADERS[name]
    return {"name": name, "in": "header", "required": False, "description": meaning, "schema": schema}


def _responses(operation: Operation) -> dict[str, Any]:
    found = {str(reply.status): _reply(reply) for reply in operation.replies}
    for status in (*COMMON, *operation.refusals):
        found[str(status)] = _refusal(status)
    return dict(sorted(found.items()))


def _reply(reply: Reply) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": reply.meaning}
    if reply.headers:
        shown["headers"] = _sent(reply.headers)
    if reply.content is not None:
        others = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in reply.others}
        shown["content"] = {reply.type: {"schema": reply.content}, **others}
    return shown


def _refusal(status: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {JSON: {"schema": ref("Error")}, PLAIN: {"schema": {"type": "string"}}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        shown["headers"] = _sent(("Retry-After",))
    return shown


def _sent(names: tuple[str, ...]) -> Mapping[str, Any]:
    return {name: {"description": _HEADERS[name][0], "schema": _HEADERS[name][1]} for name in names}
