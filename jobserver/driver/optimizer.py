"""The threads of the JVM's optimizing compiler, and when they yield to all others (DECISIONS 152 and 188).

While a driver starts and while it waits without a context, their work comes after everybody's. In one that is activated it comes
at once, or after the first seconds where all of Spark is still to be compiled: until they come to it, the loop of a query runs in
code that is some twenty times slower.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger(__name__)

YIELDING = 10
"""What is added to their niceness: about a tenth of a processor while others of the driver wait for one, all of it else."""
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
                    os.setpriority(os.PRIO_PROCESS, ident, min(usual + YIELDING, 19))

    def compete_after(self, seconds: float) -> None:
        """`compete`, in so many seconds; at once, before this returns, if there are none."""
        if not seconds:
            self.compete()
            return
        later = threading.Timer(seconds, self.compete)
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


def may_compete_again() -> bool:
    """Whether the system lets threads of ours yield no longer once they have: that takes CAP_SYS_NICE or a limit ("nice").

    Tried on a thread of its own, as rights have many sources.
    """
    found: list[bool] = []
    trial = threading.Thread(target=lambda: found.append(_tried()), name="niceness")
    trial.start()
    trial.join()
    return found == [True]


def _tried() -> bool:
    me = threading.get_native_id()
    usual = os.getpriority(os.PRIO_PROCESS, me)
    try:
        os.setpriority(os.PRIO_PROCESS, me, min(usual + 1, 19))
        os.setpriority(os.PRIO_PROCESS, me, usual)
    except OSError:
        return False
    return True
