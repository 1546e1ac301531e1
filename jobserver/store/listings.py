"""Listings of jobs: every combination of filters by an index that is in the order of the list. Statements only.

Of several filters the most selective one's index is walked in order and the others are looked at row by row: class, then
context, then state, then time alone.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, or_, select

from jobserver.listing import JobQuery
from jobserver.model import JobRecord
from jobserver.store.guards import among
from jobserver.store.rows import MAIN_CLASS, job_of, micros, storable
from jobserver.store.tables import jobs
from jobserver.store.transaction import Work

LISTED: Final = [column for column in jobs.c if column.name != "result"]
"""All of a job but its result."""

_NEWEST_FIRST: Final = (jobs.c.submitted_at.desc(), jobs.c.id.desc())


def found(query: JobQuery) -> Work[list[JobRecord]]:
    """The jobs that the query asks for, newest first, without results."""
    if not _possible(query):
        return lambda _connection: []
    statement = listing(query)

    def run(connection: Connection) -> list[JobRecord]:
        return [job_of(row) for row in connection.execute(statement)]

    return run


def listing(query: JobQuery) -> Select[Any]:
    """One statement for the query."""
    statement = select(*LISTED).where(*_conditions(query)).order_by(*_NEWEST_FIRST).limit(query.limit)
    return statement.offset(query.offset) if query.offset else statement


def _possible(query: JobQuery) -> bool:
    """What no row can hold is not asked for."""
    texts = (query.context, query.main_class, query.after and query.after.job_id)
    return query.limit > 0 and query.states != frozenset() and all(storable(text or "") for text in texts)


def _conditions(query: JobQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.states is not None:
        conditions.append(among(jobs.c.state, query.states))
    if query.context is not None:
        conditions.append(jobs.c.context_name == query.context)
    if query.main_class is not None:
        conditions.append(jobs.c.main_class == query.main_class[:MAIN_CLASS])
    if query.since is not None:
        conditions.append(jobs.c.submitted_at >= micros(query.since))
    if query.until is not None:
        conditions.append(jobs.c.submitted_at < micros(query.until))
    if query.after is not None:
        at = micros(query.after.at)
        # written so that the index is entered at the place: comparing pairs is not for every database
        conditions += [
            jobs.c.submitted_at <= at,
            or_(jobs.c.submitted_at < at, jobs.c.id < query.after.job_id),
        ]
    return conditions
