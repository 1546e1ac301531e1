"""One request as the handlers see it: what was asked, by whom, and a way to read the body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from jobserver.api.envelopes import Answer
from jobserver.api.limits import ApiLimits
from jobserver.api.parameters import Query
from jobserver.service import Service


@dataclass(frozen=True, slots=True)
class Call:
    """A routed request. `name` is the decoded name or id in its path; `uri` is path and query as sent."""

    service: Service
    limits: ApiLimits
    name: str
    method: str
    path: str
    uri: str
    query: Query
    query_text: str
    content_type: str | None
    """The header as sent, or None."""
    charset: str | None
    idempotency_key: str | None
    principal: str
    body: Callable[[], Awaitable[bytes]]
    """Reads the whole body; raises the refusals of size and time."""


Handler = Callable[[Call], Awaitable[Answer]]
