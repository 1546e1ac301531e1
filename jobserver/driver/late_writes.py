"""Async objects that are not sealed yet: written every interval, and at once when a move asks for it; bounded in age.

Only the newest version of a name waits; its age counts from the first change that is not sealed. Trouble of the store is
waited out. Data that cannot be written although the store is well is given up after a few tries, and says so: it holds up
no other, still counts as not sealed, and is tried again slowly.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from checkpoint.errors import CheckpointError, StoreUnavailable
from jobserver.driver.held import Held

log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds between two tries while the store is in trouble."""
TRIES = 3
"""Tries for data that cannot be written although the store is well."""
GIVEN_UP_RETRY = 30.0
"""Seconds between two tries of what was given up: what refused it may pass, as a quota does."""


@dataclass(frozen=True, slots=True)
class AsyncLimits:
    """Seconds. `interval`: between two writes; `max_lag`: beyond it async updates are refused."""

    interval: float = 5.0
    max_lag: float = 600.0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the checkpoint is behind: objects that wait, and seconds since the oldest change that is not sealed."""

    objects: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Late:
    """`since`: its first change that is not sealed; `queued`: the same, but not from before older data was given up.

    `trouble`: why it was given up; `again`: when it is tried then, None when it is tried with all others.
    """

    held: Held
    since: float
    queued: float
    tries: int = 0
    trouble: str | None = None
    again: float | None = None


class _End(Enum):
    """How a try ended."""

    DONE = auto()
    WAITS = auto()  # the name is being built, or its data could not be written
    STORE = auto()


class LateWrites:
    """`write` writes and seals a version, False if that has to wait; `store_is_well` raises CheckpointError if it is not.

    `settled` is told of each version for which nothing is written any more: it is sealed, or replaced.
    """

    def __init__(
        self,
        limits: AsyncLimits,
        write: Callable[[Held], bool],
        settled: Callable[[Held], None],
        store_is_well: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._write = write
        self._settled = settled
        self._store_is_well = store_is_well
        self._clock = clock
        self._lock = threading.RLock()  # entered itself, as in versions
        self._changed = threading.Condition(self._lock)
        self._late: dict[str, _Late] = {}
        self._tried: _Late | None = None
        self._hurry = False
        self._thread: threading.Thread | None = None

    def admit(self) -> None:
        """Refuse an async update when others wait too long already. Raises StoreUnavailable."""
        with self._lock:
            waiting = [late for late in self._late.values() if late.trouble is None]
            seconds = max((self._clock() - late.queued for late in waiting), default=0.0)
        if seconds > self._limits.max_lag:
            raise StoreUnavailable(
                f"{len(waiting)} async objects wait for the checkpoint store for {seconds:.0f} s"
                f" (limit {self._limits.max_lag:g} s): no more are taken before they are sealed"
            )

    def add(self, held: Held) -> None:
        """A version that readers see and that is not sealed; it replaces an older one that waits."""
        with self._lock:
            older, now = self._late.get(held.name), self._clock()
            since = older.since if older else now
            queued = older.queued if older and older.trouble is None else now
            self._late[held.name] = _Late(held, since, queued)
            self._settle(older)
            if self._thread is None:  # called by a keeper's thread, so this one is no job's either
                self._thread = threading.Thread(target=self._run, name="late-writes", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, name: str) -> None:
        """Nothing of that name needs to be written any more."""
        with self._lock:
            self._settle(self._late.pop(name, None))
            self._changed.notify_all()

    def _settle(self, late: _Late | None) -> None:
        """Not while it is tried: the end of the try does that."""
        if late is not None and late is not self._tried:
            self._settled(late.held)

    def lag(self) -> Lag:
        """What is not sealed at this moment, be it given up or not."""
        with self._lock:
            oldest = min((late.since for late in self._late.values()), default=None)
            return Lag(len(self._late), 0.0 if oldest is None else max(self._clock() - oldest, 0.0))

    def trouble(self, held: Held) -> str | None:
        """Why a version is not written; None if it will be soon, or is."""
        with self._lock:
            late = self._late.get(held.name)
            return late.trouble if late and late.held is held else None

    def flush(self, limit: float) -> bool:
        """Write all that waits now, for at most `limit` seconds; whether all is sealed. What was given up gets one more try."""
        end = time.monotonic() + limit
        with self._lock:
            for late in self._late.values():
                late.again = None
            while any(late.again is None for late in self._late.values()):
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._hurry = True
                self._changed.notify_all()
                self._changed.wait(min(left, RETRY))
            return not self._late

    def _run(self) -> None:
        while True:
            ends = set[_End]()
            for late in self._due():
                ends.add(self._try(late))
                if _End.STORE in ends:
                    break  # the others would only meet the same trouble
            if ends - {_End.DONE}:
                time.sleep(RETRY)

    def _due(self) -> list[_Late]:
        """Wait until something is to be written: all that waits, oldest first, and then what was given up long enough ago."""
        with self._lock:
            while True:
                now, all_late = self._clock(), sorted(self._late.values(), key=lambda late: late.queued)
                waiting = [late for late in all_late if late.again is None]
                given_up = [late for late in all_late if late.again is not None and late.again <= now]
                if waiting and (self._hurry or waiting[0].queued + self._limits.interval <= now):
                    self._hurry = False
                    return waiting + given_up
                if given_up:
                    return given_up
                times = [late.again for late in all_late if late.again is not None]
                times += [late.queued + self._limits.interval for late in waiting[:1]]
                self._changed.wait(min(times) - now if times else None)

    def _try(self, late: _Late) -> _End:
        with self._lock:
            if self._late.get(late.held.name) is not late:
                return _End.DONE
            self._tried = late
        try:
            return self._tried_once(late)
        finally:
            with self._lock:
                self._tried = None
                if self._late.get(late.held.name) is not late:
                    self._settled(late.held)

    def _tried_once(self, late: _Late) -> _End:
        try:
            done = self._write(late.held)
        except StoreUnavailable as error:
            log.warning("named object %r is not checkpointed yet: %s", late.held.name, error)
            return _End.STORE
        except Exception as error:  # noqa: BLE001
            # Spark's failures have no common class: the store tells whether it is its trouble or the data's own
            return self._judge(late, error)
        if not done:
            return _End.WAITS
        with self._lock:
            if self._late.get(late.held.name) is late:
                del self._late[late.held.name]
            self._changed.notify_all()
        return _End.DONE

    def _judge(self, late: _Late, error: Exception) -> _End:
        try:
            self._store_is_well()
        except CheckpointError:
            log.warning("named object %r is not checkpointed yet: %s", late.held.name, error)
            return _End.STORE
        late.tries += 1
        if late.tries >= TRIES:
            self._give_up(late, error)
        return _End.WAITS

    def _give_up(self, late: _Late, error: Exception) -> None:
        if late.trouble is None:
            text = "named object %r cannot be checkpointed and is in memory only; tried again every %g s"
            log.error(text, late.held.name, GIVEN_UP_RETRY, exc_info=error)
        with self._lock:
            late.trouble = f"it cannot be written: {error}"[:500]
            late.again = self._clock() + GIVEN_UP_RETRY
            self._changed.notify_all()
