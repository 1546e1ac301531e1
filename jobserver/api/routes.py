"""Method and path to the name of what is asked for (rest_contract section 2). Pure.

Known first part with a method of its list but another shape: no route (404). Another method: 405 with the list in the
order in which existing servers name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from jobserver.api.rejections import no_route, unknown_method, wrong_method
from jobserver.errors import BadRequest


class Route(StrEnum):
    """Everything that the API answers."""

    LIST_BINARIES = "list_binaries"
    GET_BINARY = "get_binary"
    POST_BINARY = "post_binary"
    POST_JAR = "post_jar"
    DELETE_BINARY = "delete_binary"
    LIST_CONTEXTS = "list_contexts"
    GET_CONTEXT = "get_context"
    LIST_OBJECTS = "list_objects"
    GET_OBJECT = "get_object"
    POST_OBJECT = "post_object"
    DELETE_OBJECT = "delete_object"
    POST_CONTEXT = "post_context"
    DELETE_CONTEXT = "delete_context"
    RESET_CONTEXTS = "reset_contexts"
    LIST_JOBS = "list_jobs"
    GET_JOB = "get_job"
    GET_JOB_CONFIG = "get_job_config"
    GET_PROGRESS = "get_progress"
    GET_EVENTS = "get_events"
    GET_LOG = "get_log"
    GET_RESULT = "get_result"
    POST_JOB = "post_job"
    DELETE_JOB = "delete_job"
    DELETE_JOBS = "delete_jobs"
    GET_JOB_HISTORY = "get_job_history"
    LIST_CONFIGS = "list_configs"
    GET_CONFIG = "get_config"
    PUT_CONFIG = "put_config"
    POST_CONFIG = "post_config"
    DELETE_CONFIG = "delete_config"
    LIST_QUERIES = "list_queries"
    GET_QUERY = "get_query"
    PUT_QUERY = "put_query"
    POST_QUERY = "post_query"
    DELETE_QUERY = "delete_query"
    LIST_OPERATIONS = "list_operations"
    LIST_DATA = "list_data"
    POST_DATA = "post_data"
    DELETE_DATA = "delete_data"
    RESET_DATA = "reset_data"
    HEALTH = "health"
    STATUSZ = "statusz"
    METRICZ = "metricz"
    PROMETHEUS = "prometheus"
    CLUSTER = "cluster"
    SWITCHOVER = "switchover"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    OPENAPI = "openapi"
    PAGE = "page"
    PAGE_FILE = "page_file"
    DOCS = "docs"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request asks for; `name` is the decoded path element after the first, `item` the third's, or empty."""

    route: Route
    name: str = ""
    item: str = ""


_Shape = tuple[str, ...]
_ONE: _Shape = ("*",)
_OBJECT: _Shape = ("*", "objects", "*")
_VERBS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})

