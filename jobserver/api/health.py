"""GET /healthz (rest_contract section 7)."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.envelopes import Answer, failed, json_answer, ok


async def health(call: Call) -> Answer:
    """Well, or 500 with one sentence: existing monitors look for exactly these codes.

    A server that serves with less than all its parts is still well; it says so under `degraded`.
    """
    found = await call.service.health()
    if found.down is not None:
        return failed(500, found.down)
    if found.degraded:
        return json_answer({"status": "SUCCESS", "degraded": list(found.degraded)})
    return ok()
