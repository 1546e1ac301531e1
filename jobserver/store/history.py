"""The record of every state that a job came to. Statements only.

A move is recorded in the transaction of the move itself and only when it happened, so the record never disagrees with
the job. The key (job, attempt, state) refuses a second record: no attempt comes to a state twice.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, insert, literal, select

from jobserver.history import JobMove
from jobserver.lifecycle import FINAL_JOB_STATES
from jobserver.model import ErrorInfo, JobState
from jobserver.store.change import Step, ignoring_duplicates
from jobserver.store.guards import among
from jobserver.store.rows import instant, json_text, micros, text_of_json
from jobserver.store.statement import Statement
from jobserver.store.tables import job_history, jobs
from jobserver.store.transaction import Work

_COLUMNS = [column.name for column in job_history.c]

_CAME_TO: Final = (
    jobs.c.id == bindparam("this_job"),
    jobs.c.attempt == bindparam("this_attempt"),
    jobs.c.state == bindparam("this_state"),
    jobs.c.changed_at == bindparam("this_time"),
)
_OF_JOB_THAT_CAME_TO: dict[str, Any] = {name: bindparam(name) for name in _COLUMNS if name != "job_id"} | {
    "job_id": select(jobs.c.id).where(*_CAME_TO).scalar_subquery()
}
RECORD = Statement(ignoring_duplicates(insert(job_history)).values(_OF_JOB_THAT_CAME_TO))
"""Without such a job its id is NULL, and the row is passed over. Not INSERT … SELECT, for which MariaDB (seen on 10.11)
writes its log to the disk at once, within the transaction: 2 to 9 ms a statement in place of 0.3."""

_PLAIN = Statement(insert(job_history).inline().values({name: bindparam(name) for name in _COLUMNS}))

_CHECKED = Statement(insert(job_history).inline().values(_OF_JOB_THAT_CAME_TO))
"""As RECORD, but an error where the job is not so, or was recorded so before: what stands before it has not happened."""

RECORD_END = Statement(
    ignoring_duplicates(insert(job_history)).from_select(
        _COLUMNS,
        select(
            jobs.c.id,
            jobs.c.attempt,
            jobs.c.state,
            *(
                bindparam(name, type_=job_history.c[name].type)
                for name in ("at", "server", "epoch", "reason")
            ),
        ).where(
            jobs.c.id == bindparam("job"),
            among(jobs.c.state, FINAL_JOB_STATES),
            jobs.c.changed_at == bindparam("at"),
        ),
        include_defaults=False,
    )
)
"""For the end of a job whose attempt the caller does not name: the row, which this transaction just wrote, says it."""

_RECORDED = (
    select(literal(1))
    .where(
        job_history.c.job_id == jobs.c.id,
        job_history.c.attempt == jobs.c.attempt,
        job_history.c.state == jobs.c.state,
    )
    .correlate(jobs)
    .exists()
)
RECORD_END_OF_CONTEXT = Statement(
    insert(job_history).from_select(
        _COLUMNS,
        select(
            jobs.c.id,
            jobs.c.attempt,
            jobs.c.state,
            *(
                bindparam(name, type_=job_history.c[name].type)
                for name in ("at", "server", "epoch", "reason")
            ),
        ).where(
            jobs.c.context_id == bindparam("context"),
            among(jobs.c.state, {JobState.ERROR}),
            jobs.c.changed_at == bindparam("at"),
            ~_RECORDED,
        ),
        include_defaults=False,
    )
)


def record(job_id: str, move: JobMove, *, of_new: bool = False) -> Step:
    """Records a move, if the step before made it: the row then says so, with this very time.

    `of_new`: the step before inserts the job. Where many are inserted at once, that has failed unless each was.
    """
    values = {
        "job_id": job_id,
        "this_job": job_id,
        "this_attempt": move.attempt,
        "this_state": move.state.value,
        "this_time": micros(move.at),
        "attempt": move.attempt,
        "state": move.state.value,
        "at": micros(move.at),
        "server": move.server,
        "epoch": move.epoch,
        "reason": None if move.reason is None else json_text(move.reason),
    }
    return Step(RECORD, values, plain=_PLAIN, many=_PLAIN if of_new else _CHECKED)


def reason_of(error: ErrorInfo | None) -> str | None:
    """The sentence of an error."""
    return None if error is None else error.message


def of_job(job_id: str) -> Work[list[JobMove]]:
    """Every recorded move of the job, in the order of its life."""
    query = moves_of(job_id)

    def run(connection: Connection) -> list[JobMove]:
        moves = [
            JobMove(
                attempt=row.attempt,
                state=JobState(row.state),
                at=instant(row.at),
                server=row.server,
                epoch=row.epoch,
                reason=text_of_json(row.reason),
            )
            for row in connection.execute(query)
        ]
        return sorted(moves, key=lambda move: move.order)

    return run


def moves_of(job_id: str) -> Select[tuple[object, ...]]:
    return select(job_history).where(job_history.c.job_id == job_id)
