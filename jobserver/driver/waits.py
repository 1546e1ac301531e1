"""Python's waits in slices for job threads, since nothing can be raised in a thread that waits inside C.

Covers time.sleep, Condition.wait (so Event, Queue and Future too), Thread.join, and locks made by jobs' own code. Other
threads keep the plain functions. Not covered: SimpleQueue.get, subprocess waits, sockets without a timeout.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

from jobserver.driver.jobthreads import RunningAttempt, current

SLICE = 0.05
"""Longest wait inside C, in seconds."""

_sleep = time.sleep
_condition_wait = threading.Condition.wait
_join = threading.Thread.join
_lock = threading.Lock


def install() -> None:
    """Replace the functions, once per process."""
    time.sleep = sliced_sleep  # type: ignore[assignment]
    threading.Condition.wait = _sliced_condition_wait  # type: ignore[method-assign, assignment]
    threading.Thread.join = _sliced_join  # type: ignore[method-assign, assignment]
    threading.Lock = _lock_for_caller  # type: ignore[assignment]


def sliced_sleep(seconds: float) -> None:
    """time.sleep, which a kill ends within a slice when the caller is a job."""
    if current() is None or not seconds > SLICE:
        _sleep(seconds)
        return
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _sleep(min(left, SLICE))


def _sliced_condition_wait(condition: threading.Condition, timeout: float | None = None) -> bool:
    if current() is None:
        return _condition_wait(condition, timeout)
    return _wait_as_one_waiter(condition, None if timeout is None else time.monotonic() + timeout)


def _wait_as_one_waiter(condition: Any, end: float | None) -> bool:
    """Condition.wait, with its one step in C in slices: the same waiter stays in the condition's list all the while.

    A wait for each slice would lose the notification that comes when a slice has ended and the condition's lock is still
    the notifier's: the waiter is taken from the list then, and the wait says that its time is over.
    """
    if not condition._is_owned():
        raise RuntimeError("cannot wait on un-acquired lock")
    waiter = _lock()
    waiter.acquire()
    condition._waiters.append(waiter)
    saved, notified = condition._release_save(), False
    try:
        while not notified:
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            notified = waiter.acquire(True, max(left, 0))
            if end is not None and time.monotonic() >= end:
                break
        return notified
    finally:
        condition._acquire_restore(saved)
        if not notified:
            with contextlib.suppress(ValueError):  # notified since
                condition._waiters.remove(waiter)


def _sliced_join(thread: threading.Thread, timeout: float | None = None) -> None:
    if current() is None:
        _join(thread, timeout)
        return
    end = None if timeout is None else time.monotonic() + timeout
    while thread.is_alive() or end is None:
        left = SLICE if end is None else min(SLICE, end - time.monotonic())
        _join(thread, max(left, 0))
        if not thread.is_alive() or (end is not None and time.monotonic() >= end):
            return


def _lock_for_caller() -> Any:
    return _lock() if current() is None else SlicedLock()


@dataclass(frozen=True, slots=True)
class _Holder:
    thread: threading.Thread
    attempt: RunningAttempt | None

    @property
    def killed(self) -> bool:
        """Whether a kill has ended its thread, wherever that was: between taking the lock and the next step, maybe."""
        return self.attempt is not None and self.attempt.killing and not self.thread.is_alive()


class SlicedLock:
    """A threading.Lock whose waiting can be ended by a kill, and which nobody holds any more whose thread a kill has ended.

    Its steps are Python, so a kill may be raised between any two of them: a waiter may have got the lock and never know.
    """

    def __init__(self) -> None:
        self._at_fork_reinit()

    def _at_fork_reinit(self) -> None:
        """As a new one: in the child of a fork nobody is left who holds it. The name is that of threading.Lock's."""
        self._guard = _lock()  # for a few steps only, and entered itself, so that no kill leaves it held
        self._free_again = _lock()
        self._free_again.acquire()
        self._holder: _Holder | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As threading.Lock.acquire."""
        me = _Holder(threading.current_thread(), current())
        end = None if timeout < 0 else time.monotonic() + timeout
        while not self._taken_by(me):
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            if not blocking or left <= 0:
                return False
            self._free_again.acquire(True, left)
        return True

    def _taken_by(self, me: _Holder) -> bool:
        with self._guard:
            if self._holder is not None and not self._holder.killed:
                return False
            self._holder = me
            return True

    def release(self) -> None:
        """As threading.Lock.release. A thread that is being killed releases no other's: it may have lost the lock unawares."""
        attempt = current()
        with self._guard:
            if self._holder is None:
                raise RuntimeError("release unlocked lock")
            others = self._holder.thread is not threading.current_thread()
            if others and attempt is not None and attempt.killing:
                return
            self._holder = None
            if self._free_again.locked():
                self._free_again.release()

    def locked(self) -> bool:
        """As threading.Lock.locked."""
        with self._guard:
            return self._holder is not None and not self._holder.killed

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
