"""SQL in virtual time: tables that check every change, and the way there, on which replies and statements get lost or late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, TypeVar

from jobserver.errors import JobServerError, OutcomeUnknown, StoreUnavailable
from jobserver.lifecycle import CONTEXT_MOVES, JOB_MOVES
from jobserver.model import ContextRecord, Fence, FenceRow, JobRecord, JobState
from tests.fakes.database import FakeStore
from tests.fakes.metadata import FakeMetadata
from tests.sim.loop import NOBODY, Process
from tests.sim.network import Network

T = TypeVar("T")
PLACE = "sql"
TIMEOUT = 1.0
"""Seconds after which a call gives up (half of the setting's default, so that a run is short)."""

_READS = frozenset(
    (
        "list_binaries",
        "find_binary",
        "references",
        "jobs_using_binary",
        "digest_in_use",
        "context",
        "latest_context",
        "active_contexts",
        "listed_contexts",
        "fence",
        "fences",
        "job",
        "find_jobs",
        "unfinished_jobs",
        "job_history",
        "config",
        "configs",
        "query",
        "queries",
        "due_callbacks",
        "callback_of_job",
        "newest_operations",
    )
)


class FenceTable(dict[str, FenceRow]):
    """Epochs never fall, and each is granted once."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        super().__init__()
        self._broken = broken

    def __setitem__(self, context_id: str, row: FenceRow) -> None:
        before = self.get(context_id)
        if before is not None and row.epoch != before.epoch + 1:
            self._broken(f"the epoch of {context_id} went from {before.epoch} to {row.epoch}")
        super().__setitem__(context_id, row)


class ContextTable(dict[str, ContextRecord]):
    """Contexts move as the table of moves allows."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        super().__init__()
        self._broken = broken

    def __setitem__(self, context_id: str, record: ContextRecord) -> None:
        before = self.get(context_id)
        if before is not None and record.state not in (before.state, *CONTEXT_MOVES[before.state]):
            self._broken(f"context {record.name} moved from {before.state} to {record.state}")
        super().__setitem__(context_id, record)


class JobTable(dict[str, JobRecord]):
    """A job ends once, its attempts rise by one, and no attempt is above the limit."""

    def __init__(self, broken: Callable[[str], None], changed: Callable[[JobRecord], None]) -> None:
        super().__init__()
        self._broken = broken
        self._changed = changed

    def __setitem__(self, job_id: str, job: JobRecord) -> None:
        before = self.get(job_id)
        if before is not None:
            self._check(before, job)
        super().__setitem__(job_id, job)
        self._changed(job)

    def _check(self, before: JobRecord, job: JobRecord) -> None:
        if before.state is not job.state and job.state not in JOB_MOVES[before.state]:
            self._broken(f"job {job.id} went from {_move(before, job)}")
        if job.attempt not in (before.attempt, before.attempt + 1):
            self._broken(f"the attempts of job {job.id} went from {_move(before, job)}")
        if job.attempt > before.attempt and job.state is not JobState.RUNNING:
            self._broken(f"job {job.id} has an attempt that does not run: {_move(before, job)}")


def _move(before: JobRecord, job: JobRecord) -> str:
    return f"{before.state} (attempt {before.attempt}) to {job.state} (attempt {job.attempt})"


class SimStore(FakeStore):
    """The tables. `broken` is told of every change that no promise allows, `changed` of every change of a job."""

    def __init__(self, broken: Callable[[str], None], changed: Callable[[JobRecord], None]) -> None:
        super().__init__([], ContextTable(broken), FenceTable(broken), JobTable(broken, changed))
        self._broken = broken

    def change_context(self, fence: Fence, **changes: Any) -> bool:
        done = super().change_context(fence, **changes)
        self._check_epoch(done, fence, f"context {', '.join(changes)}")
        return done

    def change_job(
        self,
        fence: Fence,
        job_id: str,
        states: Collection[JobState],
        attempt: int | None,
        change: Callable[[JobRecord], JobRecord],
        *,
        at: datetime,
        server: str,
    ) -> bool:
        done = super().change_job(fence, job_id, states, attempt, change, at=at, server=server)
        self._check_epoch(done, fence, f"job {job_id}")
        return done

    def _check_epoch(self, done: bool, fence: Fence, what: str) -> None:
        row = self.fences[fence.context_id]
        if done and (row.epoch, row.token) != (fence.epoch, fence.token):
            self._broken(f"a write of epoch {fence.epoch} was taken while epoch {row.epoch} stands: {what}")


@dataclass
class Trouble:
    """How likely a write's reply is lost, or the write comes after its caller has given up."""

    lost: float = 0.0
    late: float = 0.0


class SimMetadata(FakeMetadata):
    """One server's access."""

    def __init__(
        self, store: FakeStore, network: Network, process: Process, random: Random, trouble: Trouble
    ) -> None:
        super().__init__(store, server=process.place)
        self._network = network
        self._process = process
        self._random = random
        self._trouble = trouble

    async def _call(self, operation: str, action: Callable[[], T]) -> T:
        network, reads = self._network, operation in _READS
        await network.loop.pause(network.latency())
        if network.blocked(self._process.place, PLACE):
            await self._fall_silent(StoreUnavailable("the store does not answer"))
        if not reads and self._random.random() < self._trouble.late:
            return await self._late(operation, action)
        result = action()
        if not reads and self._random.random() < self._trouble.lost:
            raise OutcomeUnknown(f"{operation}: the reply was lost")
        await network.loop.pause(network.latency())
        if network.blocked(self._process.place, PLACE):
            await self._fall_silent(
                StoreUnavailable("no answer") if reads else OutcomeUnknown("no answer came")
            )
        return result

    async def _fall_silent(self, error: JobServerError) -> None:
        await self._network.loop.pause(TIMEOUT)
        raise error

    async def _late(self, operation: str, action: Callable[[], T]) -> T:
        """The statement is carried out when nobody waits for it any more."""
        delay = self._random.uniform(0.0, 2.0)
        self._network.loop.call_later(delay, _quietly, action, context=NOBODY)
        await asyncio.sleep(self._random.uniform(0.0, delay))
        raise OutcomeUnknown(f"{operation}: the connection broke")


def _quietly(action: Callable[[], Any]) -> None:
    try:
        action()
    except JobServerError:
        return  # a refusal that nobody hears
