"""Runs writes in one transaction, each with an outcome of its own. Knows no asyncio; runs in the writer's thread.

What is known after a failure:
* it failed to begin, or a statement failed: rolled back, nothing happened (StoreUnavailable);
* COMMIT was sent and did not answer well: it may have happened (OutcomeUnknown).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jobserver.errors import OutcomeUnknown, StoreUnavailable
from jobserver.store.change import Change, Late

T = TypeVar("T")
Work = Callable[[Connection], T]
"""Statements of one write or read, run on a connection that is in a transaction (write) or not (read).

It raises nothing for what it expects (a duplicate key becomes a return value): an exception means rollback.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write returned, or what it raised."""

    value: Any = None
    error: Exception | None = None


RunTogether = Callable[[Engine, Sequence[Work[Any]]], list[Outcome]]
"""How a database runs a group of writes: each has an outcome of its own, in their order."""


Opened = Callable[[Engine], AbstractContextManager[Any]]
"""How a group's connection is opened: as one of SQLAlchemy, or as a `PlainConnection` where all are declared changes."""


def unavailable(error: SQLAlchemyError) -> StoreUnavailable:
    """The store's own words, without the statement and its parameters; these are its cause."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    failure = StoreUnavailable(f"the metadata store cannot be used now: {cause}")
    failure.__cause__ = cause
    return failure


class _RolledBack(Exception):
    """A work raised `cause`; nothing of its transaction stays."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def run_together(
    engine: Engine, works: Sequence[Work[Any]], opened: Opened = Engine.connect
) -> list[Outcome]:
    """One transaction for all. When one of them fails, nothing of it stays, and each is run alone."""
    try:
        with opened(engine) as connection:
            return _transact(connection, works)
    except _RolledBack as failed:
        if len(works) == 1:
            return [Outcome(error=_known(failed.cause))]
    except SQLAlchemyError as error:
        failure = unavailable(error)
        return [Outcome(error=failure) for _ in works]
    return [outcome for work in works for outcome in run_together(engine, [work], opened)]


def run_alone(engine: Engine, work: Work[Any]) -> Outcome:
    """One transaction for one work."""
    return run_together(engine, [work])[0]


def _transact(connection: Any, works: Sequence[Work[Any]]) -> list[Outcome]:
    transaction = connection.begin()
    try:
        late: Late = {}
        values = [work(connection, late) if isinstance(work, Change) else work(connection) for work in works]
        for statement, rows in late.items():
            statement.insert_all(connection, rows)
    except Exception as error:
        _roll_back(connection, transaction)
        raise _RolledBack(error) from error
    try:
        transaction.commit()
    except SQLAlchemyError as error:
        connection.invalidate()  # it may still be inside the transaction; the next write gets a new one
        unknown = OutcomeUnknown(
            f"the metadata store failed while it committed: {unavailable(error).message}"
        )
        return [Outcome(error=unknown) for _ in works]
    return [Outcome(value=value) for value in values]


def _roll_back(connection: Any, transaction: Any) -> None:
    """Nobody may write on a connection that is still inside: what they write would wait for a commit that never comes."""
    try:
        transaction.rollback()
    except SQLAlchemyError:
        connection.invalidate()


def _known(error: Exception) -> Exception:
    return unavailable(error) if isinstance(error, SQLAlchemyError) else error