_TABLE: dict[str, tuple[str, dict[tuple[str, _Shape], Route]]] = {
    "binaries": (
        "GET, POST, DELETE",
        {
            ("GET", ()): Route.LIST_BINARIES,
            ("GET", _ONE): Route.GET_BINARY,
            ("POST", _ONE): Route.POST_BINARY,
            ("DELETE", _ONE): Route.DELETE_BINARY,
        },
    ),
    "jars": (  # the oldest clients' name of /binaries
        "GET, POST, DELETE",
        {
            ("GET", ()): Route.LIST_BINARIES,
            ("GET", _ONE): Route.GET_BINARY,
            ("POST", _ONE): Route.POST_JAR,
            ("DELETE", _ONE): Route.DELETE_BINARY,
        },
    ),
    "contexts": (
        "GET, POST, DELETE, PUT",
        {
            ("GET", ()): Route.LIST_CONTEXTS,
            ("GET", _ONE): Route.GET_CONTEXT,
            ("GET", ("*", "objects")): Route.LIST_OBJECTS,
            ("GET", _OBJECT): Route.GET_OBJECT,
            ("POST", _OBJECT): Route.POST_OBJECT,
            ("DELETE", _OBJECT): Route.DELETE_OBJECT,
            ("POST", _ONE): Route.POST_CONTEXT,
            ("POST", ("*", "switchover")): Route.SWITCHOVER,
            ("DELETE", _ONE): Route.DELETE_CONTEXT,
            ("PUT", ()): Route.RESET_CONTEXTS,
        },
    ),
    "jobs": (
        "GET, POST, DELETE",
        {
            ("GET", ()): Route.LIST_JOBS,
            ("GET", _ONE): Route.GET_JOB,
            ("GET", ("*", "config")): Route.GET_JOB_CONFIG,
            ("GET", ("*", "progress")): Route.GET_PROGRESS,
            ("GET", ("*", "events")): Route.GET_EVENTS,
            ("GET", ("*", "log")): Route.GET_LOG,
            ("GET", ("*", "result")): Route.GET_RESULT,
            ("POST", ()): Route.POST_JOB,
            ("DELETE", _ONE): Route.DELETE_JOB,
            ("DELETE", ()): Route.DELETE_JOBS,
            ("GET", ("*", "history")): Route.GET_JOB_HISTORY,
        },
    ),
    "configs": (
        "GET, PUT, POST, DELETE",
        {
            ("GET", ()): Route.LIST_CONFIGS,
            ("GET", _ONE): Route.GET_CONFIG,
            ("PUT", _ONE): Route.PUT_CONFIG,
            ("POST", _ONE): Route.POST_CONFIG,
            ("DELETE", _ONE): Route.DELETE_CONFIG,
        },
    ),
    "queries": (
        "GET, PUT, POST, DELETE",
        {
            ("GET", ()): Route.LIST_QUERIES,
            ("GET", _ONE): Route.GET_QUERY,
            ("PUT", _ONE): Route.PUT_QUERY,
            ("POST", _ONE): Route.POST_QUERY,
            ("DELETE", _ONE): Route.DELETE_QUERY,
        },
    ),
    "audit": ("GET", {("GET", ()): Route.LIST_OPERATIONS}),
    "data": (
        "GET, POST, DELETE, PUT",
        {
            ("GET", ()): Route.LIST_DATA,
            ("POST", _ONE): Route.POST_DATA,
            ("DELETE", _ONE): Route.DELETE_DATA,
            ("PUT", ()): Route.RESET_DATA,
        },
    ),
    "healthz": ("GET", {("GET", ()): Route.HEALTH}),
    "statusz": ("GET", {("GET", ()): Route.STATUSZ}),
    "metricz": ("GET", {("GET", ()): Route.METRICZ}),
    "metrics": ("GET", {("GET", ()): Route.PROMETHEUS}),
    "cluster": (
        "GET, POST",
        {
            ("GET", ()): Route.CLUSTER,
            ("POST", ("*", "drain")): Route.DRAIN,
            ("POST", ("*", "undrain")): Route.UNDRAIN,
        },
    ),
    "openapi.json": ("GET", {("GET", ()): Route.OPENAPI}),
    "docs": ("GET", {("GET", ()): Route.DOCS}),
    "html": ("GET", {("GET", _ONE): Route.PAGE_FILE}),
    "": ("GET", {("GET", ()): Route.PAGE}),
}


def listed() -> Iterator[tuple[Route, str, str]]:
    """Every route with its method and path; `{id}`, `{name}` and `{item}` stand for what a path names."""
    for first, (_, shapes) in _TABLE.items():
        for (method, shape), route in shapes.items():
            name = "{id}" if first == "jobs" else "{name}"
            parts = [name if at == 0 else part.replace("*", "{item}") for at, part in enumerate(shape)]
            yield route, method, "/" + "/".join([first, *parts])


def effective_method(method: str, override: str | None) -> str:
    """The method to route by: `_method` replaces it, and HEAD is answered like GET. Raises Rejected (501)."""
    if override is not None:
        method = override.upper()
        if method not in _VERBS:
            raise unknown_method()
    return "GET" if method == "HEAD" else method


def target(method: str, raw_path: str) -> Target:
    """What `method` on a path (as sent, still percent-encoded) asks for. Raises Rejected and BadRequest."""
    first, *rest = raw_path.removeprefix("/").split("/")
    if rest and rest[-1] == "":
        rest.pop()  # one trailing slash is accepted everywhere
    entry = _TABLE.get(first)
    if entry is None:
        raise no_route()
    methods, shapes = entry
    route = shapes.get((method, _shape(rest)))
    if route is None and method not in methods.split(", "):
        raise wrong_method(methods)
    if route is None or "" in rest:
        raise no_route()
    return Target(route, _decoded(rest[0]) if rest else "", _decoded(rest[2]) if len(rest) > 2 else "")


def _shape(rest: list[str]) -> _Shape:
    """The path with names left open: the first element, and what follows `objects`."""
    if len(rest) == 3 and rest[1] == "objects":
        return _OBJECT
    return ("*", *rest[1:]) if rest else ()


def _decoded(element: str) -> str:
    try:
        return unquote(element, errors="strict") if "%" in element else element
    except UnicodeDecodeError as error:
        raise BadRequest("the path is not percent-encoded UTF-8") from error
