"""A server that stops in the middle of a write, with locks on every fence row and job, as soon as it gets SIGUSR1."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobserver.errors import JobServerError
from jobserver.settings import Settings

ENDED = "FROZEN_WRITE_ENDED"
"""Environment: the file that tells how the write ended."""
GOES_ON = threading.Event()
_tasks: set[asyncio.Task[None]] = set()


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """The server's process."""
    from jobserver.serving import run
    from jobserver.store.metadata import Metadata

    opened = Metadata.open

    async def listening(*args: Any, **more: Any) -> Metadata:
        store = await opened(*args, **more)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCONT, GOES_ON.set)
        loop.add_signal_handler(
            signal.SIGUSR1,
            lambda: _tasks.add(asyncio.ensure_future(_freeze(store, Path(environment[ENDED])))),
        )
        return store

    Metadata.open = listening  # type: ignore[method-assign, assignment]
    run(settings)


async def _freeze(store: Any, told: Path) -> None:
    try:
        await store._database.write(_hold)
        ended = "done"
    except JobServerError as error:
        ended = type(error).__name__
    await asyncio.to_thread(told.write_text, ended)


def _hold(connection: Any) -> None:
    connection.exec_driver_sql("SELECT epoch FROM fences LOCK IN SHARE MODE")
    connection.exec_driver_sql("UPDATE jobs SET state = state")
    os.kill(os.getpid(), signal.SIGSTOP)
    GOES_ON.wait()  # the signal reaches the other threads first: this one must not run on to its commit
