"""Contexts: one living context per name, and moves that only the owner may make. Statements only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Update, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from jobserver.lifecycle import ACCEPTING_CONTEXT_STATES, LISTED_CONTEXT_STATES
from jobserver.model import ContextRecord, ContextState, ErrorInfo, Fence
from jobserver.store.guards import among, fence_values, fenced
from jobserver.store.rows import context_of, context_values, error_text, micros
from jobserver.store.tables import contexts, fences

_LIVING = select(contexts).where(contexts.c.active_name.is_not(None))

_STOP = (
    update(contexts)
    .where(contexts.c.id == bindparam("context"), among(contexts.c.state, ACCEPTING_CONTEXT_STATES))
    .values(state=ContextState.STOPPING.value)
)


def create(connection: Connection, record: ContextRecord) -> bool:
    """The context with its fence at epoch 0; False when its id or its living name is taken."""
    try:
        connection.execute(insert(contexts), context_values(record))
    except IntegrityError:
        return False
    fence = {"context_id": record.id, "epoch": 0, "owner": "", "incarnation": "", "token": ""}
    connection.execute(insert(fences), fence)
    return True


def by_id(connection: Connection, context_id: str) -> ContextRecord | None:
    row = connection.execute(select(contexts).where(contexts.c.id == context_id)).one_or_none()
    return None if row is None else context_of(row)


def latest(connection: Connection, name: str) -> ContextRecord | None:
    """The living context of that name, else the one that was started last."""
    newest = (
        select(contexts)
        .where(contexts.c.name == name)
        .order_by(contexts.c.active_name.is_(None), contexts.c.started_at.desc())
        .limit(1)
    )
    row = connection.execute(newest).one_or_none()
    return None if row is None else context_of(row)


def living(connection: Connection) -> list[ContextRecord]:
    """Every context that is not in a final state, oldest first."""
    records = [context_of(row) for row in connection.execute(_LIVING)]
    return sorted(records, key=lambda record: (record.started_at, record.id))


def listed(connection: Connection) -> list[ContextRecord]:
    """Those that GET /contexts shows, newest first."""
    return [record for record in reversed(living(connection)) if record.state in LISTED_CONTEXT_STATES]


def move(
    connection: Connection,
    fence: Fence,
    allowed_from: frozenset[ContextState],
    to: ContextState,
    at: datetime,
    error: ErrorInfo | None,
) -> bool:
    """The owner's move. In a final state the name becomes free again, in the same statement."""
    values: dict[str, Any] = {"new_error": error_text(error)}
    if to.final:
        values["new_ended_at"] = micros(at)
    return _changed(connection, _move_statement(allowed_from, to), fence, values)


def set_document(connection: Connection, fence: Fence, column: str, text: str | None) -> bool:
    """The owner's note in one of the JSON columns (`driver`, `last_failover`)."""
    return _changed(connection, _document_statement(column), fence, {"text": text})


def request_stop(connection: Connection, context_id: str) -> bool:
    """The wish that a context ends: any server may note it, its owner carries it out."""
    return connection.execute(_STOP, {"context": context_id}).rowcount == 1


def _changed(connection: Connection, statement: Update, fence: Fence, values: Mapping[str, Any]) -> bool:
    result = connection.execute(statement, {"context": fence.context_id, **fence_values(fence), **values})
    return result.rowcount == 1


@cache
def _move_statement(allowed_from: frozenset[ContextState], to: ContextState) -> Update:
    values: dict[str, Any] = {"state": to.value, "error": bindparam("new_error")}
    if to.final:
        values |= {"active_name": None, "ended_at": bindparam("new_ended_at")}
    return (
        update(contexts)
        .where(
            contexts.c.id == bindparam("context"),
            among(contexts.c.state, allowed_from),
            fenced(contexts.c.id),
        )
        .values(**values)
    )


@cache
def _document_statement(column: str) -> Update:
    return (
        update(contexts)
        .where(contexts.c.id == bindparam("context"), fenced(contexts.c.id))
        .values({column: bindparam("text")})
    )
