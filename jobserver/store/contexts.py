"""Contexts: one living context per name, and moves that only the owner may make. Statements only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, insert, select, update

from jobserver.lifecycle import (
    ACCEPTING_CONTEXT_STATES,
    LISTED_CONTEXT_STATES,
    LIVING_CONTEXT_STATES,
    context_sources,
)
from jobserver.model import ContextRecord, ContextState, DriverRecord, ErrorInfo, Failover, Fence
from jobserver.store.change import Change, Step, ignoring_duplicates, never, one
from jobserver.store.guards import among, fence_values, fenced
from jobserver.store.rows import context_of, context_values, driver_text, error_text, failover_text, micros
from jobserver.store.statement import Statement
from jobserver.store.tables import context_binaries, contexts, fences
from jobserver.store.transaction import Work

LIVING = select(contexts).where(among(contexts.c.state, LIVING_CONTEXT_STATES))

_CREATE = Statement(
    insert(contexts).inline().values({column.name: bindparam(column.name) for column in contexts.c})
)
_CREATE_FENCE = Statement(
    insert(fences)
    .inline()
    .values(context_id=bindparam("context_id"), epoch=0, owner="", incarnation="", token="")
)

COPY_NEEDS = Statement(
    ignoring_duplicates(insert(context_binaries)).from_select(
        ["context_id", "digest"],
        select(
            bindparam("context", type_=context_binaries.c.context_id.type).label("context_id"),
            context_binaries.c.digest,
        ).where(context_binaries.c.context_id == bindparam("source")),
        include_defaults=False,
    )
)

_STOP = Statement(
    update(contexts)
    .where(contexts.c.id == bindparam("context"), among(contexts.c.state, ACCEPTING_CONTEXT_STATES))
    .values(state=ContextState.STOPPING.value)
)

_OWN = (contexts.c.id == bindparam("context"), fenced(contexts.c.id))
DRIVER = Statement(update(contexts).where(*_OWN).values(driver=bindparam("text")))
FAILOVER = Statement(update(contexts).where(*_OWN).values(last_failover=bindparam("text")))


def create(record: ContextRecord, restored_from: str | None = None) -> Change[bool]:
    """The context with its fence at epoch 0; False when its id or its living name is taken.

    One that starts from another's checkpoint needs the bytes that the other needs: its objects' classes are in them.
    """
    steps = [Step(_CREATE, context_values(record)), Step(_CREATE_FENCE, {"context_id": record.id})]
    if restored_from is not None:
        steps.append(Step(COPY_NEEDS, {"context": record.id, "source": restored_from}))
    return Change(tuple(steps), lambda counts: counts[0] == 1, never)


def by_id(context_id: str) -> Work[ContextRecord | None]:
    return _one(select(contexts).where(contexts.c.id == context_id))


def latest(name: str) -> Work[ContextRecord | None]:
    """The living one, else the one that was started last. Not by time alone: two servers' clocks differ."""
    alive = _one(select(contexts).where(contexts.c.active_name == name))
    newest = _one(newest_of(name))
    return lambda connection: alive(connection) or newest(connection)


def newest_of(name: str) -> Select[Any]:
    return select(contexts).where(contexts.c.name == name).order_by(contexts.c.started_at.desc()).limit(1)


def living(connection: Connection) -> list[ContextRecord]:
    """Every context that is not in a final state, oldest first."""
    records = [context_of(row) for row in connection.execute(LIVING)]
    return sorted(records, key=lambda record: (record.started_at, record.id))


def listed(connection: Connection) -> list[ContextRecord]:
    """Those that GET /contexts shows, newest first."""
    return [record for record in reversed(living(connection)) if record.state in LISTED_CONTEXT_STATES]


def move(
    fence: Fence,
    allowed_from: Collection[ContextState],
    to: ContextState,
    at: datetime,
    error: ErrorInfo | None,
) -> Change[bool]:
    """The owner's move. In a final state the name becomes free again, in the same statement. Raises IllegalMove."""
    statement = move_statement(context_sources(to, allowed_from), to)
    values: dict[str, Any] = {"new_error": error_text(error)}
    if to.final:
        values["new_ended_at"] = micros(at)
    return _change(statement, fence, values)


def record_driver(fence: Fence, driver: DriverRecord | None) -> Change[bool]:
    return _change(DRIVER, fence, {"text": driver_text(driver)})


def record_failover(fence: Fence, failover: Failover) -> Change[bool]:
    return _change(FAILOVER, fence, {"text": failover_text(failover)})


def request_stop(context_id: str) -> Change[bool]:
    """The wish that a context ends: any server may note it, its owner carries it out."""
    return one(_STOP, {"context": context_id})


def _change(statement: Statement, fence: Fence, values: Mapping[str, Any]) -> Change[bool]:
    return one(statement, {"context": fence.context_id, **fence_values(fence), **values})


def _one(query: Select[Any]) -> Work[ContextRecord | None]:
    def run(connection: Connection) -> ContextRecord | None:
        row = connection.execute(query).one_or_none()
        return None if row is None else context_of(row)

    return run


@cache
def move_statement(sources: frozenset[ContextState], to: ContextState) -> Statement:
    values: dict[str, Any] = {"state": to.value, "error": bindparam("new_error")}
    if to.final:
        values |= {"active_name": None, "ended_at": bindparam("new_ended_at")}
    return Statement(update(contexts).where(*_OWN, among(contexts.c.state, sources)).values(**values))
