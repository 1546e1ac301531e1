"""Routes under /contexts (rest_contract section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobserver.api.bodies import configuration, refuse
from jobserver.api.calls import Call
from jobserver.api.code_names import check_names, name_list
from jobserver.api.context_names import of_context, told_of
from jobserver.api.dates import instant
from jobserver.api.envelopes import Answer, json_answer, ok
from jobserver.api.names import MAX_NAME, check_context_name, check_text
from jobserver.api.parameters import Flag, Word
from jobserver.model import Failover
from jobserver.proxy_users import asked_in, proxy_user, shown_name, stored_name, with_proxy_user
from jobserver.service import ContextView

_CODE_KEYS = ("cp", "dependent-jar-uris")

KEEP = Flag(
    "keep-checkpoint", "Let its checkpoint stay, for a new context that is started with restore-from."
)
FORCE = Flag("force", "End the driver at once instead of letting running jobs be cancelled first.")
RESET = Word("reset", "Stop every context and start the configured ones again.", ("reboot",), needed=True)
SYNC = Flag("sync", "Answer when it is done.", default=True)


async def list_contexts(call: Call) -> Answer:
    """GET /contexts"""
    names = await call.service.list_contexts()
    mine = (shown_name(call.limits.proxy_users, call.caller, name) for name in names)
    return json_answer([name for name in mine if name is not None])


async def get_context(call: Call) -> Answer:
    """GET /contexts/<name>"""
    view = await of_context(call, call.name, call.service.context)
    stored = view.record.name
    return json_answer(shown(view, shown_name(call.limits.proxy_users, call.caller, stored) or stored))


async def post_context(call: Call) -> Answer:
    """POST /contexts/<name>: returns when the context runs."""
    check_context_name(call.name)
    config = await configuration(await call.body(), call.charset, call.limits)
    settings = merged_settings(call.query, config)
    for key in _CODE_KEYS:
        check_names(name_list(key, settings.get(key)), call.limits.max_binaries)
    rule = call.limits.proxy_users
    settings = with_proxy_user(settings, proxy_user(rule, call.caller, asked_in(settings)))
    stored = check_text("context name", stored_name(rule, call.caller, call.name), MAX_NAME)
    with told_of(call.name, stored):
        await call.service.create_context(stored, settings)
    return ok("Context initialized")


async def delete_context(call: Call) -> Answer:
    """DELETE /contexts/<name>: 202 with the address to poll when it is still stopping at the end of the wait."""
    force = FORCE.read(call.query)
    keep = KEEP.read(call.query)
    if await of_context(
        call, call.name, lambda name: call.service.delete_context(name, force=force, keep=keep)
    ):
        return ok("Context stopped")
    return Answer(202, b"", headers={"Location": call.uri, "Retry-After": "1"})


async def reset_contexts(call: Call) -> Answer:
    """PUT /contexts?reset=reboot"""
    RESET.read(call.query)
    wait = SYNC.read(call.query)
    await call.service.reset_contexts(wait=wait)
    return ok("Context reset" if wait else "Context reset requested")


def merged_settings(query: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Context settings under dotted keys: those of the query, overlaid by the body's `spark.context-settings`."""
    settings: dict[str, Any] = {key: value for key, value in query.items() if key != "_method"}
    block = config.get("spark.context-settings")  # a JSON body may hold the dotted key as it is
    spark = config.get("spark")
    if block is None and isinstance(spark, dict):
        block = spark.get("context-settings")
    if block is None:
        return settings
    if not isinstance(block, dict):
        refuse("spark.context-settings must be an object")
    settings.update(_flat(block, ""))
    return settings


def _flat(block: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in block.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def shown(view: ContextView, name: str) -> dict[str, Any]:
    """A context as the client sees it who calls it so: the contract's keys in their order, then ours."""
    record = view.record
    value: dict[str, Any] = {
        "id": record.id,
        "name": name,
        "startTime": instant(record.started_at),
        "endTime": "Empty" if record.ended_at is None else instant(record.ended_at),
        "state": record.state.value,
    }
    driver = None if record.state.final else record.driver
    if driver is not None and driver.application_id is not None:
        value["applicationId"] = driver.application_id
        if driver.ui_url is not None:
            value["url"] = driver.ui_url
    return value | _ours(view)


def _ours(view: ContextView) -> dict[str, Any]:
    last = view.record.last_failover
    return {
        "epoch": view.epoch,
        "owner": view.owner,
        "standbys": [dict(standby) for standby in view.standbys],
        "lastFailover": None if last is None else _failover(last),
        "data": None if view.data is None else dict(view.data),
    }


def _failover(last: Failover) -> dict[str, Any]:
    plain = {"at": instant(last.at), "kind": last.kind, "seconds": last.seconds}
    return {**plain, "damage": list(last.damage)} if last.damage else plain
