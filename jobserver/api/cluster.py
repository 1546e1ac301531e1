"""GET /cluster and planned moves (ours): servers, leader, who owns what; switchover, drain, undrain."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.envelopes import Answer, json_answer
from jobserver.api.parameters import Flag, Span, Word

TO = Word("to", "Server that takes the context over; the best placed one if absent.")
GRACE = Span("grace", "How long running jobs may go on; those that have not ended then run again.")
KEEP_DRIVER = Flag("keep-driver", "The other server adopts the running driver.")
KEEP_DRIVERS = Flag("keep-drivers", "The other servers adopt the running drivers.")


async def cluster(call: Call) -> Answer:
    """The picture as this server has it."""
    return json_answer(await call.service.cluster())


async def switchover(call: Call) -> Answer:
    """POST /contexts/<name>/switchover?to=&grace=30s&keep-driver=: returns when the context runs on the other server."""
    moved = await call.service.switchover(
        call.name,
        TO.read(call.query),
        GRACE.read(call.query),
        keep_driver=KEEP_DRIVER.read(call.query),
    )
    return json_answer(moved)


async def drain(call: Call) -> Answer:
    """POST /cluster/<server>/drain?grace=30s&keep-drivers=: 202; GET /cluster shows `draining`, then `drained`."""
    keep_drivers = KEEP_DRIVERS.read(call.query)
    await call.service.drain(call.name, GRACE.read(call.query), keep_drivers=keep_drivers)
    return json_answer({"server": call.name, "state": "draining"}, 202)


async def undrain(call: Call) -> Answer:
    """POST /cluster/<server>/undrain"""
    await call.service.undrain(call.name)
    return json_answer({"server": call.name, "state": "alive"})
