"""Rows to records and back. Pure: no SQL runs here.

Times become microseconds since 1970 in UTC, nested values become JSON texts (ASCII, so that no text of a job can be
refused by a database's encoding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from jobserver.model import (
    BinaryRecord,
    BinaryRef,
    BinaryType,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    FenceRow,
    JobRecord,
    JobSpec,
    JobState,
    ListedJob,
    OnFailover,
    OutcomeKind,
    Pool,
    ResultFormat,
    SqlQuery,
)
from jobserver.store.tables import jobs

Values = dict[str, Any]

MAIN_CLASS = 255
"""Characters of a main class that listings compare: what an index holds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SURROGATE = re.compile("[\ud800-\udfff]")


def micros(at: datetime) -> int:
    """The stored form of an aware datetime. Exact: no float is involved."""
    return (at - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    """The datetime of a stored time, in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def storable(text: str) -> bool:
    """Whether a text can be a key at all: a lone surrogate has no UTF-8, so nothing is stored under it."""
    return _SURROGATE.search(text) is None


def storable_json(text: str | None) -> str | None:
    """The same JSON with lone surrogates written as escapes; they can only stand inside its strings."""
    if text is None or text.isascii():
        return text
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def json_text(value: object) -> str:
    """The stored form of any JSON value: compact and in ASCII."""
    return _dumps(value)


def text_of_json(text: str | None) -> str | None:
    """A text that was stored as JSON."""
    if text is None:
        return None
    value: str = json.loads(text)
    return value


def error_text(error: ErrorInfo | None) -> str | None:
    return None if error is None else _dumps(asdict(error))


def driver_text(driver: DriverRecord | None) -> str | None:
    return None if driver is None else _dumps(asdict(driver))


def failover_text(failover: Failover) -> str:
    plain = {
        "at": micros(failover.at),
        "kind": failover.kind,
        "seconds": failover.seconds,
        "steps": dict(failover.steps),
    }
    return _dumps({**plain, "damage": list(failover.damage)} if failover.damage else plain)


def binary_values(record: BinaryRecord) -> Values:
    return {
        "name": record.name,
        "type": record.type.value,
        "digest": record.digest,
        "size": record.size,
        "uploaded_at": micros(record.uploaded_at),
    }


def binary_of(row: Row[Any]) -> BinaryRecord:
    return BinaryRecord(
        name=row.name,
        type=BinaryType(row.type),
        digest=row.digest,
        size=row.size,
        uploaded_at=instant(row.uploaded_at),
    )


def context_values(record: ContextRecord) -> Values:
    return {
        "id": record.id,
        "name": record.name,
        "active_name": None if record.state.final else record.name,
        "state": record.state.value,
        "adhoc": record.adhoc,
        "started_at": micros(record.started_at),
        "ended_at": None if record.ended_at is None else micros(record.ended_at),
        "settings": _dumps(record.settings),
        "error": error_text(record.error),
        "driver": driver_text(record.driver),
        "last_failover": None if record.last_failover is None else failover_text(record.last_failover),
    }


def context_of(row: Row[Any]) -> ContextRecord:
    return ContextRecord(
        id=row.id,
        name=row.name,
        settings=json.loads(row.settings),
        state=ContextState(row.state),
        adhoc=bool(row.adhoc),
        started_at=instant(row.started_at),
        ended_at=_instant_or_none(row.ended_at),
        error=_error_of(row.error),
        driver=None if row.driver is None else DriverRecord(**json.loads(row.driver)),
        last_failover=None if row.last_failover is None else _failover_of(row.last_failover),
    )


def fence_of(row: Row[Any]) -> FenceRow:
    return FenceRow(
        context_id=row.context_id,
        epoch=row.epoch,
        owner=row.owner,
        incarnation=row.incarnation,
        token=row.token,
    )


def job_values(record: JobRecord) -> Values:
    return {
        "id": record.id,
        "context_id": record.context_id,
        "context_name": record.context_name,
        "state": record.state.value,
        "submitted_at": micros(record.submitted_at),
        "changed_at": micros(record.submitted_at),
        "attempt": record.attempt,
        "deaths": record.deaths,
        "priority": record.spec.priority,
        "principal": record.principal,
        "idempotency_key": record.idempotency_key,
        "request_digest": record.request_digest,
        "spec": _spec_text(record.spec),
        "main_class": record.spec.main_class[:MAIN_CLASS],
    }


_JOB = tuple(column.name for column in jobs.c)


def job_of(row: Row[Any]) -> JobRecord:
    """A job from a row of all columns, in the order of the table, or of all but the last, `result`, as lists are read."""
    # by name a row costs four times as much, and a list has many
    fields = dict(zip(_JOB, row, strict=False))
    outcome = fields["outcome"]
    return JobRecord(
        id=fields["id"],
        context_id=fields["context_id"],
        context_name=fields["context_name"],
        spec=spec_of(fields["spec"], fields["priority"]),
        state=JobState(fields["state"]),
        submitted_at=instant(fields["submitted_at"]),
        attempt=fields["attempt"],
        deaths=fields["deaths"],
        started_at=_instant_or_none(fields["started_at"]),
        ended_at=_instant_or_none(fields["ended_at"]),
        error=_error_of(fields["error"]),
        result=fields.get("result"),
        principal=fields["principal"],
        idempotency_key=fields["idempotency_key"],
        request_digest=fields["request_digest"],
        outcome=None if outcome is None else OutcomeKind(outcome),
        changed_at=instant(fields["changed_at"]),
    )


def listed_of(row: Sequence[Any]) -> ListedJob:
    """A job in a list, from the columns that `listings` reads; the spec is there where the class is not whole."""
    job_id, context_id, context_name, main_class, state, submitted, started, ended, error, spec = row
    return ListedJob(
        job_id,
        context_id,
        context_name,
        main_class if spec is None else json.loads(spec)["main_class"],
        JobState(state),
        instant(submitted),
        None if started is None else instant(started),
        None if ended is None else instant(ended),
        None if error is None else _error_of(error),
    )


def spec_of(text: str, priority: int) -> JobSpec:
    """The spec in a row; its priority has a column of its own."""
    fields = json.loads(text)
    return JobSpec(
        main_class=fields["main_class"],
        binaries=tuple(_ref_of(ref) for ref in fields["binaries"]),
        config=fields["config"],
        max_attempts=fields["max_attempts"],
        on_failover=OnFailover(fields["on_failover"]),
        priority=priority,
        pool=Pool(fields["pool"]) if "pool" in fields else Pool.INTERACTIVE,
        time_limit=fields.get("time_limit"),
        sql=None if fields.get("sql") is None else SqlQuery(**fields["sql"]),
        result_format=ResultFormat(fields["result_format"])
        if "result_format" in fields
        else ResultFormat.JSON,
    )


def _spec_text(spec: JobSpec) -> str:
    fields: dict[str, Any] = {
        "main_class": spec.main_class,
        "binaries": [[ref.name, ref.type.value, ref.digest] for ref in spec.binaries],
        "config": spec.config,
        "max_attempts": spec.max_attempts,
        "on_failover": spec.on_failover.value,
    }
    if spec.pool is not Pool.INTERACTIVE:
        fields["pool"] = spec.pool.value
    if spec.time_limit is not None:
        fields["time_limit"] = spec.time_limit
    if spec.sql is not None:
        fields["sql"] = asdict(spec.sql)
    if spec.result_format is not ResultFormat.JSON:
        fields["result_format"] = spec.result_format.value
    return _dumps(fields)


def _ref_of(fields: list[str]) -> BinaryRef:
    name, kind, digest = fields
    return BinaryRef(name=name, type=BinaryType(kind), digest=digest)


def _error_of(text: str | None) -> ErrorInfo | None:
    return None if text is None else ErrorInfo(**json.loads(text))


def _failover_of(text: str) -> Failover:
    fields = json.loads(text)
    damage = tuple(fields.get("damage", ()))
    return Failover(
        at=instant(fields["at"]),
        kind=fields["kind"],
        seconds=fields["seconds"],
        damage=damage,
        steps=fields.get("steps", {}),
    )


def _instant_or_none(value: int | None) -> datetime | None:
    return None if value is None else instant(value)


_dumps = json.JSONEncoder(separators=(",", ":")).encode
"""One encoder for all: `json.dumps` makes a new one for each text that is not written as by default."""
