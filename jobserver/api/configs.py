"""Routes under /configs (ours): configurations kept under a name, for `POST /jobs?config=<name>`."""

from __future__ import annotations

import json

from jobserver.api.bodies import configuration
from jobserver.api.calls import Call
from jobserver.api.dates import instant
from jobserver.api.envelopes import JSON, Answer, encoded, json_answer, ok
from jobserver.api.names import check_config_name
from jobserver.api.paging import next_page
from jobserver.api.parameters import Whole, Word

LIMIT = Whole("limit", "Most configs to list.", lowest=0)
AFTER = Word("after", "List the names behind this one.")


async def list_configs(call: Call) -> Answer:
    """GET /configs: by name, without their bodies."""
    limit = LIMIT.read(call.query)
    most = call.limits.default_list if limit is None else min(limit, call.limits.max_list)
    found = await call.service.records.configs(most + 1, AFTER.read(call.query) or "")
    shown = [
        {
            "name": config.name,
            "principal": config.principal,
            "createdAt": instant(config.created_at),
            "changedAt": instant(config.changed_at),
        }
        for config in found[:most]
    ]
    more = len(found) > most > 0
    return json_answer(shown, headers=next_page(call, after=found[most - 1].name) if more else None)


async def get_config(call: Call) -> Answer:
    """GET /configs/<name>: the saved configuration, printed for people."""
    config = await call.service.records.config(call.name)
    return Answer(200, encoded(json.dumps(config.body, ensure_ascii=False, indent=2)), JSON)


async def put_config(call: Call) -> Answer:
    """PUT or POST /configs/<name>: HOCON or JSON; 201 when the name is new, 200 when it replaces what had it."""
    name = check_config_name(call.name)
    body = await configuration(await call.body(), call.charset, call.limits)
    new = await call.service.records.save_config(name, body, call.principal)
    return ok(status=201 if new else 200)


async def delete_config(call: Call) -> Answer:
    """DELETE /configs/<name>"""
    await call.service.records.delete_config(call.name)
    return ok()
