"""A write that is known before it runs: statements with their values, and what the numbers of changed rows mean.

It is also a `Work` (it can be called with a connection). Where the database is across a network it is better: a whole
group of changes is sent in one packet, so that no transaction stays open between two messages (design 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Insert, Table, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from jobserver.store.plain import PlainConnection
from jobserver.store.statement import Statement

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One statement with its values.

    `plain` is the same insertion without a condition, for who knows that the first step of the change changed its row: a
    group in one transaction then inserts the rows of all its changes at once, before it commits.

    `turn` runs before it where the database locks rows (of a packet each turn once, before all steps): it takes the row under
    whose lock the conditions are to be looked at, and notes what all steps of that turn need to know; how many rows it
    meets tells nothing. These are statements of their own, as one that waits for a lock may have looked at the rest before.
    `after_turn` is then run in place of `statement`, with `ahead`: how many steps of the same turn are before it in its packet.

    `many` does the same for the jobs of many changes at once, behind the gates of their changes (`bulk.py`). It must fail as a
    whole where one of them does not happen, or be followed by a step that does.
    """

    statement: Statement
    values: Mapping[str, Any]
    plain: Statement | None = None
    turn: tuple[Statement, ...] = ()
    after_turn: Statement | None = None
    many: Statement | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What the changes of a packet for one context look at together, before their rows.

    `noted` puts the context's id into the variable `gate` of the session, or NULL where a condition does not hold; one of
    its values is `asked`: how many changes of the packet wait behind the context's turn. It locks the context's row, shared
    at least, or `turn` does before it: a job's change of state does (its foreign key), and each packet is to take these locks
    first, in one order.
    """

    context: str
    noted: Statement
    values: tuple[tuple[str, Any], ...]
    turn: Statement | None = None


Late = dict[Statement, list[Mapping[str, Any]]]
"""Rows that a group inserts at its end, by their plain statement."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """Steps that happen all or not at all, in their order; `conclude` makes a value of the rows that each changed.

    `duplicate` is the value where the first step met a key that exists (nothing has changed then); without it that is an
    error, as it is in a later step. With a `gate` (made only where it is needed) the steps that have `many` may be done together
    with those of others.
    """

    steps: tuple[Step, ...]
    conclude: Callable[[Sequence[int]], T]
    duplicate: Callable[[], T] | None = None
    gate: Callable[[], Gate] | None = None

    def then(self, *steps: Step) -> Change[T]:
        """The same change with more steps behind it."""
        return Change((*self.steps, *steps), self.conclude, self.duplicate, self.gate)

    def __call__(self, connection: Connection | PlainConnection, late: Late | None = None) -> T:
        """Runs the steps in the connection's transaction. What `late` takes is left to its caller."""
        counts: list[int] = []
        for step in self.steps:
            if late is not None and step.plain is not None and counts:
                if counts[0]:
                    late.setdefault(step.plain, []).append(step.values)
                counts.append(counts[0])
                continue
            statement, values = step.statement, step.values
            if step.after_turn is not None and connection.dialect.name != "sqlite":
                statement, values = step.after_turn, {**values, "ahead": 0}
                for taken in step.turn:
                    taken.changed(connection, values)
            try:
                counts.append(statement.changed(connection, values))
            except IntegrityError:
                if counts or self.duplicate is None:
                    raise
                return self.duplicate()
        return self.conclude(counts)


def insertion_where(table: Table, columns: Sequence[str], *conditions: ColumnElement[bool]) -> Statement:
    """Inserts a row, its columns as binds, if the conditions hold. With a key that exists it changes nothing.

    Conditions look at rows, never at the count of the step before (ROW_COUNT()): where the client has gone meanwhile,
    MariaDB counts -1 and goes on to the COMMIT.
    """
    row = select(*(bindparam(name, type_=table.c[name].type).label(name) for name in columns))
    return Statement(
        ignoring_duplicates(insert(table)).from_select(
            list(columns), row.where(*conditions), include_defaults=False
        )
    )


def ignoring_duplicates(insertion: Insert) -> Insert:
    """The same insertion, which changes nothing where the key exists."""
    return (
        insertion.inline()
        .prefix_with("OR IGNORE", dialect="sqlite")
        .prefix_with("IGNORE", dialect="mysql")
        .prefix_with("IGNORE", dialect="mariadb")
    )


def one(
    statement: Statement, values: Mapping[str, Any], *, duplicate: Callable[[], bool] | None = None
) -> Change[bool]:
    """A change of one statement: whether it changed its row."""
    return Change((Step(statement, values),), changed_one, duplicate)


def changed_one(counts: Sequence[int]) -> bool:
    """Whether the first step changed its row."""
    return counts[0] == 1


def never() -> bool:
    """For `duplicate`: the row was there before, this write changed nothing."""
    return False
