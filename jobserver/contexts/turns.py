"""One at a time on this machine: warm drivers are started in turn, also by servers that share the machine.

Starting a JVM with Spark keeps two cores busy for seconds. Servers that fill their pools at the same moment (all of them do,
at the start of a local cluster) would slow each other and the contexts that are being created meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

LOOK_AGAIN = 0.25
"""Seconds between two tries to get the lock; a waiting thread per server would be the alternative."""

Turn = Callable[[], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def no_turn() -> AsyncIterator[None]:
    """For launchers that cost nothing."""
    yield


def machine_turn(lock: Path) -> Turn:
    """Turns by a lock on a file; whoever dies loses it."""

    @contextlib.asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(descriptor):
                await asyncio.sleep(LOOK_AGAIN)
            yield
        finally:
            os.close(descriptor)

    return turn


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
