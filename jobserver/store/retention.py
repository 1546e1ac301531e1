"""What retention asks of the store and removes from it, in batches that the caller bounds. By index, so that a batch
costs the same however long the past is.

A batch is looked up first and then deleted by its keys: what has ended stays ended in between, and a write stays short.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    null,
    or_,
    select,
    update,
)

from jobserver.lifecycle import FINAL_CONTEXT_STATES, FINAL_JOB_STATES
from jobserver.listing import Place
from jobserver.model import JobState
from jobserver.saved import CallbackState
from jobserver.store.binaries import BytesState
from jobserver.store.change import Change, one
from jobserver.store.database import Database
from jobserver.store.guards import among
from jobserver.store.rows import instant, micros
from jobserver.store.statement import Statement
from jobserver.store.tables import (
    audit,
    binaries,
    binary_files,
    callbacks,
    context_binaries,
    contexts,
    fences,
    job_history,
    jobs,
)
from jobserver.store.transaction import Work

Keys = Select[Any]
"""A query whose first column is the key of what may go."""

_TOLD: Final = (
    ~select(callbacks.c.job_id)
    .where(callbacks.c.job_id == jobs.c.id, among(callbacks.c.state, {CallbackState.PENDING}))
    .correlate(jobs)
    .exists()
)
_WITHOUT_JOBS: Final = (
    ~select(jobs.c.id).where(jobs.c.context_id == contexts.c.id).correlate(contexts).exists()
)


def _needed(digest: ColumnElement[str]) -> ColumnElement[bool]:
    """A context on record has taken jobs with these bytes: its jobs name them, its checkpoint may hold values of theirs."""
    return select(context_binaries.c.digest).where(context_binaries.c.digest == digest).exists()


_USED: Final = or_(
    select(binaries.c.id).where(binaries.c.digest == binary_files.c.digest).correlate(binary_files).exists(),
    _needed(binary_files.c.digest),
)
_REMOVE = Statement(
    update(binary_files)
    .where(
        binary_files.c.digest == bindparam("removed"),
        binary_files.c.state == BytesState.KEPT.value,
        binary_files.c.unused_since < bindparam("before"),
        ~_USED,
    )
    .values(state=BytesState.REMOVING.value, unused_since=bindparam("now"))
)
_TAKE_OVER = Statement(
    update(binary_files)
    .where(
        binary_files.c.digest == bindparam("removed"),
        binary_files.c.state == BytesState.REMOVING.value,
        binary_files.c.unused_since < bindparam("before"),
    )
    .values(unused_since=bindparam("now"))
)
_REMOVED = Statement(
    delete(binary_files).where(
        binary_files.c.digest == bindparam("removed"), binary_files.c.state == BytesState.REMOVING.value
    )
)


# What may go. Ended jobs are told by their time of end, not by their state: with states to choose from, databases prefer
# the states' index, and sort all of them for each batch.


def old_jobs(before: datetime) -> Keys:
    """Jobs that were submitted and ended before, the oldest first; not those whose end is still to be told."""
    return (
        select(jobs.c.id)
        .where(
            jobs.c.submitted_at < micros(before),
            jobs.c.ended_at < micros(before),
            _TOLD,
        )
        .order_by(jobs.c.submitted_at, jobs.c.id)
    )


def jobs_up_to(place: Place) -> Keys:
    """Ended jobs at that place of the list and behind it, the oldest first."""
    at = micros(place.at)
    return (
        select(jobs.c.id)
        .where(
            jobs.c.ended_at.is_not(null()),
            jobs.c.submitted_at <= at,
            or_(jobs.c.submitted_at < at, jobs.c.id <= place.job_id),
            _TOLD,
        )
        .order_by(jobs.c.submitted_at, jobs.c.id)
    )


def submitted_jobs(after: Place | None, before: datetime) -> Select[Any]:
    """Jobs that were submitted before, from behind a place on, the oldest first; with their submission and end."""
    query = select(jobs.c.id, jobs.c.submitted_at, jobs.c.ended_at).where(
        jobs.c.submitted_at < micros(before)
    )
    if after is not None:
        at = micros(after.at)
        query = query.where(
            jobs.c.submitted_at >= at, or_(jobs.c.submitted_at > at, jobs.c.id > after.job_id)
        )
    return query.order_by(jobs.c.submitted_at, jobs.c.id)


def old_results(before: datetime) -> Keys:
    """For counting: finished jobs that ended before and still have their result."""
    return select(jobs.c.id).where(
        among(jobs.c.state, {JobState.FINISHED}),
        jobs.c.submitted_at < micros(before),
        jobs.c.ended_at < micros(before),
        jobs.c.result.is_not(null()),
    )


def old_contexts(before: datetime, after: Place | None = None) -> Select[Any]:
    """Contexts that ended before and have no jobs any more, the first to end first, from behind a place on; with their end."""
    query = select(contexts.c.id, contexts.c.ended_at).where(
        contexts.c.ended_at < micros(before), _WITHOUT_JOBS
    )
    if after is not None:
        at = micros(after.at)
        query = query.where(
            contexts.c.ended_at >= at, or_(contexts.c.ended_at > at, contexts.c.id > after.job_id)
        )
    return query.order_by(contexts.c.ended_at, contexts.c.id)


def old_versions(before: datetime | None, most: int | None) -> Keys:
    """Uploads that were replaced, are too old or too many, and that no context on record has taken jobs with."""
    newer = binaries.alias("newer")
    replaced_by = (
        select(func.count())
        .select_from(newer)
        .where(newer.c.name == binaries.c.name, newer.c.id > binaries.c.id)
        .correlate(binaries)
        .scalar_subquery()
    )
    too_old = and_(binaries.c.uploaded_at < micros(before), replaced_by >= 1) if before is not None else None
    too_many = replaced_by >= max(most, 1) if most is not None else None
    reasons = [reason for reason in (too_old, too_many) if reason is not None]
    if not reasons:
        return select(binaries.c.id).where(binaries.c.id < 0)
    return select(binaries.c.id).where(or_(*reasons), ~_needed(binaries.c.digest)).order_by(binaries.c.id)


def old_operations(before: datetime) -> Keys:
    """Audited operations from before, the oldest first."""
    return select(audit.c.id).where(audit.c.at < micros(before)).order_by(audit.c.at, audit.c.id)


def unused_bytes(before: datetime) -> Keys:
    """Bytes that nobody has needed since before."""
    return (
        select(binary_files.c.digest)
        .where(
            binary_files.c.state == BytesState.KEPT.value,
            binary_files.c.unused_since < micros(before),
            ~_USED,
        )
        .order_by(binary_files.c.unused_since)
    )


def interrupted_removals(before: datetime) -> Keys:
    """Bytes whose removal was begun before, by a server that did not come to its end."""
    return select(binary_files.c.digest).where(
        binary_files.c.state == BytesState.REMOVING.value, binary_files.c.unused_since < micros(before)
    )


def place_of_newest(number: int) -> Select[Any]:
    """The submission and id of the job that is the `number`-th newest, beginning with 0."""
    return (
        select(jobs.c.submitted_at, jobs.c.id)
        .order_by(jobs.c.submitted_at.desc(), jobs.c.id.desc())
        .offset(number)
        .limit(1)
    )


def end_of_newest_context(number: int) -> Select[Any]:
    """When the context ended that is the `number`-th last to end, beginning with 0."""
    return (
        select(contexts.c.ended_at)
        .where(contexts.c.ended_at.is_not(null()))
        .order_by(contexts.c.ended_at.desc(), contexts.c.id.desc())
        .offset(number)
        .limit(1)
    )


class Retention:
    """One server's way to the past. Every method is one short read or write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keys(self, query: Keys, limit: int) -> list[Any]:
        """The first keys that the query finds."""
        limited = query.limit(limit)
        return await self._database.read(lambda connection: list(connection.execute(limited).scalars()))

    async def count(self, query: Keys) -> int:
        """How many the query finds. Looks at all of them."""
        counting = select(func.count()).select_from(query.order_by(None).subquery())
        return await self._database.read(lambda connection: connection.execute(counting).scalar_one())

    async def job_beyond(self, count: int) -> Place | None:
        """The newest job that is too many when `count` are kept."""
        query = place_of_newest(count)

        def run(connection: Connection) -> Place | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else Place(instant(row.submitted_at), row.id)

        return await self._database.read(run)

    async def context_beyond(self, count: int) -> datetime | None:
        """When the last context ended that is too many when `count` ended ones are kept."""
        query = end_of_newest_context(count)

        def run(connection: Connection) -> datetime | None:
            ended_at = connection.execute(query).scalar_one_or_none()
            return None if ended_at is None else instant(ended_at)

        return await self._database.read(run)

    async def submitted_jobs(
        self, after: Place | None, before: datetime, limit: int
    ) -> list[tuple[Place, datetime | None]]:
        """The next jobs, the oldest first, that were submitted before; each with the time of its end, if it has ended."""
        query = submitted_jobs(after, before).limit(limit)

        def run(connection: Connection) -> list[tuple[Place, datetime | None]]:
            return [
                (Place(instant(row.submitted_at), row.id), _end_of(row)) for row in connection.execute(query)
            ]

        return await self._database.read(run)

    async def ends_of(self, ids: Collection[str]) -> dict[str, datetime | None]:
        """When those of the jobs ended that are still on record; None for one that has not."""
        query = select(jobs.c.id, jobs.c.ended_at).where(jobs.c.id.in_(ids))

        def run(connection: Connection) -> dict[str, datetime | None]:
            return {row.id: _end_of(row) for row in connection.execute(query)}

        return await self._database.read(run)

    async def old_contexts(self, after: Place | None, before: datetime, limit: int) -> list[Place]:
        """The next contexts that ended before and have no jobs: each by its end and its id."""
        query = old_contexts(before, after).limit(limit)

        def run(connection: Connection) -> list[Place]:
            return [Place(instant(row.ended_at), row.id) for row in connection.execute(query)]

        return await self._database.read(run)

    async def delete_jobs(self, ids: Collection[str]) -> int:
        """Deletes ended jobs with their history, callbacks and keys; how many there were."""
        return await self._database.write(_delete_jobs(ids))

    async def drop_results(self, ids: Collection[str]) -> int:
        """Forgets the results of finished jobs; how many there were."""
        dropping = (
            update(jobs)
            .where(
                jobs.c.id.in_(ids),
                among(jobs.c.state, {JobState.FINISHED}),
                jobs.c.result.is_not(null()),
            )
            .values(result=null())
        )
        return await self._database.write(lambda connection: connection.execute(dropping).rowcount)

    async def delete_contexts(self, ids: Collection[str]) -> int:
        """Deletes ended contexts that have no jobs, with their fences; how many there were."""
        return await self._database.write(_delete_contexts(ids))

    async def delete_versions(self, ids: Collection[int]) -> int:
        """Deletes uploads by their row."""
        deleting = delete(binaries).where(binaries.c.id.in_(ids))
        return await self._database.write(lambda connection: connection.execute(deleting).rowcount)

    async def delete_operations(self, ids: Collection[int]) -> int:
        """Deletes audited operations by their row."""
        deleting = delete(audit).where(audit.c.id.in_(ids))
        return await self._database.write(lambda connection: connection.execute(deleting).rowcount)

    async def look_at_bytes(self, now: datetime) -> None:
        """Notes since when bytes are needed by nobody, and takes that back of those that are needed again."""
        kept = binary_files.c.state == BytesState.KEPT.value
        unused = (
            update(binary_files)
            .where(kept, binary_files.c.unused_since.is_(null()), ~_USED)
            .values(unused_since=micros(now))
        )
        used = (
            update(binary_files)
            .where(kept, binary_files.c.unused_since.is_not(null()), _USED)
            .values(unused_since=null())
        )

        def run(connection: Connection) -> None:
            connection.execute(unused)
            connection.execute(used)

        await self._database.write(run)

    async def begin_removal(self, digest: str, before: datetime, now: datetime) -> bool:
        """From here on nobody may count on the bytes. False: somebody needs them again, or a server removes them."""
        change: Change[bool] = one(_REMOVE, {"removed": digest, "before": micros(before), "now": micros(now)})
        return await self._database.write(change)

    async def take_over_removal(self, digest: str, before: datetime, now: datetime) -> bool:
        """A removal that was begun before, and not ended, is ours from here on. False: it has ended, or another has it."""
        change: Change[bool] = one(
            _TAKE_OVER, {"removed": digest, "before": micros(before), "now": micros(now)}
        )
        return await self._database.write(change)

    async def end_removal(self, digest: str) -> None:
        """The bytes are gone; they may be stored again."""
        await self._database.write(one(_REMOVED, {"removed": digest}))


