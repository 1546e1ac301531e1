"""GET /healthz (rest_contract section 7)."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.envelopes import Answer, failed, ok


async def health(call: Call) -> Answer:
    """Well, or 500 with one sentence: existing monitors look for exactly these codes."""
    trouble = await call.service.healthy()
    return ok() if trouble is None else failed(500, trouble)
