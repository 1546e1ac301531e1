"""What a client is told of a job that failed."""

from __future__ import annotations

from typing import Any

from live_cluster import Reply


def error_of(reply: Reply) -> dict[str, Any]:
    """The error in a sync answer of a job that failed."""
    assert reply.status == 200, str(reply)[:3000]
    assert reply.json["status"] == "ERROR"
    assert set(reply.json["result"]) == {"message", "errorClass", "stack"}
    return dict(reply.json["result"])
