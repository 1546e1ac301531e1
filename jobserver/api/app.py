"""The HTTP shell: aiohttp requests in, answers out. Decides nothing but the order of the steps.

One catch-all handler routes by our own table, as the dialect's trailing slashes, method override and refusals are not
those of aiohttp; the table is a lookup, so this is also the quicker way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from jobserver.api import (
    binaries,
    cluster,
    configs,
    contexts,
    cors,
    data,
    health,
    history,
    job_views,
    jobs,
    metrics,
    objects,
    pages,
    queries,
)
from jobserver.api.calls import Call
from jobserver.api.envelopes import Answer, Streamed, error_answer, internal_error, text_answer
from jobserver.api.limits import ApiLimits
from jobserver.api.metrics import Metrics
from jobserver.api.permissions import NEEDS
from jobserver.api.principals import Everybody, Principals
from jobserver.api.routes import Route, Target, effective_method, target
from jobserver.errors import JobServerError
from jobserver.service import Service

log = logging.getLogger(__name__)

Handler = Callable[[Call], Awaitable[Answer | Streamed]]

HANDLERS: dict[Route, Handler] = {
    Route.LIST_BINARIES: binaries.list_binaries,
    Route.GET_BINARY: binaries.get_binary,
    Route.POST_BINARY: binaries.post_binary,
    Route.POST_JAR: binaries.post_jar,
    Route.DELETE_BINARY: binaries.delete_binary,
    Route.LIST_CONTEXTS: contexts.list_contexts,
    Route.GET_CONTEXT: contexts.get_context,
    Route.LIST_OBJECTS: objects.list_objects,
    Route.GET_OBJECT: objects.get_object,
    Route.POST_OBJECT: objects.post_object,
    Route.DELETE_OBJECT: objects.delete_object,
    Route.POST_CONTEXT: contexts.post_context,
    Route.DELETE_CONTEXT: contexts.delete_context,
    Route.RESET_CONTEXTS: contexts.reset_contexts,
    Route.LIST_JOBS: jobs.list_jobs,
    Route.GET_JOB: jobs.get_job,
    Route.GET_JOB_CONFIG: jobs.get_job_config,
    Route.GET_PROGRESS: job_views.get_progress,
    Route.GET_EVENTS: job_views.get_events,
    Route.GET_LOG: job_views.get_log,
    Route.GET_RESULT: job_views.get_result,
    Route.POST_JOB: jobs.post_job,
    Route.DELETE_JOB: jobs.delete_job,
    Route.DELETE_JOBS: jobs.delete_jobs,
    Route.GET_JOB_HISTORY: history.job_history,
    Route.LIST_CONFIGS: configs.list_configs,
    Route.GET_CONFIG: configs.get_config,
    Route.PUT_CONFIG: configs.put_config,
    Route.POST_CONFIG: configs.put_config,
    Route.DELETE_CONFIG: configs.delete_config,
    Route.LIST_QUERIES: queries.list_queries,
    Route.GET_QUERY: queries.get_query,
    Route.PUT_QUERY: queries.put_query,
    Route.POST_QUERY: queries.put_query,
    Route.DELETE_QUERY: queries.delete_query,
    Route.LIST_OPERATIONS: history.list_operations,
    Route.LIST_DATA: data.list_data,
    Route.POST_DATA: data.post_data,
    Route.DELETE_DATA: data.delete_data,
    Route.RESET_DATA: data.reset_data,
    Route.HEALTH: health.health,
    Route.STATUSZ: pages.statusz,
    Route.METRICZ: metrics.metricz,
    Route.PROMETHEUS: metrics.prometheus,
    Route.CLUSTER: cluster.cluster,
    Route.SWITCHOVER: cluster.switchover,
    Route.DRAIN: cluster.drain,
    Route.UNDRAIN: cluster.undrain,
    Route.OPENAPI: pages.openapi,
    Route.PAGE: pages.page,
    Route.PAGE_FILE: pages.page_file,
    Route.DOCS: pages.docs,
}


AUDITED: dict[Route, str] = {
    Route.POST_BINARY: "upload",
    Route.POST_JAR: "upload",
    Route.DELETE_BINARY: "delete binary",
    Route.POST_CONTEXT: "create context",
    Route.DELETE_CONTEXT: "delete context",
    Route.RESET_CONTEXTS: "reset contexts",
    Route.POST_OBJECT: "change object",
    Route.DELETE_OBJECT: "delete object",
    Route.DELETE_JOB: "kill",
    Route.DELETE_JOBS: "kill all of a context",
    Route.PUT_CONFIG: "save config",
    Route.POST_CONFIG: "save config",
    Route.DELETE_CONFIG: "delete config",
    Route.PUT_QUERY: "save query",
    Route.POST_QUERY: "save query",
    Route.DELETE_QUERY: "delete query",
    Route.POST_DATA: "upload data",
    Route.DELETE_DATA: "delete data",
    Route.RESET_DATA: "reset data",
    Route.SWITCHOVER: "switchover",
    Route.DRAIN: "drain",
    Route.UNDRAIN: "undrain",
}
"""What the audit keeps, and its word for it. Jobs have a history of their own."""

_NOTED = 255

COUNTERS = web.AppKey("api_counters", Metrics)


def make_app(
    service: Service, limits: ApiLimits | None = None, principals: Principals | None = None
) -> web.Application:
    """The REST API on a service. Sub-applications added to it (`/internal`) are found before the catch-all.

    Without `principals` everybody may do everything.
    """
    bounds = limits or ApiLimits()
    app = web.Application(client_max_size=bounds.max_body)
    app[COUNTERS] = Metrics(service)
    api = _Api(service, bounds, app[COUNTERS], principals or Everybody())
    app.on_shutdown.append(api.end_lasting)
    for path in ("/jobs", "/{path:(?s:.*)}"):  # the busiest path is found without a pattern
        app.router.add_route("*", path, api.serve, expect_handler=_expect)
    return app


class _Api:
    """Serves every request on one service."""

    def __init__(self, service: Service, limits: ApiLimits, metrics: Metrics, principals: Principals) -> None:
        self._principals = principals
        self._service = service
        self._limits = limits
        self._metrics = metrics
        self._lasting: set[asyncio.Task[Any]] = set()

    async def end_lasting(self, _app: web.Application) -> None:
        """This server leaves: who watches goes on at another."""
        for task in self._lasting:
            task.cancel()

    async def _stream(self, answer: Streamed, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        if not answer.lasting or task is None:
            return await _stream(answer, request)
        self._lasting.add(task)
        try:
            return await _stream(answer, request)
        finally:
            self._lasting.discard(task)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Never raises but for cancellation: whatever happens becomes an answer."""
        began = time.perf_counter()
        answer: Answer | Streamed | None = (
            cors.preflight(request.method, request.headers) if request.method == "OPTIONS" else None
        )
        route = None
        if answer is None:
            answer, route = await self._answer(request)
        self._metrics.answered(route, request.method, answer.status, time.perf_counter() - began)
        if isinstance(answer, Streamed):
            return await self._stream(answer, request)
        return _response(answer, request.headers.get("Origin"))

    async def _answer(self, request: web.Request) -> tuple[Answer | Streamed, Route | None]:
        found: Target | None = None
        try:
            query = request.query
            method = effective_method(request.method, query.get("_method"))
            found = target(method, request.rel_url.raw_path)
            who = await self._principals.admit(request.headers, NEEDS[found.route])
            call = Call(
                self._service, self._limits, found.name, query, request, self._metrics, found.item, who
            )
            answer = await HANDLERS[found.route](call)
            await _note(call, found, answer)
            return answer, found.route
        except JobServerError as error:
            route = None if found is None else found.route
            return error_answer(error, route), route
        except Exception:  # the boundary of a request: nothing of ours may reach the client
            self._metrics.unforeseen()
            log.exception(
                "a request ended in an error nobody foresaw: %s %s", request.method, request.raw_path
            )
            return internal_error(), None if found is None else found.route


