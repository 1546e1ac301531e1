"""Seconds of the event loop's clock. All waits of the shells are measured on it, so that a simulation can turn it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def now() -> float:
    """Seconds on the running loop's clock, which never jumps back."""
    return asyncio.get_running_loop().time()


class StepClock:
    """Seconds that each step of one takeover took, by the name of its phase."""

    def __init__(self, steps: Iterable[str]) -> None:
        self._known = frozenset(steps)
        self._step: str | None = None
        self._since = 0.0
        self._seconds: dict[str, float] = {}

    def enter(self, phase: str) -> None:
        """A phase begins. One that is no step ends the takeover; the step after it begins another."""
        at = now()
        if self._step is not None:
            self._seconds[self._step] = self._seconds.get(self._step, 0.0) + at - self._since
        elif phase in self._known:
            self._seconds = {}
        self._step, self._since = (phase if phase in self._known else None), at

    @property
    def seconds(self) -> dict[str, float]:
        """By step, of the last takeover that ended."""
        return {step: round(seconds, 4) for step, seconds in self._seconds.items()}


def seconds_left(deadline: float) -> float:
    """Seconds until a time of that clock, at least 0."""
    return max(0.0, deadline - now())


async def within(future: asyncio.Future[T], seconds: float) -> T:
    """What becomes of a future that nobody else waits for. Raises TimeoutError; the future has ended in any case.

    As `asyncio.wait_for`, for what is waited for with every job: that makes a future and a task's worth of calls more.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _give_up, future)
    try:
        return await future
    finally:
        timer.cancel()


def _give_up(future: asyncio.Future[T]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
