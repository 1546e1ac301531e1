"""What a submission that was not inserted is told. Pure: the words of rest_contract 5.5, and the rule of keys."""

from __future__ import annotations

from jobserver.errors import ContextStopping, JobServerError, KeyReused, NotFound, QueueFull
from jobserver.model import ContextRecord, ContextState, JobRecord


def refusal(context_name: str, context: ContextRecord | None, queue_limit: int) -> JobServerError:
    """Why the context (as it is now) did not take the job."""
    if context is None or context.state.final:
        return NotFound(f"context {context_name} not found")
    if context.state is ContextState.STOPPING:
        return ContextStopping("Context stop in progress")
    shown = "ad-hoc" if context.adhoc else context_name
    return QueueFull(f"Too many running jobs ({queue_limit}) for job context '{shown}'")


def check_same_request(existing: JobRecord, asked: JobRecord) -> None:
    """Raises KeyReused when the existing job was submitted by another request than `asked`."""
    if existing.request_digest != asked.request_digest:
        raise KeyReused(
            "this Idempotency-Key was used for a different request; repeat that request unchanged or take a new key"
        )
