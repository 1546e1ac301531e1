"""Code that blocks (the checkpoint's) on the simulated clock: it runs in a greenlet, and its waits are the loop's.

So the real writer and the real `begin_epoch` can be interleaved with anything else at every call they make to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from tests.sim.loop import Crashed

T = TypeVar("T")


async def run(work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """What the function returns or raises; takes the place of `asyncio.to_thread`.

    As there, who is cancelled stops to wait, and the function goes on.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    child = greenlet(lambda: work(*args, **kwargs))

    def go_on() -> None:
        try:
            answer: Any = child.switch()
        except Crashed:
            return  # nobody is left to go on
        except Exception as error:  # noqa: BLE001  it is the caller's
            if not done.done():
                done.set_exception(error)
                done.exception()  # or asyncio complains when the caller's process has ended meanwhile
        else:
            if not child.dead:
                loop.call_later(answer, go_on)
            elif not done.done():
                done.set_result(answer)

    go_on()
    return await done


def pause(seconds: float) -> None:
    """Blocks the function that `run` runs for so long; outside of `run`, no time passes."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch(seconds)
