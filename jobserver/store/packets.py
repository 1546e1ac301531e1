"""Group commit on MySQL and MariaDB: a transaction of declared changes is one packet, from its begin to its commit.

So a server that is frozen, cut off or killed leaves no such transaction open between two messages, and a group costs one way
to the database and back. What is known after a failure:
* no connection, or an error that came before COMMIT was reached: rolled back, nothing happened;
* the reply was lost, or the error is one of COMMIT itself: it may have happened (OutcomeUnknown).
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import pymysql
from pymysql.converters import escape_string
from sqlalchemy import Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError

from jobserver.errors import JobServerError, OutcomeUnknown, StoreUnavailable
from jobserver.store.bulk import LARGEST, Bulk, Piece, Rest, Variable
from jobserver.store.change import Change
from jobserver.store.transaction import Outcome, Work, run_alone, unavailable

CONFLICT_TRIES: Final = 5
"""How often a group is tried that the database rolled back for a deadlock or a wait for a lock."""
LARGEST_PACKET: Final = 1 << 20
"""Characters of statements in one packet; a single change may be larger."""
_BACKOFF: Final = 0.002

_DUPLICATE: Final = 1062
_CONFLICTS: Final = frozenset({1205, 1213})  # a lock was waited for too long; a deadlock
# Errors after which even a statement of its own may have been committed: the commit itself failed, or the connection ended.
_UNCLEAR: Final = frozenset({1053, 1180, 1317, 1927, 2006, 2013, 2014, 2027})


Turn = tuple[str, ...]
"""The statements that take one turn."""


class _End(Enum):
    """How the sending of a packet ended."""

    COMMITTED = auto()
    FAILED = auto()  # at a statement; rolled back
    NOT_SENT = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class _Sent:
    end: _End
    counts: Sequence[int] = ()
    """Rows changed by each statement that was run."""
    error: Exception | None = None

    @property
    def code(self) -> int:
        """The database's number of the error."""
        return _number(self.error)


def run_together(
    engine: Engine, works: Sequence[Work[Any]], *, patience: float = math.inf, rest: Rest | None = None
) -> list[Outcome]:
    """Changes in as few packets as fit; every other work in a transaction of its own.

    After `patience` seconds nothing more is begun: those who wait have given up, and others wait for the next group.
    `rest` is kept by the caller from group to group and says whether they are tried in bulk; without it none is.
    """
    deadline = time.monotonic() + patience
    outcomes: dict[int, Outcome] = {}
    changes = [(n, work) for n, work in enumerate(works) if isinstance(work, Change)]
    if rest is not None and rest.over() and not _run_in_bulk(engine, changes, outcomes, deadline):
        rest.begin()
    changes = [(n, change) for n, change in changes if n not in outcomes]
    for packet in _packets(changes, engine.dialect, outcomes):
        _run_packet(engine, packet, outcomes, deadline)
    for n, work in enumerate(works):
        if n not in outcomes:
            outcomes[n] = _run_alone(engine, work, deadline)
    return [outcomes[n] for n in range(len(works))]


def _run_alone(engine: Engine, work: Work[Any], deadline: float) -> Outcome:
    """A work that is no declared change. What the database rolled back for a conflict has not happened: it is run again."""
    outcome = Outcome(error=_late())
    for tries in range(CONFLICT_TRIES):
        if time.monotonic() >= deadline:
            break
        outcome = run_alone(engine, work)
        if (
            not isinstance(outcome.error, StoreUnavailable)
            or _number(outcome.error.__cause__) not in _CONFLICTS
        ):
            break
        time.sleep(random.uniform(0, _BACKOFF * 2**tries))
    return outcome


def _number(error: BaseException | None) -> int:
    """The database's number of an error; 0 for others."""
    arguments = error.args if isinstance(error, pymysql.MySQLError) else ()
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _run_in_bulk(
    engine: Engine,
    changes: Sequence[tuple[int, Change[Any]]],
    outcomes: dict[int, Outcome],
    deadline: float,
) -> bool:
    """Those that have others of their kind, with few statements (`bulk.py`). What has no outcome then did not happen.

    False: such a packet was rolled back, for a change that is refused, or for another's lock.
    """
    writing = Bulk(engine.dialect, _literals)
    packets: list[list[Piece]] = [[]]
    length = 0
    for place, change in changes:
        if change.gate is None:
            continue
        try:
            piece = writing.piece(place, change)
        except (KeyError, TypeError, ValueError):  # it will say so where it is written out by itself
            continue
        if (size := piece.size) > LARGEST:
            continue
        if length + size > LARGEST_PACKET:
            packets.append([])
            length = 0
        packets[-1].append(piece)
        length += size
    return all(
        _sent_in_bulk(engine, writing, pieces, outcomes)
        for pieces in packets
        if len(pieces) > 1 and time.monotonic() < deadline
    )


