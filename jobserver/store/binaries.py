"""Binaries' index: every upload is a row, the latest row of a name counts. Statements only."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select

from jobserver.lifecycle import UNFINISHED_JOB_STATES
from jobserver.model import BinaryRecord, JobSpec
from jobserver.store.guards import among
from jobserver.store.rows import binary_of, binary_values, spec_of
from jobserver.store.tables import binaries, jobs

# Arrival decides which version is the latest, not the uploader's clock: two servers' clocks differ.
_LATEST = (
    select(binaries)
    .where(binaries.c.id.in_(select(func.max(binaries.c.id)).group_by(binaries.c.name)))
    .order_by(binaries.c.name)
)

# Few rows by nature: queues are bounded. Their specs are looked through here, so accepting a job needs no second table.
_UNFINISHED_SPECS = select(jobs.c.id, jobs.c.spec, jobs.c.priority).where(
    among(jobs.c.state, UNFINISHED_JOB_STATES)
)


def put(connection: Connection, record: BinaryRecord) -> None:
    connection.execute(insert(binaries), binary_values(record))


def latest_of_each(connection: Connection) -> list[BinaryRecord]:
    return [binary_of(row) for row in connection.execute(_LATEST)]


def latest(connection: Connection, name: str) -> BinaryRecord | None:
    newest = select(binaries).where(binaries.c.name == name).order_by(binaries.c.id.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return None if row is None else binary_of(row)


def delete_all(connection: Connection, name: str) -> bool:
    """All versions of the name; False when there was none."""
    return connection.execute(delete(binaries).where(binaries.c.name == name)).rowcount > 0


def jobs_using(connection: Connection, name: str) -> list[str]:
    """Ids of unfinished jobs that were accepted with some version of the name, oldest id first."""
    return sorted(
        job for job, spec in _unfinished_specs(connection) if any(ref.name == name for ref in spec.binaries)
    )


def digest_in_use(connection: Connection, digest: str) -> bool:
    """Whether an uploaded version or an unfinished job still needs these bytes."""
    kept = select(binaries.c.id).where(binaries.c.digest == digest).limit(1)
    if connection.execute(kept).first() is not None:
        return True
    return any(ref.digest == digest for _, spec in _unfinished_specs(connection) for ref in spec.binaries)


def _unfinished_specs(connection: Connection) -> list[tuple[str, JobSpec]]:
    return [(row.id, spec_of(row.spec, row.priority)) for row in connection.execute(_UNFINISHED_SPECS)]
