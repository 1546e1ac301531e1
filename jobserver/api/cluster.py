"""GET /cluster and planned moves (ours): servers, leader, who owns what; switchover, drain, undrain."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.envelopes import Answer, json_answer
from jobserver.api.parameters import Query, flag
from jobserver.errors import BadRequest
from jobserver.settings.units import seconds_of


async def cluster(call: Call) -> Answer:
    """The picture as this server has it."""
    return json_answer(await call.service.cluster())


async def switchover(call: Call) -> Answer:
    """POST /contexts/<name>/switchover?to=&grace=30s&keep-driver=: returns when the context runs on the other server."""
    moved = await call.service.switchover(
        call.name,
        call.query.get("to") or None,
        grace_of(call.query),
        keep_driver=flag(call.query, "keep-driver", default=False),
    )
    return json_answer(moved)


async def drain(call: Call) -> Answer:
    """POST /cluster/<server>/drain?grace=30s&keep-drivers=: 202; GET /cluster shows `draining`, then `drained`."""
    keep_drivers = flag(call.query, "keep-drivers", default=False)
    await call.service.drain(call.name, grace_of(call.query), keep_drivers=keep_drivers)
    return json_answer({"server": call.name, "state": "draining"}, 202)


async def undrain(call: Call) -> Answer:
    """POST /cluster/<server>/undrain"""
    await call.service.undrain(call.name)
    return json_answer({"server": call.name, "state": "alive"})


def grace_of(query: Query) -> float | None:
    """Seconds of a duration with its unit; None when absent. Raises BadRequest."""
    text = query.get("grace")
    if not text:
        return None
    try:
        return seconds_of(text)
    except ValueError as error:
        raise BadRequest(f"grace must be {error}, not '{text[:100]}'") from error
