"""Routes under /queries (ours): SQL texts kept under a name, for `POST /jobs?query=<name>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobserver.api.bodies import configuration, refuse
from jobserver.api.calls import Call
from jobserver.api.dates import instant
from jobserver.api.envelopes import Answer, json_answer, ok
from jobserver.api.names import check_config_name, check_context_name
from jobserver.api.paging import next_page
from jobserver.api.parameters import Whole, Word
from jobserver.api.statements import arguments, sql_text
from jobserver.records import laid_under
from jobserver.saved import SavedQuery

LIMIT = Whole("limit", "Most queries to list.", lowest=0)
AFTER = Word("after", "List the names behind this one.")


async def list_queries(call: Call) -> Answer:
    """GET /queries: by name."""
    limit = LIMIT.read(call.query)
    most = call.limits.default_list if limit is None else min(limit, call.limits.max_list)
    found = await call.service.records.queries(most + 1, AFTER.read(call.query) or "")
    more = len(found) > most > 0
    headers = next_page(call, after=found[most - 1].name) if more else None
    return json_answer([_shown(query) for query in found[:most]], headers=headers)


async def get_query(call: Call) -> Answer:
    """GET /queries/<name>"""
    return json_answer(_shown(await call.service.records.query(call.name)))


async def put_query(call: Call) -> Answer:
    """PUT or POST /queries/<name>: `sql`, and optionally `args` (values by name) and `context`."""
    name = check_config_name(call.name)
    body = await configuration(await call.body(), call.charset, call.limits)
    text, args, context = sql_text(body.get("sql"), call.limits), body.get("args", {}), body.get("context")
    if not isinstance(args, dict):
        refuse("args of a saved query must be an object: values by name")
    arguments(args)
    if context is not None and not isinstance(context, str):
        refuse("context must be the name of a context")
    if context is not None:
        check_context_name(context)
    new = await call.service.records.save_query(name, text, args, context, call.principal)
    return ok(status=201 if new else 200)


async def delete_query(call: Call) -> Answer:
    """DELETE /queries/<name>"""
    await call.service.records.delete_query(call.name)
    return ok()


def laid_under_query(saved: SavedQuery, posted: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a submission that names the query. Its text cannot be replaced."""
    merged = laid_under({"args": dict(saved.defaults)}, posted)
    return {**merged, "sql": saved.text}


def _shown(query: SavedQuery) -> dict[str, Any]:
    return {
        "name": query.name,
        "sql": query.text,
        "args": dict(query.defaults),
        "context": query.context,
        "principal": query.principal,
        "createdAt": instant(query.created_at),
        "changedAt": instant(query.changed_at),
    }
