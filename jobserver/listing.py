"""Which jobs a list shows: filters, and the place where a page ended. Pure.

Jobs are listed newest first, by the time of their submission and their id. A cursor names the last job of a page by both, so
the next page costs as much as the first and nothing is shown twice, whatever was submitted meanwhile.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from jobserver.errors import BadRequest
from jobserver.model import JobRecord, JobState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_CURSOR = 120
_LATEST = 2**53


@dataclass(frozen=True, slots=True)
class Place:
    """Behind the job that was submitted at that time and has that id."""

    at: datetime
    job_id: str

    def cursor(self) -> str:
        """The opaque text that clients send back."""
        text = f"{(self.at - _EPOCH) // _MICROSECOND}.{self.job_id}"
        return base64.urlsafe_b64encode(text.encode("ascii", "replace")).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """The place that a cursor names. Raises BadRequest."""
    if len(cursor) <= _LONGEST_CURSOR:
        try:
            text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode(
                "ascii"
            )
        except (ValueError, binascii.Error):
            text = ""
        micros, _, job_id = text.partition(".")
        if micros.isdigit() and job_id and int(micros) < _LATEST:
            return Place(_EPOCH + int(micros) * _MICROSECOND, job_id)
    raise BadRequest(
        "cursor is not one of this server: take it from the Link header of a page, or leave it out"
    )


@dataclass(frozen=True, slots=True)
class JobQuery:
    """At most `limit` jobs that fit every given filter, from `after` on and without the first `offset` of them.

    `since` and `until` bound the time of submission: from the one on, before the other. `context` and `main_class` are
    compared letter by letter. `states` empty: no job at all.
    """

    limit: int
    states: frozenset[JobState] | None = None
    context: str | None = None
    main_class: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: Place | None = None
    offset: int = 0

    def takes(self, job: JobRecord) -> bool:
        """Whether the job fits the filters and lies behind `after`."""
        return (
            (self.states is None or job.state in self.states)
            and self.context in (None, job.context_name)
            and self.main_class in (None, job.spec.main_class)
            and (self.since is None or job.submitted_at >= self.since)
            and (self.until is None or job.submitted_at < self.until)
            and (self.after is None or (job.submitted_at, job.id) < (self.after.at, self.after.job_id))
        )

    def with_one_more(self) -> JobQuery:
        """The same for one job more: whether there is a next page."""
        return replace(self, limit=self.limit + 1)
