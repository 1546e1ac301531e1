"""The metadata store: the port through which the product reads and writes its system of record.

Guarded writes take a `Fence` and return whether they happened; False means that a higher epoch exists or that the
state was not the expected one, and nothing changed. Every method may raise StoreUnavailable (it did not happen);
writes may raise OutcomeUnknown (read back). Names and keys that no text encoding can hold exist nowhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self

from jobserver.errors import ContextExists, OutcomeUnknown, StoreUnavailable
from jobserver.history import JobMove
from jobserver.listing import JobQuery
from jobserver.model import (
    AttemptOutcome,
    BinaryRecord,
    BinaryRef,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    Fence,
    FenceRow,
    JobRecord,
    JobState,
    ListedJob,
    References,
)
from jobserver.store import binaries, callbacks, contexts, fences, history, jobs, listings, references, schema
from jobserver.store.acceptance import check_insertable, check_same_request, check_storable, refusal
from jobserver.store.audit import AuditLog
from jobserver.store.binaries import KnownNeeds
from jobserver.store.callbacks import Callbacks
from jobserver.store.change import Change
from jobserver.store.database import Database
from jobserver.store.probe import probe
from jobserver.store.retention import Retention
from jobserver.store.rows import storable
from jobserver.store.saved import SavedItems
from jobserver.store.transfer import Transfer


class Metadata:
    """One server's access to the metadata. Open with `Metadata.open`; several may be open on one store."""

    def __init__(self, database: Database, server: str = "") -> None:
        self._database = database
        self._server = server
        self._needed = KnownNeeds()
        self.saved = SavedItems(database)
        self.callbacks = Callbacks(database)
        self.audit = AuditLog(database, server)
        self.retention = Retention(database)
        self.transfer = Transfer(database)

    @classmethod
    async def open(cls, url: str, *, timeout: float, synchronous: str = "FULL", server: str = "") -> Self:
        """Access to the store at `url` (`address.py`); connects at the first use, so it never blocks.

        `timeout` (seconds) bounds the wait for another server's write; no call takes longer than twice that.
        `synchronous` (SQLite) FULL survives power loss, NORMAL only dying processes. `server` is the name under which the
        history knows who wrote. Raises BadConfig.
        """
        return cls(Database.open(url, timeout=timeout, synchronous=synchronous), server)

    async def close(self) -> None:
        """Ends what runs and closes every connection."""
        await self._database.close()

    async def write_trouble(self) -> str | None:
        """Why nothing can be written (read-only, disk full), None when it can. Tries, if the last write went wrong."""
        if self._database.trouble is not None:
            with contextlib.suppress(StoreUnavailable, OutcomeUnknown):
                await self._database.write(probe())
        return self._database.trouble

    async def upgrade(self) -> None:
        """Brings the schema to the one of this release. Servers that do so at once wait for each other.

        Raises WrongSchema when the schema is that of a later release.
        """
        await self._database.write(schema.upgrade)

    async def check(self) -> None:
        """Raises WrongSchema unless the schema is the one of this release, SettingsRefused for an unfit database server."""
        await self._database.read(schema.refuse_unfit)
        schema.refuse_other(await self.schema_current())

    async def schema_current(self) -> str | None:
        """The revision of the store's schema, None for an empty store."""
        return await self._database.read(schema.revision_of)

    async def put_binary(self, record: BinaryRecord) -> None:
        """Adds a version; it becomes the latest of its name. Raises BadRequest.

        Its bytes are to be stored before, and after `keep_binary`. Raises StoreUnavailable while these very bytes are
        being removed, because nobody needed them: to be stored again.
        """
        check_storable("the name of a binary", record.name)
        if not await self._database.write_repeated(binaries.put(record)):
            raise _being_removed(record.digest)

    async def keep_binary(self, digest: str, size: int, at: datetime) -> None:
        """Bytes of that digest (and size) are about to be stored, and must stay.

        Raises StoreUnavailable while earlier bytes of that digest are being removed, which ends soon.
        """
        if not await self._database.write_repeated(binaries.keep(digest, size, at)):
            raise _being_removed(digest)

    async def list_binaries(self) -> list[BinaryRecord]:
        """The latest version of each name, by name."""
        return await self._database.read(binaries.latest_of_each)

    async def find_binary(self, name: str) -> BinaryRecord | None:
        """The latest version of the name."""
        if not storable(name):
            return None
        return await self._database.read(binaries.latest(name))

    async def references(self, names: Sequence[str], context: str | None) -> References:
        """What a submission names, as of one moment."""
        return await self._database.read(references.of_names(names, context))

    async def delete_binary(self, name: str) -> bool:
        """Deletes all versions of the name; False when there was none."""
        if not storable(name):
            return False
        return await self._database.write(binaries.delete_all(name))

    async def jobs_using_binary(self, name: str) -> list[str]:
        """Ids of the unfinished jobs that were accepted with some version of the name."""
        return await self._database.read(binaries.jobs_using(name))

    async def digest_in_use(self, digest: str) -> bool:
        """Whether an uploaded version or an unfinished job needs the bytes of that digest."""
        return await self._database.read(binaries.digest_in_use(digest))

    async def create_context(self, record: ContextRecord, *, restored_from: str | None = None) -> None:
        """The context and its fence at epoch 0, in one transaction. Repeating it with the same id changes nothing.

        `restored_from`: id of the context whose checkpoint it starts from; the bytes that this one needs stay for it.
        Raises ContextExists when a living context has the name, BadRequest.
        """
        check_storable("the name of a context", record.name)
        if await self._database.write_repeated(contexts.create(record, restored_from)):
            return
        existing = await self.context(record.id)
        if existing is None or existing.name != record.name:
            raise ContextExists(f"context {record.name} exists")

    async def context(self, context_id: str) -> ContextRecord | None:
        """The context with that id."""
        if not storable(context_id):
            return None
        return await self._database.read(contexts.by_id(context_id))

    async def latest_context(self, name: str) -> ContextRecord | None:
        """The living context of that name, else the one that was started last."""
        if not storable(name):
            return None
        return await self._database.read(contexts.latest(name))

    async def active_contexts(self) -> list[ContextRecord]:
        """Every context that is not in a final state, oldest first."""
        return await self._database.read(contexts.living)

    async def listed_contexts(self) -> list[ContextRecord]:
        """Contexts in RUNNING, RESTARTING or STOPPING, newest first."""
        return await self._database.read(contexts.listed)

    async def move_context(
        self,
        fence: Fence,
        allowed_from: Collection[ContextState],
        to: ContextState,
        *,
        at: datetime,
        error: ErrorInfo | None = None,
    ) -> bool:
        """Guarded: the context of the fence moves to `to`; its error becomes `error`.

        Of `allowed_from` only the states count from which the table of moves leads to `to`; none: IllegalMove.
        """
        return await self._database.write(contexts.move(fence, allowed_from, to, at, error))

    async def record_driver(self, fence: Fence, driver: DriverRecord | None) -> bool:
        """Guarded: where the driver of the fence's context is now."""
        return await self._database.write(contexts.record_driver(fence, driver))

    async def record_failover(self, fence: Fence, failover: Failover) -> bool:
        """Guarded: the last change of owner or driver of the fence's context."""
        return await self._database.write(contexts.record_failover(fence, failover))

    async def request_stop(self, context_id: str) -> bool:
        """Notes the wish that a context ends (to STOPPING); False when it is stopping, has ended or is unknown."""
        return await self._database.write(contexts.request_stop(context_id))

    async def fence(self, context_id: str) -> FenceRow | None:
        """The fence of a context."""
        return (await self.fences([context_id])).get(context_id)

    async def fences(self, ids: Collection[str]) -> dict[str, FenceRow]:
        """The fences of those of the contexts that exist."""
        wanted = [one for one in ids if storable(one)]
        return await self._database.read(fences.of_contexts(wanted))

    async def grant(
        self, context_id: str, expected_epoch: int, owner: str, incarnation: str, token: str
    ) -> bool:
        """Raises the fence from `expected_epoch` to the next epoch, held by `owner`.

        False when it stands elsewhere. After OutcomeUnknown it is the caller's only if the token read back is.
        """
        granted = FenceRow(context_id, expected_epoch + 1, owner, incarnation, token)
        change = fences.grant(expected_epoch, granted, self._database.name)
        return await self._database.write_evicting(change, context_id)

    async def insert_job(
        self,
        record: JobRecord,
        *,
        queue_limit: int,
        callback_url: str | None = None,
        latest: BinaryRef | None = None,
    ) -> JobRecord:
        """Accepts a queued job: the record, or the job that this very request made before (by key or by id).

        `queue_limit` bounds the unfinished jobs of the context, this one included. Its end is to be told to
        `callback_url`: that is on record with the job or not at all. `latest` must be the latest of its name at that
        moment. Raises NotFound, ContextStopping, QueueFull, Outdated, KeyReused, BadRequest.
        """
        check_insertable(record)
        acceptance = jobs.accept(record, queue_limit, self._server, latest)
        if await self._database.write_repeated(self._with_needs(acceptance, record, callback_url)):
            self._needed.learn(record)
            return record
        # Read in a new transaction: after a duplicate key the same one may not see the row (facts.md).
        if (existing := await self._submitted_before(record)) is not None:
            check_same_request(existing, record)
            return existing
        context = await self.context(record.context_id)
        outdated = latest is not None and (await self.references([latest.name], None)).binaries != (latest,)
        raise refusal(record.context_name, context, queue_limit, outdated=outdated)

    async def insert_started_job(
        self,
        fence: Fence,
        record: JobRecord,
        *,
        queue_limit: int,
        at: datetime,
        callback_url: str | None = None,
        latest: BinaryRef | None = None,
    ) -> JobRecord:
        """Accepts a job and begins its first attempt in one write, where acceptor and owner are one server.

        Where that cannot be (superseded, or the context does not run) it is accepted as by `insert_job`, with its
        errors: the state of the returned job says which. A job that was made before may be in any state.
        """
        check_insertable(record)
        acceptance = jobs.accept_started(fence, record, queue_limit, at, self._server, latest)
        if await self._database.write_repeated(self._with_needs(acceptance, record, callback_url)):
            self._needed.learn(record)
            return replace(record, state=JobState.RUNNING, attempt=1, started_at=at)
        return await self.insert_job(
            record, queue_limit=queue_limit, callback_url=callback_url, latest=latest
        )

    def _with_needs(
        self, acceptance: Change[bool], record: JobRecord, callback_url: str | None
    ) -> Change[bool]:
        """What belongs to an acceptance, in its transaction: whom to tell of its end, which bytes its context needs."""
        told = () if callback_url is None else (callbacks.add(record.id, callback_url, record.submitted_at),)
        needs = [binaries.need(record.id, digest) for digest in sorted(self._needed.unknown(record))]
        return acceptance.then(*told, *needs)

    async def _submitted_before(self, record: JobRecord) -> JobRecord | None:
        if (key := record.idempotency_key) is not None:
            found = await self.job_of_key(record.principal, key)
            if found is not None:
                return found
        return await self.job(record.id)

    async def job_of_key(self, principal: str, key: str) -> JobRecord | None:
        """The job that was submitted by this user under this key, with its result."""
        if not storable(principal) or not storable(key):
            return None
        return await self._database.read(jobs.by_key(principal, key))

    async def job(self, job_id: str) -> JobRecord | None:
        """The job with its result."""
        if not storable(job_id):
            return None
        return await self._database.read(jobs.by_id(job_id))

    async def job_history(self, job_id: str) -> list[JobMove]:
        """The states that the job came to, in the order of its life; empty for an unknown job."""
        if not storable(job_id):
            return []
        return await self._database.read(history.of_job(job_id))

    async def find_jobs(self, query: JobQuery) -> list[ListedJob]:
        """The jobs that the query asks for, newest first."""
        return await self._database.read(listings.found(query))

    async def unfinished_jobs(self, context_id: str) -> list[JobRecord]:
        """Jobs of the context that have not ended, in the order in which they should start."""
        return await self._database.read(jobs.unfinished(context_id))

    async def start_attempt(self, fence: Fence, job_id: str, attempt: int, at: datetime) -> bool:
        """Guarded: a waiting job whose last attempt is `attempt` - 1 becomes RUNNING with `attempt`."""
        return await self._database.write(jobs.start(fence, job_id, attempt, at, self._server))

    async def finish_job(self, fence: Fence, outcome: AttemptOutcome, state: JobState, at: datetime) -> bool:
        """Guarded: the job ends in `state` with this outcome, if that attempt is its latest and it has not ended.

        The result is kept for FINISHED only. Raises IllegalMove.
        """
        return await self._database.write(jobs.finish(fence, outcome, state, at, self._server))

    async def restart_job(
        self,
        fence: Fence,
        job_id: str,
        attempt: int,
        *,
        died: bool,
        error: ErrorInfo | None,
        at: datetime,
    ) -> bool:
        """Guarded: the running attempt is over without an outcome; `died` counts it as a death of the driver."""
        return await self._database.write(jobs.restart(fence, job_id, attempt, died, error, at, self._server))

    async def end_waiting_job(
        self, fence: Fence, job_id: str, state: JobState, error: ErrorInfo | None, at: datetime
    ) -> bool:
        """Guarded: a job of which no attempt runs ends (killed, or its attempts are used up). Raises IllegalMove."""
        return await self._database.write(jobs.end_waiting(fence, job_id, state, error, at, self._server))

    async def end_jobs_of_ended_context(self, context_id: str, error: ErrorInfo, at: datetime) -> int:
        """Every unfinished job of a context in a final state ends in ERROR; their number. 0 while it lives."""
        return await self._database.write(jobs.end_all_of_ended_context(context_id, error, at, self._server))


def _being_removed(digest: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the stored bytes of digest {digest} are being removed as nobody needed them: upload them again"
    )
