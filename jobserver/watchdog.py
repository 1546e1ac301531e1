"""Ends a server whose event loop hangs: its ZooKeeper client pings from a thread of its own and would keep it alive for ever."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

EXIT_CODE = 70
"""Exit status of a server that its watchdog ended (EX_SOFTWARE)."""


class Watchdog:
    """A thread that expects the loop to turn at least every `timeout` seconds."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._turned = time.monotonic()
        self._stopped = threading.Event()

    def start(self) -> None:
        """To be called in the loop."""
        self._turn(asyncio.get_running_loop())
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watches no more."""
        self._stopped.set()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turned = time.monotonic()
        if not self._stopped.is_set():
            loop.call_later(self._timeout / 5, self._turn, loop)

    def _watch(self) -> None:
        """A process that was frozen as a whole wakes with an old mark, too: the loop gets one more period to turn."""
        doubted = False
        while not self._stopped.wait(self._timeout / 2):
            late = time.monotonic() - self._turned > self._timeout
            if late and doubted:
                sys.stderr.write(f"the event loop has not turned for {self._timeout:g} s: this server ends\n")
                sys.stderr.flush()
                os._exit(EXIT_CODE)
            doubted = late
