"""The one way to write: group commit in a thread of its own.

While a group is being committed, writes that arrive wait and become the next group; a lonely write starts at once.
So the price of a commit (an fsync) is shared by all that came meanwhile, and no timer delays anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from sqlalchemy import Engine

from jobserver.errors import OutcomeUnknown, StoreUnavailable
from jobserver.store.transaction import Outcome, RunTogether, T, Work

log = logging.getLogger(__name__)

LARGEST_GROUP: Final = 128
"""Writes in one transaction; bounds how long other servers wait for the write lock."""
LONGEST_QUEUE: Final = 4096
"""Writes that wait for their group; beyond it callers are told to come again, as the memory they hold must end somewhere."""


@dataclass(slots=True, eq=False)
class _Entry:
    work: Work[Any]
    done: asyncio.Future[Any]
    deadline: float  # on the loop's clock
    sent: bool = False


class GroupWriter:
    """Writes through `engine` (one connection). `patience` in seconds bounds each call from its start to its end."""

    def __init__(self, engine: Engine, run_together: RunTogether, *, patience: float) -> None:
        self._engine = engine
        self._run_together = run_together
        self._patience = patience
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._make_calls, name="store-write", daemon=True)
        self._disposed = False
        self._waiting: deque[_Entry] = deque()
        self._running: Sequence[_Entry] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.trouble: str | None = None
        """Why the last group was not written; None once one was."""

    async def write(self, work: Work[T]) -> T:
        """What `work` returned, once committed. Raises StoreUnavailable (not done), OutcomeUnknown, or what it raised."""
        if self._closed:
            raise StoreUnavailable("the metadata store is closed")
        if len(self._waiting) >= LONGEST_QUEUE:
            raise StoreUnavailable(f"the metadata store is busy: {LONGEST_QUEUE} writes wait for it already")
        loop = asyncio.get_running_loop()
        entry = _Entry(work, loop.create_future(), loop.time() + self._patience)
        self._waiting.append(entry)
        self._start_group()
        if self._timer is None:
            self._timer = loop.call_at(entry.deadline, self._give_up)
        value: T = await entry.done
        return value

    async def close(self) -> None:
        """Refuses what waits, lets the running group end (within the patience) and closes the connection."""
        if self._disposed:
            return
        self._closed = True
        while self._waiting:
            _settle(self._waiting.popleft(), Outcome(error=StoreUnavailable("the metadata store is closing")))
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send(partial(self._dispose, asyncio.get_running_loop(), ended))
        try:
            async with asyncio.timeout(self._patience):
                await ended
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _start_group(self) -> None:
        if self._running or not (group := self._next_group()):
            return
        self._running = group
        self._send(partial(self._run, asyncio.get_running_loop(), [entry.work for entry in group]))

    def _send(self, call: Callable[[], None]) -> None:
        """To the writer's thread, which makes the calls in their order; the futures of a pool would cost more than this."""
        if self._thread.ident is None:
            self._thread.start()
        self._calls.put(call)

    def _make_calls(self) -> None:
        while not self._disposed:
            self._calls.get()()

    def _run(self, loop: asyncio.AbstractEventLoop, works: Sequence[Work[Any]]) -> None:
        """In the thread: one group."""
        try:
            outcomes = self._run_together(self._engine, works)
        except Exception as error:
            # it answers for every failure that it can name; what comes out here says nothing about the commit
            log.exception("a write broke in an unforeseen way")
            unknown = OutcomeUnknown(f"a write broke in an unforeseen way: {error!r}")
            outcomes = [Outcome(error=unknown)] * len(works)
        _tell(loop, self._end_group, outcomes)

    def _dispose(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        """In the thread: its last call."""
        self._disposed = True
        try:
            self._engine.dispose()
        finally:
            _tell(loop, _end, ended)

    def _next_group(self) -> list[_Entry]:
        """Those still wanted: a caller that gave up before its write was sent must find that it never happened."""
        group: list[_Entry] = []
        while self._waiting and len(group) < LARGEST_GROUP:
            entry = self._waiting.popleft()
            if not entry.done.done():
                entry.sent = True
                group.append(entry)
        return group

    def _end_group(self, outcomes: Sequence[Outcome]) -> None:
        group, self._running = self._running, ()
        for entry, outcome in zip(group, outcomes, strict=True):
            _settle(entry, outcome)
        self.trouble = _trouble(outcomes)
        self._start_group()

    def _give_up(self) -> None:
        """Ends the calls that are overdue. One timer for all: a timer per write was half of a write's cost here."""
        loop = asyncio.get_running_loop()
        pending = [entry for entry in (*self._running, *self._waiting) if not entry.done.done()]
        for entry in pending:
            if entry.deadline <= loop.time():
                _settle(entry, Outcome(error=self._gave_up(entry)))
        deadlines = [entry.deadline for entry in pending if not entry.done.done()]
        self._timer = loop.call_at(min(deadlines), self._give_up) if deadlines else None

    def _gave_up(self, entry: _Entry) -> Exception:
        if entry.sent:
            return OutcomeUnknown(f"the metadata store did not answer a write within {self._patience:g} s")
        return StoreUnavailable(f"the metadata store took no write for {self._patience:g} s")


def _tell(loop: asyncio.AbstractEventLoop, told: Callable[[T], None], value: T) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(told, value)


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _trouble(outcomes: Sequence[Outcome]) -> str | None:
    """The database's own words, if it took none of these writes."""
    words = [
        one.error.message for one in outcomes if isinstance(one.error, StoreUnavailable | OutcomeUnknown)
    ]
    return words[0] if words and len(words) == len(outcomes) else None


def _settle(entry: _Entry, outcome: Outcome) -> None:
    if entry.done.done():
        return  # its caller was cancelled or gave up
    if outcome.error is None:
        entry.done.set_result(outcome.value)
    else:
        entry.done.set_exception(outcome.error)
