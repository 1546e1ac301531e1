"""Code that blocks (the checkpoint's) on the simulated clock: it runs in a greenlet, and its waits are the loop's.

So the real writer and the real `begin_epoch` can be interleaved with anything else at every call they make to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from tests.sim.loop import Crashed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a function ended; by `error` unless that is None."""

    value: Any = None
    error: BaseException | None = None


_idle: list[greenlet] = []
"""Greenlets whose function has ended: to make a new one takes five times as long as to go on in one of these."""


async def run(work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """What the function returns or raises; takes the place of `asyncio.to_thread`.

    As there, who is cancelled stops to wait, and the function goes on.
    """
    blocked = _Blocked(asyncio.get_running_loop())
    blocked.go_on(partial(work, *args, **kwargs))
    return await blocked.done


class _Blocked:
    """A function under way, in a greenlet; `done` becomes what it returns or raises."""

    __slots__ = ("_child", "_loop", "done")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._child = _idle.pop() if _idle else greenlet(_life)

    def go_on(self, *begin: Callable[[], Any]) -> None:
        answer: Any = self._child.switch(*begin)
        if not isinstance(answer, _Outcome):
            self._loop.call_later(answer, self.go_on)
            return
        _idle.append(self._child)
        if isinstance(answer.error, Crashed) or self.done.done():
            return  # nobody is left to go on, or to be told
        if answer.error is None:
            self.done.set_result(answer.value)
        else:
            self.done.set_exception(answer.error)
            self.done.exception()  # or asyncio complains when the caller's process has ended meanwhile


def pause(seconds: float) -> None:
    """Blocks the function that `run` runs for so long; outside of `run`, no time passes."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch(seconds)


def _life(work: Callable[[], Any]) -> None:
    """Of a greenlet: it carries out one function after the other, and holds nothing of one that has ended."""
    while True:
        ended = [_outcome(work)]
        del work
        work = _parent().switch(ended.pop())


def _outcome(work: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(work())
    except (Exception, Crashed) as error:  # noqa: BLE001  it is the caller's
        return _Outcome(error=error)


def _parent() -> greenlet:
    parent = getcurrent().parent
    assert parent is not None, "only `run` makes these greenlets"
    return parent
