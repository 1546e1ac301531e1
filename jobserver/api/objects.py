"""Routes under /contexts/<name>/objects (ours): the named objects of a running context."""

from __future__ import annotations

from typing import Any

from jobserver.api.calls import Call
from jobserver.api.context_names import of_context
from jobserver.api.envelopes import Answer, json_answer, ok
from jobserver.api.parameters import Whole, Word
from jobserver.errors import BadRequest
from jobserver.model import NamedObjectInfo, ObjectDeed, ObjectOrder

REFRESH = Word("refresh", "Build the object anew.")
REVERT = Word("revert", "Version to go back to.")
TIMEOUT = Whole("timeout", "Seconds to wait for the build; it goes on after them.", lowest=0)


async def list_objects(call: Call) -> Answer:
    """GET /contexts/<name>/objects"""
    found = await of_context(call, call.name, call.service.named_objects)
    return json_answer([_shown(item) for item in found])


async def get_object(call: Call) -> Answer:
    """GET /contexts/<name>/objects/<object>: with its schema, and older versions if it is damaged."""
    return _answer(await _carried_out(call, ObjectOrder(call.item)))


async def delete_object(call: Call) -> Answer:
    """DELETE /contexts/<name>/objects/<object>: durable when it is answered."""
    await _carried_out(call, ObjectOrder(call.item, ObjectDeed.DESTROY))
    return ok(f"Named object {call.item} destroyed")


async def post_object(call: Call) -> Answer:
    """POST /contexts/<name>/objects/<object>?refresh or ?revert=<version>: 202 while a refresh goes on behind the answer."""
    wanted = [key for key in (REFRESH.name, REVERT.name) if key in call.query]
    if len(wanted) != 1:
        raise BadRequest(
            "say what to do with the object: ?refresh builds it anew, ?revert=<version> goes back to an older version"
        )
    if wanted == ["revert"]:
        order = ObjectOrder(call.item, ObjectDeed.REVERT, version=call.query[REVERT.name])
    else:
        seconds = TIMEOUT.read(call.query)
        wait = call.limits.default_wait if seconds is None else min(seconds, call.limits.max_wait)
        order = ObjectOrder(call.item, ObjectDeed.REFRESH, float(wait))
    return _answer(await _carried_out(call, order))


async def _carried_out(call: Call, order: ObjectOrder) -> NamedObjectInfo | None:
    return await of_context(call, call.name, lambda name: call.service.named_object(name, order))


def _answer(found: NamedObjectInfo | None) -> Answer:
    if found is None:
        return ok()
    return json_answer(_shown(found), 202 if found.details.get("refreshing") else 200)


def _shown(item: NamedObjectInfo) -> dict[str, Any]:
    return {"name": item.name, "kind": item.kind, "version": item.version, **item.details}