def _end_of(row: Any) -> datetime | None:
    return None if row.ended_at is None else instant(row.ended_at)


def _delete_jobs(ids: Collection[str]) -> Work[int]:
    """Children first: a cascade would work through them row by row."""
    ended = select(jobs.c.id).where(jobs.c.id.in_(ids), among(jobs.c.state, FINAL_JOB_STATES))

    def run(connection: Connection) -> int:
        found = list(connection.execute(ended).scalars())
        if not found:
            return 0
        connection.execute(delete(job_history).where(job_history.c.job_id.in_(found)))
        connection.execute(delete(callbacks).where(callbacks.c.job_id.in_(found)))
        return connection.execute(delete(jobs).where(jobs.c.id.in_(found))).rowcount

    return run


def _delete_contexts(ids: Collection[str]) -> Work[int]:
    ended = select(contexts.c.id).where(
        contexts.c.id.in_(ids), among(contexts.c.state, FINAL_CONTEXT_STATES), _WITHOUT_JOBS
    )

    def run(connection: Connection) -> int:
        found = list(connection.execute(ended).scalars())
        if not found:
            return 0
        connection.execute(delete(context_binaries).where(context_binaries.c.context_id.in_(found)))
        connection.execute(delete(fences).where(fences.c.context_id.in_(found)))
        return connection.execute(delete(contexts).where(contexts.c.id.in_(found))).rowcount

    return run
