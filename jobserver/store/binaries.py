"""Binaries' index: every upload is a row, the latest row of a name counts. Statements only."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select

from jobserver.lifecycle import UNFINISHED_JOB_STATES
from jobserver.model import BinaryRecord, JobSpec
from jobserver.store.guards import among
from jobserver.store.rows import binary_of, binary_values, spec_of
from jobserver.store.tables import binaries, jobs
from jobserver.store.transaction import Work

# Arrival decides which version is the latest, not the uploader's clock: two servers' clocks differ.
_LATEST = (
    select(binaries)
    .where(binaries.c.id.in_(select(func.max(binaries.c.id)).group_by(binaries.c.name)))
    .order_by(binaries.c.name)
)

# Few rows by nature: queues are bounded. Their specs are looked through here, so accepting a job needs no second table.
UNFINISHED_SPECS = select(jobs.c.id, jobs.c.spec, jobs.c.priority).where(
    among(jobs.c.state, UNFINISHED_JOB_STATES)
)


def put(record: BinaryRecord) -> Work[None]:
    values = binary_values(record)

    def run(connection: Connection) -> None:
        connection.execute(insert(binaries), values)

    return run


def latest_of_each(connection: Connection) -> list[BinaryRecord]:
    return [binary_of(row) for row in connection.execute(_LATEST)]


def latest(name: str) -> Work[BinaryRecord | None]:
    query = select(binaries).where(binaries.c.name == name).order_by(binaries.c.id.desc()).limit(1)

    def run(connection: Connection) -> BinaryRecord | None:
        row = connection.execute(query).one_or_none()
        return None if row is None else binary_of(row)

    return run


def delete_all(name: str) -> Work[bool]:
    """All versions of the name; False when there was none."""
    statement = delete(binaries).where(binaries.c.name == name)
    return lambda connection: connection.execute(statement).rowcount > 0


def jobs_using(name: str) -> Work[list[str]]:
    """Ids of unfinished jobs that were accepted with some version of the name."""
    return lambda connection: sorted(
        job for job, spec in _unfinished_specs(connection) if any(ref.name == name for ref in spec.binaries)
    )


def digest_in_use(digest: str) -> Work[bool]:
    """Whether an uploaded version or an unfinished job still needs these bytes."""
    uploaded = select(binaries.c.id).where(binaries.c.digest == digest).limit(1)

    def run(connection: Connection) -> bool:
        if connection.execute(uploaded).first() is not None:
            return True
        return any(ref.digest == digest for _, spec in _unfinished_specs(connection) for ref in spec.binaries)

    return run


def _unfinished_specs(connection: Connection) -> list[tuple[str, JobSpec]]:
    return [(row.id, spec_of(row.spec, row.priority)) for row in connection.execute(UNFINISHED_SPECS)]
