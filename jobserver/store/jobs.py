"""Jobs: acceptance, and the attempts' moves under the owner's fence. Statements only.

Each move is one statement that names the fence, the state and the attempt it expects; what does not fit changes 0 rows.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    func,
    null,
    select,
    update,
)

from jobserver.history import JobMove
from jobserver.lifecycle import (
    ENDABLE_JOB_STATES,
    FINAL_CONTEXT_STATES,
    UNFINISHED_JOB_STATES,
    WAITING_JOB_STATES,
    job_end_sources,
)
from jobserver.model import (
    AttemptOutcome,
    BinaryRef,
    ErrorInfo,
    Fence,
    JobRecord,
    JobState,
)
from jobserver.store import history
from jobserver.store.change import Change, Gate, Step, changed_one
from jobserver.store.guards import among, context_in, fence_gate, fence_values, fenced
from jobserver.store.insertions import BEGUN, COUNT, TURN, WAITING, Insertions
from jobserver.store.rows import error_text, job_of, job_values, json_text, micros, storable_json
from jobserver.store.statement import Statement
from jobserver.store.tables import jobs
from jobserver.store.transaction import Work

LISTED: Final = [column for column in jobs.c if column.name != "result"]
"""All of a job but its result."""

_OWN_JOB = (jobs.c.id == bindparam("job"), fenced(jobs.c.context_id))
_OWN_JOBS = (jobs.c.id.in_([bindparam("job")]), jobs.c.context_id == bindparam("gate"))
"""Of many jobs behind the gates of their contexts. Those that are not met are missed by the record behind (`history.record`)."""


_UPDATE_MANY: Final = update(jobs).with_hint("FORCE INDEX (PRIMARY)", dialect_name="mysql")
"""By their ids: found by their states, other servers' jobs would be locked on the way."""


def _start(updated: Update, *own: ColumnElement[bool]) -> Statement:
    return Statement(
        updated.where(
            *own, among(jobs.c.state, WAITING_JOB_STATES), jobs.c.attempt == bindparam("attempt_before")
        ).values(
            state=JobState.RUNNING.value,
            attempt=bindparam("new_attempt"),
            # Clients see one start time: that of the first attempt.
            started_at=func.coalesce(jobs.c.started_at, bindparam("at")),
            changed_at=bindparam("at"),
            error=null(),
        )
    )


START = _start(update(jobs), *_OWN_JOB)
START_MANY = _start(_UPDATE_MANY, *_OWN_JOBS)

RESTART = Statement(
    update(jobs)
    .where(
        *_OWN_JOB,
        among(jobs.c.state, {JobState.RUNNING}),
        jobs.c.attempt == bindparam("this_attempt"),
    )
    .values(
        state=JobState.RESTARTING.value,
        deaths=jobs.c.deaths + bindparam("new_deaths"),
        changed_at=bindparam("at"),
        error=bindparam("new_error"),
    )
)

_END_OF_CONTEXT = Statement(
    update(jobs)
    .where(
        jobs.c.context_id == bindparam("context"),
        among(jobs.c.state, UNFINISHED_JOB_STATES),
        context_in(FINAL_CONTEXT_STATES, jobs.c.context_id),
    )
    .values(
        state=JobState.ERROR.value,
        ended_at=bindparam("at"),
        changed_at=bindparam("at"),
        error=bindparam("new_error"),
    )
)


def accept(record: JobRecord, queue_limit: int, server: str, latest: BinaryRef | None = None) -> Change[bool]:
    """Inserts the job if its context takes jobs and has room, and `latest` is so.

    False: it is not so, or the id or the key exists.
    """
    conditions = {"this_context": record.context_id, **_conditions(queue_limit, latest)}
    move = JobMove(0, record.state, record.submitted_at, server)
    return _insertion(WAITING, job_values(record), conditions, move)


def accept_started(
    fence: Fence,
    record: JobRecord,
    queue_limit: int,
    at: datetime,
    server: str,
    latest: BinaryRef | None = None,
) -> Change[bool]:
    """As `accept`, by the owner of a running context and with the first attempt begun."""
    begun = {
        "state": JobState.RUNNING.value,
        "attempt": 1,
        "started_at": micros(at),
        "changed_at": micros(at),
    }
    conditions = {
        "this_context": record.context_id,
        **fence_values(fence),
        **_conditions(queue_limit, latest),
    }
    move = JobMove(1, JobState.RUNNING, at, server, fence.epoch)
    return _insertion(BEGUN, {**job_values(record), **begun}, conditions, move)


def _conditions(queue_limit: int, latest: BinaryRef | None) -> dict[str, Any]:
    name, code = (None, "") if latest is None else (latest.name, latest.type.value + latest.digest)
    return {"queue_limit": queue_limit, "latest_name": name, "latest_code": code}


def _insertion(
    ways: Insertions, values: dict[str, Any], conditions: dict[str, Any], move: JobMove
) -> Change[bool]:
    context = values["context_id"]
    # names of variables take no notice of case and accents
    unfinished = hashlib.blake2b(context.encode(), digest_size=16).hexdigest()
    known = {**values, **conditions, "unfinished": unfinished}
    insertion = Step(ways.alone, known, turn=(TURN, COUNT), after_turn=ways.counted, many=ways.many)
    steps = (insertion, history.record(values["id"], move, of_new=True))
    return Change(steps, changed_one, gate=partial(_gate, ways, conditions))


def _gate(ways: Insertions, conditions: dict[str, Any]) -> Gate:
    return Gate(conditions["this_context"], ways.gate, tuple(conditions.items()), TURN)


