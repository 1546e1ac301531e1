"""Who builds which named object: one thread at a time for each name, and what the others wait for.

All methods are called under the lock of the condition that they share with the versions.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

LOOK_AGAIN = 0.5
"""Seconds after which a waiting caller looks whether the builder's thread still lives."""


@dataclass(slots=True, eq=False)
class Turn:
    """The right of one thread to make the next version of a name. `error`: why nothing came of it.

    `thread`: builds it, then seals it; the turn goes over from one to the other.

    `updating`: it replaces what there is, so its build may read that.
    """

    thread: threading.Thread
    updating: bool = False
    error: Exception | None = None

    @property
    def mine(self) -> bool:
        """Whether the calling thread has it."""
        return self.thread is threading.current_thread()


class Turns:
    """The turns that are taken at this moment."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._taken: dict[str, Turn] = {}

    def of(self, name: str) -> Turn | None:
        """The turn that somebody has, be its thread alive or not."""
        return self._taken.get(name)

    def is_free(self, name: str) -> bool:
        """Whether nobody builds it. A builder whose thread was killed does not count. Raises RuntimeError in a circle."""
        turn = self._taken.get(name)
        if turn is not None and turn.mine:
            raise RuntimeError(f"the build of {name!r} asks for {name!r} itself")
        return turn is None or not turn.thread.is_alive()

    def begin(self, name: str, *, updating: bool = False) -> Turn:
        """The calling thread builds it from now on."""
        turn = self._taken[name] = Turn(threading.current_thread(), updating)
        return turn

    def take(self, name: str, timeout: float) -> Turn:
        """Wait until nobody builds it, then begin to update it. Raises TimeoutError."""
        end = time.monotonic() + timeout
        while not self.is_free(name):
            self.wait(name, end)
        return self.begin(name, updating=True)

    def wait(self, name: str, end: float) -> None:
        """Wait for any change, at most until `end` (monotonic). Raises TimeoutError."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"named object {name!r} was not ready in time; its build goes on")
        self._changed.wait(min(left, LOOK_AGAIN))

    def end(self, name: str, turn: Turn | None = None) -> None:
        """That turn, or the one of the calling thread, ends; one that has gone over to somebody else goes on."""
        taken = self._taken.get(name)
        if taken is not None and (taken is turn or (turn is None and taken.mine)):
            del self._taken[name]
        self._changed.notify_all()


def shared_failure(name: str, error: Exception) -> Exception:
    """What those get who waited for a failed build: each an exception of its own, since tracebacks are not shared."""
    failure = RuntimeError(f"the build of named object {name!r} failed: {error!r}")
    failure.__cause__ = error
    return failure