def _sent_in_bulk(
    engine: Engine, writing: Bulk, pieces: Sequence[Piece], outcomes: dict[int, Outcome]
) -> bool:
    packet = writing.packet(pieces)
    sent = _send(engine, packet.texts)
    for piece in pieces if sent.end is not _End.FAILED else ():
        if sent.end is _End.COMMITTED:
            counts = packet.counts(piece, sent.counts)
            outcomes[piece.place] = Outcome(value=piece.change.conclude(counts))
        else:
            outcomes[piece.place] = Outcome(error=_failure(sent))
    return sent.end is not _End.FAILED


@dataclass(frozen=True, slots=True)
class _Part:
    """One change of a packet: its place in the group, its statements as texts, and what takes its turns before them."""

    place: int
    change: Change[Any]
    texts: tuple[str, ...]
    turns: frozenset[Turn]


def _packets(
    changes: Sequence[tuple[int, Change[Any]]], dialect: Dialect, outcomes: dict[int, Outcome]
) -> list[list[_Part]]:
    """Parts in groups that fit a packet. A change that cannot be written out fails alone."""
    packets: list[list[_Part]] = [[]]
    length = 0
    ahead: Counter[Turn] = Counter()
    for place, change in changes:
        try:
            part = _part(place, change, dialect, ahead)
        except (KeyError, TypeError, ValueError) as error:  # must not fail its neighbours
            outcomes[place] = Outcome(error=error)
            continue
        size = sum(map(len, part.texts))
        if packets[-1] and length + size > LARGEST_PACKET:
            packets.append([])
            length = 0  # `ahead` goes on: it may be too large, never too small
        packets[-1].append(part)
        length += size
    return [packet for packet in packets if packet]


def _part(place: int, change: Change[Any], dialect: Dialect, ahead: Counter[Turn]) -> _Part:
    """The change written out; its turns are counted in `ahead`."""
    texts: list[str] = []
    turns: set[Turn] = set()
    for step in change.steps:
        statement, values = step.statement, step.values
        if step.after_turn is not None:
            turn = tuple(one.written_out(dialect, values, _literals) for one in step.turn)
            statement, values = step.after_turn, {**values, "ahead": ahead[turn]}
            turns.add(turn)
        texts.append(statement.written_out(dialect, values, _literals))
    ahead.update(turns)
    return _Part(place, change, tuple(texts), frozenset(turns))


def _run_packet(
    engine: Engine,
    packet: Sequence[_Part],
    outcomes: dict[int, Outcome],
    deadline: float,
    most_tries: int = CONFLICT_TRIES,
) -> None:
    """Sends it until each part has its outcome. A part that fails is set apart, the others are sent again.

    All turns are taken first, each once and in an order that all servers have: so they do not meet in deadlocks over them.
    After its tries each part is tried once alone: somebody's lock must not hold up those that do not need it.
    """
    left, tries = list(packet), 0
    while left:
        if time.monotonic() >= deadline:
            outcomes.update((part.place, Outcome(error=_late())) for part in left)
            return
        # the turn of each statement that takes one
        turns = [turn for turn in sorted(frozenset().union(*(part.turns for part in left))) for _ in turn]
        taking = [text for turn in dict.fromkeys(turns) for text in turn]
        sent = _send(engine, [*taking, *(text for part in left for text in part.texts)])
        if sent.end is _End.COMMITTED:
            _conclude(left, sent.counts[len(taking) :], outcomes)
            return
        if sent.end is not _End.FAILED:
            failure = _failure(sent)
            outcomes.update((part.place, Outcome(error=failure)) for part in left)
            return
        if sent.code in _CONFLICTS and tries + 1 < most_tries:
            tries += 1
            time.sleep(random.uniform(0, _BACKOFF * 2**tries))
            continue
        if sent.code in _CONFLICTS and len(left) > 1:
            for part in left:
                _run_packet(engine, [part], outcomes, deadline, most_tries=1)
            return
        for part, within in _failed(left, turns, len(sent.counts)):
            outcomes[part.place] = _refused(part, within, sent)
            left.remove(part)


def _late() -> StoreUnavailable:
    return StoreUnavailable("the metadata store was too busy with other writes to begin this one in time")