def by_id(job_id: str) -> Work[JobRecord | None]:
    return _one(select(jobs).where(jobs.c.id == job_id))


def by_key(principal: str, key: str) -> Work[JobRecord | None]:
    return _one(select(jobs).where(jobs.c.principal == principal, jobs.c.idempotency_key == key))


def unfinished(context_id: str) -> Work[list[JobRecord]]:
    """In the order in which they should start: priority, then submission."""
    read = _many(unfinished_of(context_id))
    return lambda connection: sorted(read(connection), key=_starting_order)


def unfinished_of(context_id: str) -> Select[Any]:
    return select(*LISTED).where(jobs.c.context_id == context_id, among(jobs.c.state, UNFINISHED_JOB_STATES))


def start(fence: Fence, job_id: str, attempt: int, at: datetime, server: str) -> Change[bool]:
    values = {"attempt_before": attempt - 1, "new_attempt": attempt, "at": micros(at)}
    move = JobMove(attempt, JobState.RUNNING, at, server, fence.epoch)
    return _change(START, fence, job_id, values, move, many=START_MANY)


def finish(fence: Fence, outcome: AttemptOutcome, state: JobState, at: datetime, server: str) -> Change[bool]:
    """The end of the attempt that is the job's latest; the result is in the same statement. Raises IllegalMove."""
    values = {
        "this_attempt": outcome.attempt,
        "at": micros(at),
        "new_outcome": outcome.kind.value,
        "new_error": error_text(outcome.error),
        "new_result": storable_json(outcome.result) if state is JobState.FINISHED else None,
    }
    move = JobMove(outcome.attempt, state, at, server, fence.epoch, history.reason_of(outcome.error))
    many = finish_statement(state, many=True)
    return _change(finish_statement(state), fence, outcome.job_id, values, move, many=many)


def restart(
    fence: Fence,
    job_id: str,
    attempt: int,
    died: bool,
    error: ErrorInfo | None,
    at: datetime,
    server: str,
) -> Change[bool]:
    values = {
        "this_attempt": attempt,
        "new_deaths": int(died),
        "at": micros(at),
        "new_error": error_text(error),
    }
    move = JobMove(attempt, JobState.RESTARTING, at, server, fence.epoch, history.reason_of(error))
    return _change(RESTART, fence, job_id, values, move)


def end_waiting(
    fence: Fence, job_id: str, state: JobState, error: ErrorInfo | None, at: datetime, server: str
) -> Change[bool]:
    """The end of a job of which no attempt runs. Raises IllegalMove."""
    statement = end_waiting_statement(state)
    values = {"job": job_id, **fence_values(fence), "at": micros(at), "new_error": error_text(error)}
    past = {"job": job_id, **_past(at, server, fence.epoch, error)}
    return Change((Step(statement, values), Step(history.RECORD_END, past)), changed_one)


def end_all_of_ended_context(context_id: str, error: ErrorInfo, at: datetime, server: str) -> Change[int]:
    values = {"context": context_id, "at": micros(at), "new_error": error_text(error)}
    past = {"context": context_id, **_past(at, server, None, error)}
    steps = (Step(_END_OF_CONTEXT, values), Step(history.RECORD_END_OF_CONTEXT, past))
    return Change(steps, lambda counts: counts[0])


def _past(at: datetime, server: str, epoch: int | None, error: ErrorInfo | None) -> dict[str, Any]:
    reason = None if error is None else json_text(error.message)
    return {"at": micros(at), "server": server, "epoch": epoch, "reason": reason}


def _change(
    statement: Statement,
    fence: Fence,
    job_id: str,
    values: dict[str, Any],
    move: JobMove,
    *,
    many: Statement | None = None,
) -> Change[bool]:
    parameters = {"job": job_id, **fence_values(fence), **values}
    steps = (Step(statement, parameters, many=many), history.record(job_id, move))
    return Change(steps, changed_one, gate=None if many is None else partial(fence_gate, fence))


def _one(query: Select[Any]) -> Work[JobRecord | None]:
    def run(connection: Connection) -> JobRecord | None:
        row = connection.execute(query).one_or_none()
        return None if row is None else job_of(row)

    return run


def _many(query: Select[Any]) -> Work[list[JobRecord]]:
    return lambda connection: [job_of(row) for row in connection.execute(query)]


def _starting_order(job: JobRecord) -> tuple[int, datetime, str]:
    return (-job.spec.priority, job.submitted_at, job.id)


@cache
def finish_statement(state: JobState, *, many: bool = False) -> Statement:
    sources = job_end_sources(state, ENDABLE_JOB_STATES)
    updated, own = (_UPDATE_MANY, _OWN_JOBS) if many else (update(jobs), _OWN_JOB)
    return Statement(
        updated.where(*own, among(jobs.c.state, sources), jobs.c.attempt == bindparam("this_attempt")).values(
            **_ended(state), outcome=bindparam("new_outcome"), result=bindparam("new_result")
        )
    )


@cache
def end_waiting_statement(state: JobState) -> Statement:
    sources = job_end_sources(state, WAITING_JOB_STATES)
    return Statement(update(jobs).where(*_OWN_JOB, among(jobs.c.state, sources)).values(**_ended(state)))


def _ended(state: JobState) -> dict[str, Any]:
    return {
        "state": state.value,
        "ended_at": bindparam("at"),
        "changed_at": bindparam("at"),
        "error": bindparam("new_error"),
    }
