"""The threads of the JVM's optimizing compiler, and when they yield to the driver's others (DECISIONS 152 and 188).

In a driver that a context waits for, their work comes after the start and the first answer, and then at once: until they come
to it, the loop of a query runs in code that is some twenty times slower.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

from jobserver.driver.niceness import LAST, YIELDING

log = logging.getLogger(__name__)

YIELDS_FOR = 3.0
"""Seconds from the activation on that they still yield: a first small job has been answered by then."""
_NAME = b"C2 Compiler"
"""How HotSpot names them."""


class Optimizer:
    """Those of one JVM, all of which are there soon after its start. `yields`: whether they are to, for now."""

    def __init__(self, pid: int, *, yields: bool) -> None:
        self._pid = pid
        self._yields = yields
        self._known: set[int] = set()

    def look(self) -> None:
        """Let those which have come since the last look yield."""
        if not self._yields:
            return
        with contextlib.suppress(OSError):  # the JVM may have gone
            for ident in self._threads():
                if ident not in self._known:
                    self._known.add(ident)
                    usual = os.getpriority(os.PRIO_PROCESS, ident)
                    os.setpriority(os.PRIO_PROCESS, ident, min(usual + YIELDING, LAST))

    def activated(self) -> None:
        """Let them yield no longer, `YIELDS_FOR` seconds from now."""
        later = threading.Timer(YIELDS_FOR, self.compete)
        later.daemon = True
        later.start()

    def compete(self) -> None:
        """Let them yield no longer, where the system allows that."""
        try:
            usual = os.getpriority(os.PRIO_PROCESS, self._pid)
            for ident in self._threads():
                os.setpriority(os.PRIO_PROCESS, ident, usual)
        except OSError as error:  # not allowed, or the JVM has gone
            log.info("the optimizing compiler goes on yielding: %s", error)

    def _threads(self) -> list[int]:
        found = []
        for thread in Path(f"/proc/{self._pid}/task").iterdir():
            with contextlib.suppress(OSError):  # other threads come and go
                if (thread / "comm").read_bytes().startswith(_NAME):
                    found.append(int(thread.name))
        return found
