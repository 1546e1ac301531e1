"""Work of a keeper beside its events: tasks that end by themselves, or with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from jobserver.errors import JobServerError

log = logging.getLogger(__name__)


class Background:
    """Belongs to the event loop. What fails is logged: nobody waits for it."""

    def __init__(self, context_id: str) -> None:
        self._context_id = context_id
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begins the work."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Ends all of it."""
        for task in list(self._tasks):
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, JobServerError):
            log.warning("context %s: %s: %s", self._context_id, task.get_name(), error)
        else:
            log.error("context %s: %s failed", self._context_id, task.get_name(), exc_info=error)
