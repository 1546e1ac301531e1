"""Threads that no kill can reach, for steps that must happen whole: sealing and publishing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Keeper:
    """A fixed number of threads that are all started at once, never from (and so never as) a job's thread."""

    def __init__(self, name: str, threads: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._loop, name=f"{name}-{number}", daemon=True).start()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Run the task in one of the threads."""
        future: Future[T] = Future()
        self._tasks.put((future, task))
        return future

    def _loop(self) -> None:
        while True:
            future, task = self._tasks.get()
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001
                # whatever it is, it belongs to who waits for the future, and this thread must live on
                future.set_exception(error)
