"""Binaries' index: every upload is a row, the latest row of a name counts. Statements only."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, func, insert, null, select, update

from jobserver.lifecycle import UNFINISHED_JOB_STATES
from jobserver.model import BinaryRecord, JobRecord, JobSpec
from jobserver.store.change import Change, Step, ignoring_duplicates, insertion_where
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


_same = binaries.alias()
_NEW_FILE = Statement(
    ignoring_duplicates(insert(binary_files)).values(
        {name: bindparam(name) for name in ("digest", "size", "stored_at", "state")}
    )
)
# The row of the bytes while nobody removes them; a mark that nobody needs them is taken back.
_KEEP = Statement(
    update(binary_files)
    .where(binary_files.c.digest == bindparam("kept"), binary_files.c.state == BytesState.KEPT.value)
    .values(unused_since=null())
)
# Repeated after a lost reply it adds no second row.
_PUT = insertion_where(
    binaries,
    ("name", "type", "digest", "size", "uploaded_at"),
    select(binary_files.c.digest)
    .where(binary_files.c.digest == bindparam("digest"), binary_files.c.state == BytesState.KEPT.value)
    .exists(),
    ~select(_same.c.id)
    .where(
        _same.c.name == bindparam("name"),
        _same.c.digest == bindparam("digest"),
        _same.c.uploaded_at == bindparam("uploaded_at"),
    )
    .exists(),
)
_DELETE = Statement(delete(binaries).where(binaries.c.name == bindparam("name")))
NEED = Statement(
    ignoring_duplicates(insert(context_binaries)).from_select(
        ["context_id", "digest"],
        select(jobs.c.context_id, bindparam("digest", type_=context_binaries.c.digest.type)).where(
            jobs.c.id == bindparam("job")
        ),
        include_defaults=False,
    )
)


def keep(digest: str, size: int, at: datetime) -> Change[bool]:
    """The bytes of that digest are wanted; False while they are being removed, which ends soon."""
    return Change(_keep(digest, size, at), lambda counts: counts[1] == 1)


def _keep(digest: str, size: int, at: datetime) -> tuple[Step, Step]:
    values = {"digest": digest, "size": size, "stored_at": micros(at), "state": BytesState.KEPT.value}
    return Step(_NEW_FILE, values), Step(_KEEP, {"kept": digest})


def put(record: BinaryRecord) -> Change[bool]:
    """A version, with its bytes marked as wanted. False while those bytes are being removed."""
    kept = _keep(record.digest, record.size, record.uploaded_at)
    return Change((*kept, Step(_PUT, binary_values(record))), lambda counts: counts[1] == 1)


def need(job_id: str, digest: str) -> Step:
    """The job, if it was accepted, needs those bytes in its context."""
    return Step(NEED, {"job": job_id, "digest": digest})


class KnownNeeds:
    """Which contexts are on record as needing which bytes, as far as this server knows: most jobs add nothing new."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: set[tuple[str, str]] = set()

    def unknown(self, record: JobRecord) -> set[str]:
        """Those digests of the job that may not be on record for its context."""
        known, context = self._known, record.context_id
        return {ref.digest for ref in record.spec.binaries if (context, ref.digest) not in known}

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


def delete_all(name: str) -> Change[bool]:
    """All versions of the name; False when there was none."""
    return Change((Step(_DELETE, {"name": name}),), lambda counts: counts[0] > 0)


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
