"""Jobs as JSON between servers. Not the public form: that is made in the routes."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from jobserver.model import JobRecord

_ADAPTER = TypeAdapter(JobRecord)


def job_fields(job: JobRecord) -> dict[str, Any]:
    """Every field of the record in JSON's types."""
    fields: dict[str, Any] = _ADAPTER.dump_python(job, mode="json")
    return fields


def job_of(fields: dict[str, Any]) -> JobRecord:
    """The record in fields made by `job_fields`. Raises ValueError."""
    return _ADAPTER.validate_python(fields)
