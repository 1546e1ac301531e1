"""Async objects that are not sealed yet: written every interval, and at once when a move asks for it; bounded in age.

Only the newest version of a name waits; its age counts from the first change that is not sealed. Trouble of the store is
waited out. Data that cannot be written although the store is well is given up after a few tries, and says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from checkpoint.errors import CheckpointError, StoreUnavailable
from jobserver.driver.held import Held

log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds between two tries while the store is in trouble."""
TRIES = 3
"""Tries for data that cannot be written although the store is well."""


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


@dataclass(slots=True)
class _Late:
    held: Held
    since: float
    tries: int = 0


class LateWrites:
    """`write` writes and seals a version, False if that has to wait; `store_is_well` raises CheckpointError if it is not."""

    def __init__(
        self,
        limits: AsyncLimits,
        write: Callable[[Held], bool],
        store_is_well: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._write = write
        self._store_is_well = store_is_well
        self._clock = clock
        self._changed = threading.Condition()
        self._late: dict[str, _Late] = {}
        self._given_up: dict[str, tuple[Held, str]] = {}
        self._hurry = False
        self._thread: threading.Thread | None = None

    def admit(self) -> None:
        """Refuse an async update when others wait too long already. Raises StoreUnavailable."""
        lag = self.lag()
        if lag.seconds > self._limits.max_lag:
            raise StoreUnavailable(
                f"{lag.objects} async objects wait for the checkpoint store for {lag.seconds:.0f} s"
                f" (limit {self._limits.max_lag:g} s): no more are taken before they are sealed"
            )

    def add(self, held: Held) -> None:
        """A version that readers see and that is not sealed; it replaces an older one that waits."""
        with self._changed:
            older = self._late.get(held.name)
            self._late[held.name] = _Late(held, older.since if older else self._clock())
            self._given_up.pop(held.name, None)
            if self._thread is None:  # called by a keeper's thread, so this one is no job's either
                self._thread = threading.Thread(target=self._run, name="late-writes", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, name: str) -> None:
        """Nothing of that name needs to be written any more."""
        with self._changed:
            self._late.pop(name, None)
            self._given_up.pop(name, None)
            self._changed.notify_all()

    def lag(self) -> Lag:
        """What waits at this moment."""
        with self._changed:
            oldest = min((late.since for late in self._late.values()), default=None)
            return Lag(len(self._late), 0.0 if oldest is None else max(self._clock() - oldest, 0.0))

    def trouble(self, held: Held) -> str | None:
        """Why a version will not be written; None if it will be, or is."""
        with self._changed:
            given_up = self._given_up.get(held.name)
            return given_up[1] if given_up and given_up[0] is held else None

    def flush(self, limit: float) -> bool:
        """Write all that waits now, for at most `limit` seconds; whether all is sealed."""
        end = time.monotonic() + limit
        with self._changed:
            while self._late:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._hurry = True
                self._changed.notify_all()
                self._changed.wait(min(left, RETRY))
            return True

    def _run(self) -> None:
        while True:
            for late in self._due():
                if not self._try(late):
                    time.sleep(RETRY)  # the store is in trouble: the others would only meet it as well
                    break

    def _due(self) -> list[_Late]:
        with self._changed:
            while True:
                oldest = min((late.since for late in self._late.values()), default=None)
                if oldest is not None:
                    left = oldest + self._limits.interval - self._clock()
                    if self._hurry or left <= 0:
                        self._hurry = False
                        return sorted(self._late.values(), key=lambda late: late.since)
                self._changed.wait(None if oldest is None else left)

    def _try(self, late: _Late) -> bool:
        """Whether to go on with the next."""
        try:
            done = self._write(late.held)
        except CheckpointError as error:
            log.warning("named object %r is not checkpointed yet: %s", late.held.name, error)
            return False
        except Exception as error:  # noqa: BLE001
            # Spark's failures have no common class: the store tells whether it is its trouble or the data's own
            return self._judge(late, error)
        if done:
            self._done(late)
        return done

    def _judge(self, late: _Late, error: Exception) -> bool:
        try:
            self._store_is_well()
        except CheckpointError:
            log.warning("named object %r is not checkpointed yet: %s", late.held.name, error)
            return False
        late.tries += 1
        if late.tries < TRIES:
            return False
        log.error(
            "named object %r cannot be checkpointed and stays in memory only", late.held.name, exc_info=error
        )
        with self._changed:
            self._given_up[late.held.name] = (late.held, f"it cannot be written: {error}"[:500])
        self._done(late)
        return True

    def _done(self, late: _Late) -> None:
        with self._changed:
            if self._late.get(late.held.name) is late:
                del self._late[late.held.name]
            self._changed.notify_all()
