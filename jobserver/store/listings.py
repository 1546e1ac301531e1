"""Listings of jobs: every combination of filters by an index that is in the order of the list. Statements only.

Of several filters the most selective one's index is walked in order and the others are looked at row by row: class, then
context, then state, then time alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, case, func, or_, select

from jobserver.listing import JobQuery
from jobserver.model import JobState, ListedJob
from jobserver.store.guards import among
from jobserver.store.rows import MAIN_CLASS, listed_of, micros, storable
from jobserver.store.statement import Query
from jobserver.store.tables import jobs
from jobserver.store.transaction import Work

_WHOLE_CLASS: Final = case(
    (func.coalesce(func.length(jobs.c.main_class), MAIN_CLASS) >= MAIN_CLASS, jobs.c.spec)
)
"""The spec where the class is not in its own column, or may have been cut there."""
_SHOWN: Final = (
    jobs.c.id,
    jobs.c.context_id,
    jobs.c.context_name,
    jobs.c.main_class,
    jobs.c.state,
    jobs.c.submitted_at,
    jobs.c.started_at,
    jobs.c.ended_at,
    jobs.c.error,
    _WHOLE_CLASS.label("spec"),
)
"""What `rows.listed_of` reads, in its order: each column of each row costs."""
_NEWEST_FIRST: Final = (jobs.c.submitted_at.desc(), jobs.c.id.desc())


def found(query: JobQuery) -> Work[list[ListedJob]]:
    """The jobs that the query asks for, newest first."""
    if not _possible(query):
        return lambda _connection: []
    values = _values(query)
    prepared = _prepared(query.states, frozenset(values))

    def run(connection: Connection) -> list[ListedJob]:
        return [listed_of(row) for row in prepared.all(connection, values)]

    return run


def listing(query: JobQuery) -> Select[Any]:
    """One statement for the query, with its values."""
    values = _values(query)
    return _selection(query.states, frozenset(values)).params(**values)


def _possible(query: JobQuery) -> bool:
    """What no row can hold is not asked for."""
    texts = (query.context, query.main_class, query.after and query.after.job_id)
    return query.limit > 0 and query.states != frozenset() and all(storable(text or "") for text in texts)


def _values(query: JobQuery) -> dict[str, Any]:
    """Of the filters that are given, and of the page."""
    after = query.after
    values = {
        "context": query.context,
        "class": None if query.main_class is None else query.main_class[:MAIN_CLASS],
        "since": None if query.since is None else micros(query.since),
        "until": None if query.until is None else micros(query.until),
        "place": None if after is None else micros(after.at),
        "last": None if after is None else after.job_id,
        "limit": query.limit,
        "offset": query.offset or None,
    }
    return {name: value for name, value in values.items() if value is not None}


@lru_cache(maxsize=256)
def _prepared(states: frozenset[JobState] | None, given: frozenset[str]) -> Query:
    """Compiled once for each combination of filters that clients use."""
    return Query(_selection(states, given))


def _selection(states: frozenset[JobState] | None, given: frozenset[str]) -> Select[Any]:
    conditions = [condition for name, condition in _CONDITIONS.items() if name in given]
    if states is not None:
        conditions.insert(0, among(jobs.c.state, states))
    statement = select(*_SHOWN).where(*conditions).order_by(*_NEWEST_FIRST)
    statement = statement.limit(bindparam("limit", type_=Integer))
    return statement.offset(bindparam("offset", type_=Integer)) if "offset" in given else statement


_CONDITIONS: Final[dict[str, ColumnElement[bool]]] = {
    "context": jobs.c.context_name == bindparam("context"),
    "class": jobs.c.main_class == bindparam("class"),
    "since": jobs.c.submitted_at >= bindparam("since"),
    "until": jobs.c.submitted_at < bindparam("until"),
    # two, so that the index is entered at the place: comparing pairs is not for every database
    "place": jobs.c.submitted_at <= bindparam("place"),
    "last": or_(jobs.c.submitted_at < bindparam("place"), jobs.c.id < bindparam("last")),
}
"""By the name of the value that each needs."""
