"""Code that blocks (the checkpoint's) on the simulated clock: it runs in a greenlet, and its waits are the loop's.

So the real writer and the real `begin_epoch` can be interleaved with anything else at every call they make to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


async def run(work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """What the function returns or raises; takes the place of `asyncio.to_thread`.

    As there, who is cancelled stops to wait, and the function goes on.
    """
    task = asyncio.create_task(_run(work, *args, **kwargs))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def _run(work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    child = greenlet(lambda: work(*args, **kwargs))
    answer: Any = child.switch()
    while not child.dead:
        await asyncio.sleep(answer)
        answer = child.switch()
    return answer  # type: ignore[no-any-return]


def pause(seconds: float) -> None:
    """Blocks the function that `run` runs for so long; outside of `run`, no time passes."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch(seconds)
