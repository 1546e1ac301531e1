"""Removing what retention no longer keeps: in small batches with pauses, so that nobody else waits for it.

Files go before the rows that name them, so that nothing is left behind without a name. The bytes of code are the exception:
their row first says that they are being removed, so that nobody counts on them, and goes when they are gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from checkpoint import catalog, layout
from checkpoint.errors import CheckpointError
from checkpoint.files import FileStore
from jobserver.errors import JobServerError, StoreUnavailable
from jobserver.listing import Place
from jobserver.retention import Limits, Removed, cut
from jobserver.store import retention as queries
from jobserver.store.retention import Keys, Retention

log = logging.getLogger(__name__)

INTERRUPTED: Final = timedelta(minutes=5)
"""A removal of bytes that was begun so long ago has lost its server."""
PROMPT: Final = 10.0
"""Seconds: bytes that were not removed so soon after their row was marked are left to the next pass. A server that was
frozen in between must not remove what somebody may have stored again since."""

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How many rows at once, and how many seconds of pause after them."""

    batch: int = 50
    pause: float = 0.05


class Pruner:
    """Carries the limits out. One for each server; it remembers how far it has looked at results and logs."""

    def __init__(
        self,
        store: Retention,
        files: FileStore,
        limits: Limits,
        pace: Pace,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Pause = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._files = files
        self._limits = limits
        self._pace = pace
        self._now = now
        self._pause = pause
        self._clock = clock
        self._looked_at: dict[str, Place] = {}
        self._later: dict[str, set[str]] = {}

    async def count(self) -> Removed:
        """What `prune` would remove now, but for what only becomes free by it; contexts with a checkpoint are counted, too."""
        limits, now = self._limits, self._now()
        removed = Removed()
        for query in await self._old_jobs(now):
            removed.jobs = max(removed.jobs, await self._store.count(query))
        if (before := cut(now, limits.results_age)) is not None:
            removed.results = await self._store.count(queries.old_results(before))
        if (before := await self._contexts_before(now)) is not None:
            removed.contexts = await self._store.count(queries.old_contexts(before))
        removed.versions = await self._store.count(self._old_versions(now))
        if (before := cut(now, limits.audit_age)) is not None:
            removed.operations = await self._store.count(queries.old_operations(before))
        before = now - timedelta(seconds=limits.bytes_grace)
        removed.binaries = await self._store.count(queries.unused_bytes(before))
        return removed

    async def prune(self, goes_on: Callable[[], bool] = lambda: True) -> Removed:
        """One pass over everything. It ends early when `goes_on` says no; a kind that fails is left to the next pass."""
        removed = Removed()
        for what, work in (
            ("results", self._prune_results),
            ("logs", self._prune_logs),
            ("jobs", self._prune_jobs),
            ("contexts", self._prune_contexts),
            ("replaced uploads", self._prune_versions),
            ("binaries' bytes", self._prune_bytes),
            ("audited operations", self._prune_operations),
        ):
            if not goes_on():
                break
            try:
                await work(removed, goes_on)
            except JobServerError as error:
                removed.unfinished.append(f"{what}: {error.message}")
        return removed

    # Kinds

    async def _prune_jobs(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        async def remove(ids: Collection[Any]) -> int:
            folders = (layout.results_folder, layout.logs_folder)
            await self._remove_files(folder(one) for one in ids for folder in folders)
            return await self._store.delete_jobs(ids)

        for query in await self._old_jobs(self._now()):
            removed.jobs += await self._remove_all(query, remove, goes_on)

    async def _prune_results(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        async def remove(ids: Collection[str]) -> int:
            await self._remove_files(layout.results_folder(one) for one in ids)
            return await self._store.drop_results(ids)

        removed.results += await self._walk("results", self._limits.results_age, remove, goes_on)

    async def _prune_logs(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        async def remove(ids: Collection[str]) -> int:
            await self._remove_files(layout.logs_folder(one) for one in ids)
            return len(ids)

        removed.logs += await self._walk("logs", self._limits.logs_age, remove, goes_on)

    async def _prune_contexts(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        """A context stays on record while it has a checkpoint, which is kept, or not removed yet."""
        before = await self._contexts_before(self._now())
        if before is None:
            return
        kept = await self._with_checkpoints()
        place: Place | None = None
        while goes_on() and (found := await self._store.old_contexts(place, before, self._pace.batch)):
            place = found[-1]
            ids = [one.job_id for one in found if one.job_id not in kept]
            removed.contexts += await self._store.delete_contexts(ids) if ids else 0
            await self._pause(self._pace.pause)

    async def _prune_versions(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        query = self._old_versions(self._now())
        removed.versions += await self._remove_all(query, self._store.delete_versions, goes_on)

    async def _prune_operations(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        if (before := cut(self._now(), self._limits.audit_age)) is not None:
            query = queries.old_operations(before)
            removed.operations += await self._remove_all(query, self._store.delete_operations, goes_on)

    async def _prune_bytes(self, removed: Removed, goes_on: Callable[[], bool]) -> None:
        """Interrupted removals first; then what nobody has needed for the whole grace."""
        now = self._now()
        await self._store.look_at_bytes(now)
        before = now - timedelta(seconds=self._limits.bytes_grace)
        interrupted = await self._store.keys(
            queries.interrupted_removals(now - INTERRUPTED), self._pace.batch
        )
        unused = await self._store.keys(queries.unused_bytes(before), self._pace.batch)
        marks = [(digest, self._store.take_over_removal, now - INTERRUPTED) for digest in interrupted]
        marks += [(digest, self._store.begin_removal, before) for digest in unused]
        for digest, mark, since in marks:
            if not goes_on():
                return
            began = self._clock()
            if not await mark(digest, since, self._now()):
                continue
            if self._clock() - began > PROMPT:
                log.warning("the removal of binary %s was held up: a later pass goes on with it", digest)
                continue
            await self._remove_files([layout.binary_path(digest)])
            await self._store.end_removal(digest)
            removed.binaries += 1
            await self._pause(self._pace.pause)

    # How

    async def _old_jobs(self, now: datetime) -> list[Keys]:
        found = []
        if (before := cut(now, self._limits.jobs_age)) is not None:
            found.append(queries.old_jobs(before))
        if self._limits.jobs_count is not None:
            place = await self._store.job_beyond(self._limits.jobs_count)
            found += [queries.jobs_up_to(place)] if place is not None else []
        return found

    async def _contexts_before(self, now: datetime) -> datetime | None:
        """Contexts that ended before this are too old or too many."""
        before = cut(now, self._limits.contexts_age)
        last = None
        if self._limits.contexts_count is not None:
            last = await self._store.context_beyond(self._limits.contexts_count)
        bounds = [bound for bound in (before, last and last + timedelta(microseconds=1)) if bound]
        return max(bounds, default=None)

    async def _with_checkpoints(self) -> set[str]:
        """Raises StoreUnavailable."""
        try:
            return set(await asyncio.to_thread(catalog.contexts, self._files))
        except CheckpointError as error:
            raise StoreUnavailable(f"the checkpoint store does not tell what it holds: {error}") from error

    def _old_versions(self, now: datetime) -> Keys:
        return queries.old_versions(cut(now, self._limits.versions_age), self._limits.versions_count)

    async def _remove_all(
        self,
        query: Keys,
        remove: Callable[[Collection[Any]], Awaitable[int]],
        goes_on: Callable[[], bool],
    ) -> int:
        """Batch by batch until the query finds nothing more, or what it finds does not go."""
        total = 0
        while goes_on() and (keys := await self._store.keys(query, self._pace.batch)):
            done = await remove(keys)
            total += done
            if not done or len(keys) < self._pace.batch:
                break
            await self._pause(self._pace.pause)
        return total

    async def _walk(
        self,
        what: str,
        age: float | None,
        remove: Callable[[Collection[str]], Awaitable[int]],
        goes_on: Callable[[], bool],
    ) -> int:
        """Over ended jobs, on from where the last pass came to: what is done leaves no mark in the rows.

        Jobs that it passes by, as they have not ended (long enough ago), are remembered for the passes that follow.
        """
        if (before := cut(self._now(), age)) is None:
            return 0
        total = await self._come_back(what, before, remove, goes_on)
        while goes_on():
            found = await self._store.submitted_jobs(self._looked_at.get(what), before, self._pace.batch)
            if not found:
                break
            ended = [place.job_id for place, at in found if at is not None and at < before]
            total += await remove(ended) if ended else 0
            self._later.setdefault(what, set()).update({place.job_id for place, _ in found}.difference(ended))
            self._looked_at[what] = found[-1][0]
            await self._pause(self._pace.pause)
        return total

    async def _come_back(
        self,
        what: str,
        before: datetime,
        remove: Callable[[Collection[str]], Awaitable[int]],
        goes_on: Callable[[], bool],
    ) -> int:
        """To the jobs that earlier passes passed by."""
        later, total = self._later.setdefault(what, set()), 0
        waiting = sorted(later)
        for start in range(0, len(waiting), self._pace.batch):
            if not goes_on():
                break
            ids = waiting[start : start + self._pace.batch]
            ends = await self._store.ends_of(ids)
            ended = [one for one, at in ends.items() if at is not None and at < before]
            total += await remove(ended) if ended else 0
            later.difference_update(ended, set(ids).difference(ends))
            await self._pause(self._pace.pause)
        return total

    async def _remove_files(self, paths: Any) -> None:
        """Raises StoreUnavailable."""
        try:
            await asyncio.to_thread(_remove_each, self._files, list(paths))
        except CheckpointError as error:
            raise StoreUnavailable(f"the checkpoint store removes nothing now: {error}") from error


def _remove_each(files: FileStore, paths: list[str]) -> None:
    for path in paths:
        files.remove(path)
