"""Binaries' index: every upload is a row, the latest row of a name counts. Statements only."""

from __future__ import annotations

import contextlib
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError

from jobserver.lifecycle import UNFINISHED_JOB_STATES
from jobserver.model import BinaryRecord, JobRecord, JobSpec
from jobserver.store.guards import among
from jobserver.store.rows import binary_of, binary_values, micros, spec_of
from jobserver.store.statement import Statement
from jobserver.store.tables import binaries, binary_files, context_binaries, jobs
from jobserver.store.transaction import Work


class BytesState(StrEnum):
    """Of stored bytes: kept, or on their way out (then nobody may count on them)."""

    KEPT = "KEPT"
    REMOVING = "REMOVING"


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


# The row of the bytes while nobody removes them; a mark that nobody needs them is taken back.
_KEEP = Statement(
    update(binary_files)
    .where(binary_files.c.digest == bindparam("kept"), binary_files.c.state == BytesState.KEPT.value)
    .values(unused_since=null())
)
NEED = Statement(
    insert(context_binaries).values(context_id=bindparam("context_id"), digest=bindparam("digest"))
)


def keep(digest: str, size: int, at: datetime) -> Work[bool]:
    """The bytes of that digest are wanted; False while they are being removed, which ends soon."""
    values = {
        "digest": digest,
        "size": size,
        "stored_at": micros(at),
        "state": BytesState.KEPT.value,
        "unused_since": None,
    }

    def run(connection: Connection) -> bool:
        if _KEEP.changed(connection, {"kept": digest}) == 1:
            return True
        try:
            connection.execute(insert(binary_files), values)
        except IntegrityError:  # it is there, and not to keep; or another server was quicker by a moment
            return _KEEP.changed(connection, {"kept": digest}) == 1
        return True

    return run


def put(record: BinaryRecord) -> Work[bool]:
    """A version, with its bytes marked as wanted. False while those bytes are being removed."""
    values = binary_values(record)
    kept = keep(record.digest, record.size, record.uploaded_at)

    def run(connection: Connection) -> bool:
        if not kept(connection):
            return False
        connection.execute(insert(binaries), values)
        return True

    return run


def need(context_id: str, digest: str) -> Work[None]:
    """A job of the context was accepted with those bytes."""
    values = {"context_id": context_id, "digest": digest}
    known = select(context_binaries.c.digest).where(
        context_binaries.c.context_id == context_id, context_binaries.c.digest == digest
    )

    def run(connection: Connection) -> None:
        if connection.execute(known).first() is not None:
            return
        with contextlib.suppress(IntegrityError):  # another server was quicker by a moment
            NEED.changed(connection, values)

    return run


class KnownNeeds:
    """Which contexts are on record as needing which bytes, as far as this server knows: most jobs add nothing new."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: set[tuple[str, str]] = set()

    def unknown(self, record: JobRecord) -> set[str]:
        """Those digests of the job that may not be on record for its context."""
        digests = {ref.digest for ref in record.spec.binaries}
        return {digest for digest in digests if (record.context_id, digest) not in self._known}

    def learn(self, record: JobRecord) -> None:
        """The job was accepted, so its digests are on record."""
        if len(self._known) >= self._most:
            self._known.clear()
        self._known.update((record.context_id, ref.digest) for ref in record.spec.binaries)


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
