"""What is on record about the past: GET /jobs/<id>/history and GET /audit (both ours)."""

from __future__ import annotations

from jobserver.api.calls import Call
from jobserver.api.dates import instant
from jobserver.api.envelopes import Answer, json_answer
from jobserver.api.parameters import Whole

LIMIT = Whole("limit", "Most operations to list.", lowest=0)


async def job_history(call: Call) -> Answer:
    """GET /jobs/<id>/history: every state that the job came to, in the order of its life."""
    moves = await call.service.job_history(call.name)
    return json_answer(
        [
            {
                "attempt": move.attempt,
                "state": move.state.value,
                "at": instant(move.at),
                "server": move.server,
                "epoch": move.epoch,
                "reason": move.reason,
            }
            for move in moves
        ]
    )


async def list_operations(call: Call) -> Answer:
    """GET /audit: what operators and clients did to the cluster, newest first."""
    limit = LIMIT.read(call.query)
    most = call.limits.default_list if limit is None else min(limit, call.limits.max_list)
    return json_answer(
        [
            {
                "at": instant(operation.at),
                "principal": operation.principal,
                "action": operation.action,
                "target": operation.target,
                "detail": dict(operation.detail),
                "server": operation.server,
            }
            for operation in await call.service.records.operations(most)
        ]
    )
