"""What a submission that was not inserted is told. Pure: the words of rest_contract 5.5, and the rule of keys."""

from __future__ import annotations

from jobserver.errors import (
    BadRequest,
    ContextStopping,
    JobServerError,
    KeyReused,
    NotFound,
    Outdated,
    QueueFull,
)
from jobserver.lifecycle import IllegalMove
from jobserver.model import ContextRecord, ContextState, JobRecord, JobState
from jobserver.store.rows import storable

MAX_PRIORITY = 2**31 - 1
"""The largest priority, and the smallest negated."""
LONGEST_NAME = 255
"""Characters of a key and of a user's name that their columns hold. Longer ones must not come to an insertion that passes
over what cannot be inserted: MySQL would cut them, and two keys became one."""


def check_insertable(record: JobRecord) -> None:
    """Raises BadRequest for what no store can hold, IllegalMove for a job that does not begin at its beginning."""
    if record.state is not JobState.QUEUED or record.attempt:
        raise IllegalMove(
            f"a job begins as QUEUED with attempt 0, not as {record.state} with attempt {record.attempt}"
        )
    for what, text in (
        ("the Idempotency-Key", record.idempotency_key),
        ("the user's name", record.principal),
    ):
        check_storable(what, text)
        if text is not None and len(text) > LONGEST_NAME:
            raise BadRequest(f"{what} has {len(text)} characters; it may have {LONGEST_NAME}")
    if abs(record.spec.priority) > MAX_PRIORITY:
        raise BadRequest(
            f"the priority {record.spec.priority} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}"
        )


def check_storable(what: str, text: str | None) -> None:
    """Raises BadRequest for a text that has no encoding."""
    if text is not None and not storable(text):
        raise BadRequest(f"{what} holds characters that are no valid Unicode")


def refusal(
    context_name: str, context: ContextRecord | None, queue_limit: int, *, outdated: bool
) -> JobServerError:
    """Why the context (as it is now) did not take the job. `outdated`: its binary is not the latest of the name."""
    if context is None or context.state.final:
        return NotFound(f"context {context_name} not found")
    if context.state is ContextState.STOPPING:
        return ContextStopping("Context stop in progress")
    if outdated:
        return Outdated(
            "the job's binary was replaced or deleted while the job was submitted: submit it again"
        )
    shown = "ad-hoc" if context.adhoc else context_name
    return QueueFull(f"Too many running jobs ({queue_limit}) for job context '{shown}'")


def check_same_request(existing: JobRecord, asked: JobRecord) -> None:
    """Raises KeyReused when the existing job was submitted by another request than `asked`."""
    check_same_digest(existing, asked.request_digest)


def check_same_digest(existing: JobRecord, digest: str | None) -> None:
    """Raises KeyReused when the existing job was submitted by a request of another digest."""
    if existing.request_digest != digest:
        raise KeyReused(
            "this Idempotency-Key was used for a different request; repeat that request unchanged or take a new key"
        )
