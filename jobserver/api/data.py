"""Routes under /data (rest_contract section 6)."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.envelopes import JSON, Answer, json_answer, ok
from jobserver.api.parameters import Flag, Word

RESET = Word("reset", "Delete every data file.", ("reboot",), needed=True)
SYNC = Flag("sync", "Answer when it is done.", default=True)


async def list_data(call: Call) -> Answer:
    """GET /data: the paths, as jobs open them."""
    return json_answer(await call.service.list_data())


async def post_data(call: Call) -> Answer:
    """POST /data/<prefix>: whatever bytes; the answer has no `status`, as in the contract."""
    path = await call.service.upload_data(call.name, await call.body())
    return json_answer({"result": {"filename": path}})


async def delete_data(call: Call) -> Answer:
    """DELETE /data/<percent-encoded path>"""
    await call.service.delete_data(call.name)
    return Answer(200, b"OK", JSON)  # no JSON, but that is what existing servers send


async def reset_data(call: Call) -> Answer:
    """PUT /data?reset=reboot"""
    RESET.read(call.query)
    wait = SYNC.read(call.query)
    await call.service.reset_data()
    return ok("Data reset" if wait else "Data reset requested")
