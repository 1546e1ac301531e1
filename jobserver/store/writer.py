"""The one way to write: group commit in a thread of its own.

While a group is being committed, writes that arrive wait and become the next group; a lonely write starts at once.
So the price of a commit (an fsync) is shared by all that came meanwhile, and no timer delays anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from jobserver.errors import OutcomeUnknown, StoreUnavailable
from jobserver.store.transaction import Outcome, T, Work, run_together

LARGEST_GROUP: Final = 128
"""Writes in one transaction; bounds how long other servers wait for the write lock."""


@dataclass(slots=True, eq=False)
class _Entry:
    work: Work[Any]
    done: asyncio.Future[Any]
    sent: bool = False


class GroupWriter:
    """Writes through `engine` (one connection). `patience` in seconds bounds each call from its start to its end."""

    def __init__(self, engine: Engine, *, patience: float) -> None:
        self._engine = engine
        self._patience = patience
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-write")
        self._waiting: deque[_Entry] = deque()
        self._busy = False
        self._closed = False

    async def write(self, work: Work[T]) -> T:
        """What `work` returned, once committed. Raises StoreUnavailable (not done), OutcomeUnknown, or what it raised."""
        if self._closed:
            raise StoreUnavailable("the metadata store is closed")
        entry = _Entry(work, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._start_group()
        try:
            async with asyncio.timeout(self._patience):
                value: T = await entry.done
                return value
        except TimeoutError:
            raise self._gave_up(entry) from None

    async def close(self) -> None:
        """Refuses what waits, lets the running group end (within the patience) and closes the connection."""
        self._closed = True
        while self._waiting:
            _settle(self._waiting.popleft(), Outcome(error=StoreUnavailable("the metadata store is closing")))
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        finally:
            self._thread.shutdown(wait=False)

    def _start_group(self) -> None:
        if self._busy or not (group := self._next_group()):
            return
        self._busy = True
        running = asyncio.get_running_loop().run_in_executor(
            self._thread, run_together, self._engine, [entry.work for entry in group]
        )
        running.add_done_callback(lambda ended: self._end_group(group, ended))

    def _next_group(self) -> list[_Entry]:
        """Those still wanted: a caller that gave up before its write was sent must find that it never happened."""
        group: list[_Entry] = []
        while self._waiting and len(group) < LARGEST_GROUP:
            entry = self._waiting.popleft()
            if not entry.done.done():
                entry.sent = True
                group.append(entry)
        return group

    def _end_group(self, group: Sequence[_Entry], ended: asyncio.Future[list[Outcome]]) -> None:
        self._busy = False
        for entry, outcome in zip(group, _outcomes(group, ended), strict=True):
            _settle(entry, outcome)
        self._start_group()

    def _gave_up(self, entry: _Entry) -> Exception:
        if entry.sent:
            return OutcomeUnknown(f"the metadata store did not answer a write within {self._patience:g} s")
        return StoreUnavailable(f"the metadata store took no write for {self._patience:g} s")


def _outcomes(group: Sequence[_Entry], ended: asyncio.Future[list[Outcome]]) -> list[Outcome]:
    if ended.cancelled():
        unknown = OutcomeUnknown("the metadata store was closed during a write")
        return [Outcome(error=unknown) for _ in group]
    error = ended.exception()
    if error is None:
        return ended.result()
    # `run_together` answers for every failure it can name; what comes out here says nothing about the commit.
    return [Outcome(error=OutcomeUnknown(f"a write broke in an unforeseen way: {error!r}")) for _ in group]


def _settle(entry: _Entry, outcome: Outcome) -> None:
    if entry.done.done():
        return  # its caller was cancelled or gave up
    if outcome.error is None:
        entry.done.set_result(outcome.value)
    else:
        entry.done.set_exception(outcome.error)