async def _note(call: Call, found: Target, answer: Answer | Streamed) -> None:
    """What changed the cluster goes to the audit, once it is done."""
    action = AUDITED.get(found.route)
    if action is None or answer.status >= 400:
        return
    detail = {name: value[:_NOTED] for name, value in call.query.items() if name != "_method"}
    if found.item:
        detail["item"] = found.item[:_NOTED]
    await call.service.records.note(call.principal, action, found.name[:_NOTED], detail)


def _response(answer: Answer, origin: str | None) -> web.Response:
    return web.Response(body=answer.body, status=answer.status, headers=_headers(answer, origin))


def _headers(answer: Answer | Streamed, origin: str | None) -> dict[str, str]:
    headers = {"Content-Type": answer.content_type, **answer.headers}
    if origin is not None and cors.speakable(origin):
        headers.update(cors.shared_with(origin))
    return headers


async def _stream(answer: Streamed, request: web.Request) -> web.StreamResponse:
    """What fails in the middle ends the connection, so that no client takes a part for the whole."""
    headers = _headers(answer, request.headers.get("Origin"))
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = answer.length
    try:
        async with contextlib.aclosing(answer.chunks) as chunks:
            await response.prepare(request)
            if request.method != "HEAD":
                async for chunk in chunks:
                    await response.write(chunk)
    except ConnectionError:  # the client has gone
        return response
    except JobServerError as error:
        log.warning("the stream of %s ended early: %s", request.raw_path, error.message)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Lets a client that asks first send its body. aiohttp's own handler fails on a header that is no text."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return _response(text_answer("The expectation of the Expect header cannot be met.", 417), None)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # else aiohttp takes the answer's head for already sent
    return None
