"""The two time formats and the duration of rest_contract 1.3. Pure: the zone is a parameter."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo


def job_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """`2013-05-29T00:00:00.000Z`, or with an offset: jobs show the server's own zone (None: the system's)."""
    text = moment.astimezone(zone).isoformat(timespec="milliseconds")
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def instant(moment: datetime) -> str:
    """UTC with exactly three fraction digits and `Z`: binaries and contexts."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def duration(started: datetime, ended: datetime | None) -> str:
    """`"6.341 secs"`, or the contract's words for a job that has not ended."""
    if ended is None:
        return "Job not done yet"
    took = ended - started
    return f"{max(0, (took.days * 86400 + took.seconds) * 1000 + took.microseconds // 1000) / 1000.0} secs"