def _conclude(parts: Sequence[_Part], counts: Sequence[int], outcomes: dict[int, Outcome]) -> None:
    at = 0
    for part in parts:
        mine = counts[at : at + len(part.texts)]
        at += len(part.texts)
        outcomes[part.place] = Outcome(value=part.change.conclude(mine))


def _failed(parts: Sequence[_Part], turns: Sequence[Turn], statement: int) -> list[tuple[_Part, int]]:
    """The parts that the statement of that number belongs to, and its number within them: -1 for a turn, which several share."""
    if statement < len(turns):
        return [(part, -1) for part in parts if turns[statement] in part.turns]
    return [_part_of(parts, statement - len(turns))]


def _part_of(parts: Sequence[_Part], statement: int) -> tuple[_Part, int]:
    for part in parts:
        if statement < len(part.texts):
            return part, statement
        statement -= len(part.texts)
    raise AssertionError("an error came after the last statement")


def _refused(part: _Part, within: int, sent: _Sent) -> Outcome:
    if sent.code == _DUPLICATE and within == 0 and part.change.duplicate is not None:
        return Outcome(value=part.change.duplicate())
    return Outcome(error=_failure(sent))


def _failure(sent: _Sent) -> JobServerError:
    words = _words(sent.error)
    if sent.end is _End.UNKNOWN:
        return OutcomeUnknown(f"the metadata store failed while it committed: {words}")
    if sent.code in _CONFLICTS:
        return StoreUnavailable(f"the metadata store rolled a write back again and again: {words}")
    return StoreUnavailable(f"the metadata store cannot be used now: {words}")


def _words(error: Exception | None) -> str:
    return unavailable(error).message.split(": ", 1)[-1] if isinstance(error, SQLAlchemyError) else str(error)


def _send(engine: Engine, statements: Sequence[str]) -> _Sent:
    """One packet, one transaction. A single statement is a transaction by itself (autocommit)."""
    try:
        pooled = engine.raw_connection()
    except (SQLAlchemyError, pymysql.MySQLError, OSError) as error:
        return _Sent(_End.NOT_SENT, error=error)
    connection = pooled.driver_connection
    assert isinstance(connection, pymysql.Connection)
    sent = _exchange(connection, statements)
    clean = sent.end is _End.COMMITTED or (sent.end is _End.FAILED and _rolled_back(connection))
    if clean:
        pooled.close()
    else:
        pooled.invalidate()  # what it may still hold ends with the connection
    return sent


def _exchange(connection: pymysql.Connection[Any], statements: Sequence[str]) -> _Sent:
    alone = len(statements) == 1
    text = statements[0] if alone else ";".join(["START TRANSACTION", *statements, "COMMIT"])
    counts: list[int] = []
    try:
        counts.append(connection.query(text))
        if not alone:
            # the first reply is that of START TRANSACTION
            counts.clear()
            for _ in statements:
                counts.append(connection.next_result())
            connection.next_result()
    except pymysql.MySQLError as error:
        return _Sent(_how_it_ended(error, counts, statements), counts, error)
    except (OSError, ValueError) as error:
        return _Sent(_End.UNKNOWN, counts, error)
    return _Sent(_End.COMMITTED, counts)


def _how_it_ended(error: pymysql.MySQLError, counts: Sequence[int], statements: Sequence[str]) -> _End:
    """An error packet for a statement means that the database has not come to the COMMIT behind it."""
    code = error.args[0] if error.args else 0
    replied = (isinstance(code, int) and 1000 <= code < 2000) or (isinstance(code, int) and code >= 3000)
    if not replied:
        return _End.UNKNOWN
    if len(statements) == 1:
        return _End.UNKNOWN if code in _UNCLEAR else _End.FAILED
    return _End.UNKNOWN if len(counts) == len(statements) else _End.FAILED


def _rolled_back(connection: pymysql.Connection[Any]) -> bool:
    try:
        connection.rollback()
    except (pymysql.MySQLError, OSError):
        return False
    return True


def _literals(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple([_literal(value) for value in values])


def _literal(value: object) -> str:
    """A value in the text of a statement. `mysql.prepared_session` fixes the mode that this way of quoting needs."""
    if isinstance(value, str):
        if isinstance(value, Variable):
            return f"@{value}"
        if not value.isascii():
            value.encode()  # raises for what has no UTF-8
        return f"'{escape_string(value)}'"
    if isinstance(value, int):
        return repr(int(value))
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return repr(value)
    raise TypeError(f"no statement of ours holds a {type(value).__name__}")
