"""Acceptances of jobs: the turn at their context, what is looked at there, and the insertion. Statements only.

A job is inserted while its context is in a state that takes jobs, the context's queue has room, and the binary that was named is
the latest of its name; one whose first attempt begins with it also while the owner's fence stands.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, case, func, insert, select, text, true, update

from jobserver.lifecycle import ACCEPTING_CONTEXT_STATES, UNFINISHED_JOB_STATES
from jobserver.model import ContextState
from jobserver.store.change import ignoring_duplicates
from jobserver.store.guards import among, fenced, noted
from jobserver.store.statement import Statement
from jobserver.store.tables import binaries, contexts, jobs

_UNSET_AT_FIRST: Final = ("started_at", "ended_at", "outcome", "error", "result")
_INSERTED: Final = [column.name for column in jobs.c if column.name not in _UNSET_AT_FIRST]


TURN = Statement(
    update(contexts).where(contexts.c.id == bindparam("this_context")).values(state=contexts.c.state)
)
"""Changes nothing, but locks the context's row: servers that accept for one context take turns, so that each counts the jobs
of the others; and a stop that is being committed waits for this, or this for the stop."""

_UNFINISHED = ", ".join(f"'{state.value}'" for state in sorted(UNFINISHED_JOB_STATES))
COUNT = Statement(
    text(
        "SELECT COUNT(*) INTO @:unfinished FROM jobs"
        f" WHERE context_id = :this_context AND state IN ({_UNFINISHED})"
    )
)
"""Behind the turn, for all acceptances of a packet: the context's unfinished jobs, in a variable of the session.

Not SET: InnoDB locks what that reads, so that every end of one of these jobs would wait for the acceptances' commit, or they
for it."""


def _insert(
    names: list[str], states: Collection[ContextState], *guards: ColumnElement[bool], counted: bool = False
) -> Statement:
    """One statement that inserts only while the context is in one of `states`, its queue has room, and `latest` is
    the latest binary of its name.

    `counted`: room for all those before it in the packet is room enough, by what COUNT found. Else the jobs are counted here:
    of those before it some may have been refused, and others may have ended.

    Without such a context its id is NULL, and the row is passed over, as it is where the id or the key exists. Not
    INSERT … SELECT: see `history.RECORD`. The count stands in a table of its own, as MySQL inserts into no table that
    the very statement selects from.
    """
    unfinished = _count().subquery("unfinished")
    room: ColumnElement[bool] = select(unfinished.c.number).scalar_subquery() < bindparam("queue_limit")
    if counted:
        room = case((text("@:unfinished + :ahead < :queue_limit"), true()), else_=room)
    accepting = _accepting(states, room, *guards).scalar_subquery()
    values: dict[str, Any] = {name: bindparam(name) for name in names if name != "context_id"}
    return Statement(ignoring_duplicates(insert(jobs)).values({**values, "context_id": accepting}))


def _count() -> Select[Any]:
    return (
        select(func.count().label("number"))
        .select_from(jobs)
        .where(jobs.c.context_id == bindparam("this_context"), among(jobs.c.state, UNFINISHED_JOB_STATES))
    )


def _accepting(
    states: Collection[ContextState], room: ColumnElement[bool], *guards: ColumnElement[bool]
) -> Select[Any]:
    """The context's id while it is in one of `states`, has room, and `latest` is the latest binary of its name."""
    newest = (
        select(binaries.c.type + binaries.c.digest)
        .where(binaries.c.name == bindparam("latest_name"))
        .order_by(binaries.c.id.desc())
        .limit(1)
        .with_for_update(read=True)  # its deletion waits for the job, which is then seen to need its bytes
    )
    return select(contexts.c.id).where(
        contexts.c.id == bindparam("this_context"),
        among(contexts.c.state, states),
        room,
        func.coalesce(newest.scalar_subquery(), "") == bindparam("latest_code"),
        *guards,
    )


def _gate(states: Collection[ContextState], *guards: ColumnElement[bool]) -> Statement:
    """The same for all acceptances of a packet at once: open while there is room for all of them."""
    room = _count().scalar_subquery() + bindparam("asked") <= bindparam("queue_limit")
    return noted(_accepting(states, room, *guards))


def _insert_many(names: list[str]) -> Statement:
    """Of many jobs: an error where one of their gates is not open, or an id or a key exists."""
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    return Statement(insert(jobs).inline().values({**values, "context_id": bindparam("gate")}))


INSERT = _insert(_INSERTED, ACCEPTING_CONTEXT_STATES)
INSERT_COUNTED = _insert(_INSERTED, ACCEPTING_CONTEXT_STATES, counted=True)
_STARTED = [*_INSERTED, "started_at"]
INSERT_STARTED = _insert(_STARTED, {ContextState.RUNNING}, fenced(contexts.c.id))
INSERT_STARTED_COUNTED = _insert(_STARTED, {ContextState.RUNNING}, fenced(contexts.c.id), counted=True)
ACCEPTING = _gate(ACCEPTING_CONTEXT_STATES)
ACCEPTING_STARTED = _gate({ContextState.RUNNING}, fenced(contexts.c.id))
INSERT_MANY = _insert_many(_INSERTED)
INSERT_MANY_STARTED = _insert_many(_STARTED)


@dataclass(frozen=True, slots=True)
class Insertions:
    """The ways to insert a job of one kind: by itself, behind a packet's count, with many others behind a gate."""

    alone: Statement
    counted: Statement
    many: Statement
    gate: Statement


WAITING = Insertions(INSERT, INSERT_COUNTED, INSERT_MANY, ACCEPTING)
BEGUN = Insertions(INSERT_STARTED, INSERT_STARTED_COUNTED, INSERT_MANY_STARTED, ACCEPTING_STARTED)
