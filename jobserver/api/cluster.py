"""GET /cluster (ours): servers, leader, and who owns what."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.envelopes import Answer, json_answer


async def cluster(call: Call) -> Answer:
    """The picture as this server has it."""
    return json_answer(await call.service.cluster())
