"""Many changes of one kind in one statement, on MySQL and MariaDB. Pure: makes texts, sends nothing.

Acceptances, starts and ends of jobs come in crowds, and the database spends more on each statement than on its row. So a
packet looks once at what a context's changes have in common (`Gate`), and then writes all rows by one statement of each
kind. Such a packet happens as a whole or not at all: where a single change of it does not, it ends in an error, and the
group is sent again as statements of their own, which tell the changes apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Insert
from sqlalchemy.engine import Dialect

from jobserver.store.change import Change, Gate
from jobserver.store.statement import Statement

Literals = Callable[[Sequence[Any]], tuple[str, ...]]
"""Writes values as they stand in a text."""

LARGEST: Final = 1 << 16
"""Characters of a change that shares its statements with others; larger ones are better off by themselves."""
REST: Final = 16
"""Groups that are sent as single statements after one that did not happen as a whole: refusals come in crowds, too."""
_KEY: Final = "job"
"""The parameter of an UPDATE of many that says which job."""
_ROWS: Final = " VALUES "


class Variable(str):
    """The name of a variable of the session, in the place of a value."""

    __slots__ = ()


class Rest:
    """Whether the groups of one writer are to be sent in bulk now."""

    def __init__(self) -> None:
        self._left = 0

    def over(self) -> bool:
        """Asked before each group."""
        self._left = max(0, self._left - 1)
        return not self._left

    def begin(self) -> None:
        """The last one did not happen as a whole."""
        self._left = REST + 1


@dataclass(frozen=True, slots=True)
class Row:
    """The part of one change in a statement for many: its literals in the order of the parameters."""

    statement: Statement
    literals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One change of the packet: its place in the group, its rows, and the statements that stay its own."""

    place: int
    change: Change[Any]
    gate: Gate | None
    rows: tuple[Row, ...]
    own: tuple[str, ...]

    @property
    def size(self) -> int:
        """Characters, as good as."""
        return sum(map(len, self.own)) + sum(sum(map(len, row.literals)) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Packet:
    """Pieces and the statements that write them. `own`: of the statements that are a piece's own, whose each is."""

    pieces: Sequence[Piece]
    texts: Sequence[str]
    owners: Sequence[int | None]
    """For each text the place of the change that it belongs to alone."""

    def counts(self, piece: Piece, changed: Sequence[int]) -> list[int]:
        """The rows that each step of a piece changed, of what each text did. Those done in bulk have changed theirs."""
        own = [count for owner, count in zip(self.owners, changed, strict=True) if owner == piece.place]
        return [1] * len(piece.rows) + own


class Bulk:
    """Writes out the changes of one group."""

    def __init__(self, dialect: Dialect, literals: Literals) -> None:
        self._dialect = dialect
        self._literals = literals
        self._gates: dict[Gate, Variable] = {}

    def piece(self, place: int, change: Change[Any]) -> Piece:
        """A change written out. Raises KeyError, TypeError or ValueError for values that no statement holds."""
        gate = None if change.gate is None else change.gate()
        rows, own = [], []
        for step in change.steps:
            if gate is not None and step.many is not None:
                values = {**step.values, "gate": self._variable(gate)}
                ordered = step.many.in_order(self._dialect, values)
                rows.append(Row(step.many, self._literals(ordered)))
            elif step.after_turn is not None:
                raise ValueError(
                    "a statement that takes a turn is done in bulk or in a packet of single statements"
                )
            else:
                own.append(step.statement.written_out(self._dialect, step.values, self._literals))
        return Piece(place, change, gate, tuple(rows), tuple(own))

    def packet(self, pieces: Sequence[Piece]) -> Packet:
        """The gates first, then the rows of all, then what is a change's own."""
        shared = [*self._opened(pieces), *self._together(pieces)]
        own = [(text, piece.place) for piece in pieces for text in piece.own]
        owners = [*(None for _ in shared), *(place for _, place in own)]
        return Packet(pieces, [*shared, *(text for text, _ in own)], owners)

    def _variable(self, gate: Gate) -> Variable:
        return self._gates.setdefault(gate, Variable(f"gate_{len(self._gates)}"))

    def _opened(self, pieces: Sequence[Piece]) -> Iterator[str]:
        """Turns and gates, context by context: every server locks the contexts' rows in this order, so none waits in a circle."""
        waiting = Counter(piece.gate for piece in pieces if piece.gate is not None)
        for context in sorted({gate.context for gate in waiting}):
            gates = [gate for gate in waiting if gate.context == context]
            turns = {self._written(gate.turn, dict(gate.values)) for gate in gates if gate.turn is not None}
            asked = sum(waiting[gate] for gate in gates if gate.turn is not None)
            yield from sorted(turns)
            for gate in gates:
                known = {"gate": str(self._variable(gate)), "asked": asked}
                yield self._written(gate.noted, {**dict(gate.values), **known})

    def _written(self, statement: Statement, values: dict[str, Any]) -> str:
        return statement.written_out(self._dialect, values, self._literals)

    def _together(self, pieces: Sequence[Piece]) -> Iterator[str]:
        """One statement of each kind for the rows of all; first all changes' first steps, then the second ones."""
        of_kind: dict[tuple[int, Statement], list[tuple[str, ...]]] = {}
        for piece in pieces:
            for number, row in enumerate(piece.rows):
                of_kind.setdefault((number, row.statement), []).append(row.literals)
        for (_, statement), rows in sorted(of_kind.items(), key=lambda kind: kind[0][0]):
            text, names = statement.parts(self._dialect)
            yield (
                _insertion(text, rows) if isinstance(statement.clause, Insert) else _update(text, names, rows)
            )


def _insertion(text: str, rows: Sequence[tuple[str, ...]]) -> str:
    head, mark, row = text.partition(_ROWS)
    return head + mark + ", ".join([row % literals for literals in rows])


def _update(text: str, names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    """Each parameter becomes what is the same for all rows, or a CASE by the job's id; the id itself becomes a list."""
    jobs = [row[names.index(_KEY)] for row in rows]
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return text % tuple(
        [", ".join(jobs) if name == _KEY else _by_job(jobs, column) for name, column in columns]
    )


def _by_job(jobs: Sequence[str], values: Sequence[str]) -> str:
    if values.count(values[0]) == len(values):
        return values[0]
    cases = " ".join([f"WHEN {job} THEN {value}" for job, value in zip(jobs, values, strict=True)])
    return f"CASE jobs.id {cases} END"
