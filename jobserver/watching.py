"""Showing jobs while they run and after: progress, events, output, stored results. On any server, owner or not.

What is durable is read from SQL and the checkpoint store; what only a running driver knows is asked of the owner. A call that
breaks is followed by a look at SQL and by the next owner.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import checkpoint.errors as checkpoint_errors
from checkpoint import layout
from checkpoint.files import FileStore
from checkpoint.segments import Segment, read_range, segments
from jobserver.contexts.looks import Look
from jobserver.errors import NotFound, OwnerUnavailable, StoreUnavailable, Superseded
from jobserver.job_events import EventId, JobEvent, events_after
from jobserver.job_output import Part, parts, tail_of
from jobserver.model import JobRecord
from jobserver.store.metadata import Metadata
from jobserver.stored_results import StoredResult, stored_result

LOOK_AGAIN = 0.25
"""Longest wait for news of a new owner before SQL is looked at again, seconds."""
HEARTBEAT = 10.0
"""Seconds without news after which a stream of events says that it lives."""
T = TypeVar("T")


class Owners(Protocol):
    """What is asked of the owner of a context."""

    async def look(self, job: JobRecord, after: EventId | None, seconds: float) -> Look | None:
        """The job once it is newer than `after`. None: ask SQL. Raises OwnerUnavailable."""

    async def tails(self, job: JobRecord) -> list[dict[str, Any]]:
        """Output that is not stored yet. Raises OwnerUnavailable."""

    async def change(self, seconds: float) -> None:
        """Waits for news of owners, at most so long."""


@dataclass(frozen=True, slots=True)
class Output:
    """A job's output as it is now: `size` bytes, and a way to read a range of them."""

    size: int
    read: Callable[[int, int], AsyncGenerator[bytes, None]]


class JobWatch:
    """One per server."""

    def __init__(self, store: Metadata, files: FileStore, owners: Owners) -> None:
        self._store = store
        self._files = files
        self._owners = owners

    async def progress(self, job_id: str) -> Look:
        """The job and its progress as of now. Raises NotFound."""
        job = await self._job(job_id)
        if not job.state.final:
            try:
                return await self._owners.look(job, None, 0.0) or Look(await self._job(job_id))
            except (OwnerUnavailable, Superseded):
                return Look(job)
        return Look(job)

    async def events(self, job_id: str, last: EventId | None) -> AsyncGenerator[JobEvent | None, None]:
        """Every event behind `last` until the job has ended; None when nothing happened for a while. Raises NotFound."""
        seen = Look(await self._job(job_id))
        while True:
            moves = await self._store.job_history(job_id)
            fresh = events_after(last, moves, seen.job, seen.progress)
            for event in fresh:
                last = event.id
                yield event
            if seen.job.state.final:
                return
            if not fresh:
                yield None
            seen = await self._next(seen.job, last)

    async def _next(self, job: JobRecord, last: EventId | None) -> Look:
        """The job once there may be something new, or after HEARTBEAT."""
        try:
            found = await self._owners.look(job, last, HEARTBEAT)
        except (OwnerUnavailable, Superseded):
            found = None
        if found is None:
            await self._owners.change(LOOK_AGAIN)
            return Look(await self._job(job.id))
        return found

    async def output(self, job_id: str) -> Output:
        """All that the job has written until now. Raises NotFound, StoreUnavailable."""
        job = await self._job(job_id)
        try:
            tails = [tail_of(fields) for fields in await self._owners.tails(job)]
        except (OwnerUnavailable, Superseded):
            tails = []
        stored = await self._call(lambda: self._stored_output(job_id))
        whole = parts(stored, tails)

        async def read(start: int, end: int) -> AsyncGenerator[bytes, None]:
            for part in whole:
                if part.start < end and part.end > start:
                    async for data in self._part(job_id, part, stored, start, end):
                        yield data

        return Output(whole[-1].end if whole else 0, read)

    async def result(self, job: JobRecord) -> Output:
        """The JSON of a finished job's result. Raises NotFound when there is none, StoreUnavailable."""
        stored = stored_result(job.result)
        if stored is not None:
            folder = layout.result_folder(job.id, job.attempt)
            known = await self._call(lambda: segments(self._files, folder))
            if not known or known[-1].end != stored.size:
                raise NotFound(f"the result of job {job.id} was removed")
            return Output(stored.size, lambda start, end: self._checked(folder, known, stored, start, end))
        if job.result is None:
            raise NotFound(f"job {job.id} has no result: it is {job.state.value}")
        whole = job.result.encode("utf-8", "replace")

        async def read(start: int, end: int) -> AsyncGenerator[bytes, None]:
            yield whole[start:end]

        return Output(len(whole), read)

    async def _checked(
        self, folder: str, known: list[Segment], stored: StoredResult, start: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        """A range; the whole is compared with its digest, and its last bytes are held back until then."""
        digest, held = hashlib.sha256(), b""
        async for data in self._range(folder, known, start, end):
            yield held
            digest.update(data)
            held = data
        if (start, end) == (0, stored.size) and digest.hexdigest() != stored.digest:
            raise StoreUnavailable("the stored result is damaged: its bytes have changed")
        yield held

    async def _part(
        self, job_id: str, part: Part, stored: dict[int, list[Segment]], start: int, end: int
    ) -> AsyncIterator[bytes]:
        begin, limit = max(start, part.start) - part.start, min(end, part.end) - part.start
        if part.data is not None:
            yield part.data[begin:limit]
            return
        folder = layout.log_folder(job_id, part.attempt)
        async for data in self._range(folder, stored[part.attempt], part.at + begin, part.at + limit):
            yield data

    def _stored_output(self, job_id: str) -> dict[int, list[Segment]]:
        attempts = [int(name) for name in self._files.names(layout.logs_folder(job_id)) if name.isdigit()]
        return {attempt: segments(self._files, layout.log_folder(job_id, attempt)) for attempt in attempts}

    async def _range(self, folder: str, known: list[Segment], start: int, end: int) -> AsyncIterator[bytes]:
        """One segment at a time is in memory."""
        for segment in known:
            if segment.start < end and segment.end > start:
                yield await self._call(partial(self._piece, folder, segment, start, end))

    def _piece(self, folder: str, segment: Segment, start: int, end: int) -> bytes:
        return b"".join(read_range(self._files, folder, [segment], start, end))

    async def _job(self, job_id: str) -> JobRecord:
        job = await self._store.job(job_id)
        if job is None:
            raise NotFound(f"No such job ID {job_id}")
        return job

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except checkpoint_errors.Missing as error:
            raise NotFound(f"it was removed: {error}") from error
        except checkpoint_errors.StoreUnavailable as error:
            raise StoreUnavailable(f"the checkpoint store does not answer: {error}") from error
