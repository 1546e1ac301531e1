"""A driver that nobody waits for leaves the processors to those that answer somebody (DECISIONS 190).

Two means, as it depends on the system which of them counts: the niceness of all its processes, and, where Linux divides the
processors among sessions before it looks at that, the niceness of its session ("autogroup", see sched(7)).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from pathlib import Path

import psutil

from jobserver.driver.niceness import LAST, YIELDING, may_be_lowered

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that a start and its warm-up yield: on a machine that is busier than that, the next standby would never be ready."""
_SESSION = Path("/proc/self/autogroup")
_AGAIN = 0.1
"""Seconds until the kernel takes another change of a session's niceness from those who are not root."""


class Courtesy:
    """Of this process and all that it starts, from `begin` to `end`; of a process that leads its session."""

    def __init__(self) -> None:
        self._usual = os.getpriority(os.PRIO_PROCESS, 0)
        self._yields = False
        self._changing = threading.Lock()
        self._patience = threading.Timer(PATIENCE, self.end)
        self._patience.daemon = True

    def begin(self) -> None:
        """Yield from now on, for `PATIENCE` seconds at most unless `ready` is called until then.

        One that was started by hand, in a session with others, does not: they would yield with it.
        """
        if os.getsid(0) != os.getpid():
            return
        self._yields = True
        _set_session(YIELDING)
        if may_be_lowered():
            os.setpriority(os.PRIO_PGRP, 0, min(self._usual + YIELDING, LAST))
        self._patience.start()

    def ready(self) -> None:
        """It is warm: what it still does has time."""
        self._patience.cancel()

    def end(self) -> None:
        """Yield no longer. Does nothing where it does not yield."""
        with self._changing:
            if not self._yields:
                return
            self._yields = False
        session_done = _set_session(0)
        _set_group(0, self._usual)
        rest = threading.Thread(target=self._end_rest, args=(session_done,), name="courtesy", daemon=True)
        rest.start()

    def _end_rest(self, session_done: bool) -> None:
        """What nobody's first answer waits for: Python workers are in groups of their own."""
        for group in _groups_of_children():
            _set_group(group, self._usual)
        while not session_done:
            time.sleep(_AGAIN)
            session_done = _set_session(0)


def _set_session(niceness: int) -> bool:
    """Whether that is done with; else the kernel wants to be asked again."""
    try:
        _SESSION.write_text(str(niceness))
    except OSError as error:  # EAGAIN, or there is no such thing
        return error.errno != errno.EAGAIN
    return True


def _set_group(group: int, niceness: int) -> None:
    """All threads of all processes of a group. They stay as they are where the system forbids to lower it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PGRP, group, niceness)


def _groups_of_children() -> set[int]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError):  # it has ended
            found.add(os.getpgid(child.pid))
    return found
