"""Callbacks: whom to tell of the end of a job, until that is done or given up.

A try is begun by `take`, which one server wins; one that dies with it lets the lease run out, and the next try is another
server's. So each callback is delivered at least once while tries are left, and rarely twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, select, update

from jobserver.lifecycle import FINAL_JOB_STATES
from jobserver.saved import Callback, CallbackState
from jobserver.store.change import Step, insertion_where, one
from jobserver.store.database import Database
from jobserver.store.guards import among
from jobserver.store.rows import instant, json_text, micros, storable, text_of_json
from jobserver.store.statement import Statement
from jobserver.store.tables import callbacks, jobs

_PENDING: Final = among(callbacks.c.state, {CallbackState.PENDING})

_ADD = insertion_where(
    callbacks,
    [column.name for column in callbacks.c],
    select(jobs.c.id).where(jobs.c.id == bindparam("job_id")).exists(),
)
TAKE = Statement(
    update(callbacks)
    .where(callbacks.c.job_id == bindparam("job"), _PENDING, callbacks.c.tries == bindparam("seen_tries"))
    .values(tries=callbacks.c.tries + 1, next_at=bindparam("lease"))
)
SETTLE = Statement(
    update(callbacks)
    .where(callbacks.c.job_id == bindparam("job"), _PENDING, callbacks.c.tries == bindparam("seen_tries"))
    .values(state=bindparam("new_state"), next_at=bindparam("new_next"), last_error=bindparam("new_error"))
)


class Callbacks:
    """One server's access to the callbacks. They are made with their job (`Metadata.insert_job`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, now: datetime, limit: int) -> list[Callback]:
        """Pending ones of jobs that have ended, whose next try is due; the longest overdue first."""
        query = due_at(now, limit)

        def run(connection: Connection) -> list[Callback]:
            return [_callback_of(row) for row in connection.execute(query)]

        return await self._database.read(run)

    async def of_job(self, job_id: str) -> Callback | None:
        if not storable(job_id):
            return None
        query = select(callbacks).where(callbacks.c.job_id == job_id)

        def run(connection: Connection) -> Callback | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else _callback_of(row)

        return await self._database.read(run)

    async def take(self, callback: Callback, until: datetime) -> bool:
        """Begins the next try, for `until` this server's alone. False: another server has begun it, or it is over."""
        values = {"job": callback.job_id, "seen_tries": callback.tries, "lease": micros(until)}
        return await self._database.write(one(TAKE, values))

    async def delivered(self, job_id: str, tries: int, at: datetime) -> bool:
        """The try with that number was answered well."""
        return await self._settle(job_id, tries, CallbackState.DELIVERED, at, None)

    async def failed(self, job_id: str, tries: int, error: str, next_at: datetime) -> bool:
        """The try with that number failed; another is due at `next_at`."""
        return await self._settle(job_id, tries, CallbackState.PENDING, next_at, error)

    async def given_up(self, job_id: str, tries: int, error: str, at: datetime) -> bool:
        """The try with that number failed, and none is left."""
        return await self._settle(job_id, tries, CallbackState.FAILED, at, error)

    async def _settle(
        self, job_id: str, tries: int, state: CallbackState, at: datetime, error: str | None
    ) -> bool:
        values = {
            "job": job_id,
            "seen_tries": tries,
            "new_state": state.value,
            "new_next": micros(at),
            "new_error": None if error is None else json_text(error),
        }
        return await self._database.write(one(SETTLE, values))


def add(job_id: str, url: str, at: datetime) -> Step:
    """The callback of a job, if the step before accepted it."""
    values = {
        "job_id": job_id,
        "url": json_text(url),
        "state": CallbackState.PENDING.value,
        "tries": 0,
        "next_at": micros(at),
        "last_error": None,
    }
    return Step(_ADD, values)


def due_at(now: datetime, limit: int) -> Select[Any]:
    """Pending callbacks by when they are due, of jobs that have ended."""
    return (
        select(callbacks)
        .join(jobs, jobs.c.id == callbacks.c.job_id)
        .where(_PENDING, callbacks.c.next_at <= micros(now), among(jobs.c.state, FINAL_JOB_STATES))
        .order_by(callbacks.c.next_at)
        .limit(max(limit, 0))
    )


def _callback_of(row: Row[Any]) -> Callback:
    return Callback(
        job_id=row.job_id,
        url=text_of_json(row.url) or "",
        state=CallbackState(row.state),
        tries=row.tries,
        next_at=instant(row.next_at),
        last_error=text_of_json(row.last_error),
    )
