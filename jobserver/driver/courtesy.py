"""What a driver does while it waits for a context leaves the processors to drivers that answer somebody (DECISIONS 190).

Two means, as it depends on the system which of them counts: the niceness of all its processes, and, where Linux divides the
processors among sessions before it looks at that, the niceness of its session ("autogroup", see sched(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path

from jobserver.driver.niceness import LAST, YIELDING, may_be_lowered

PATIENCE = 20.0
"""Seconds that a start and its warm-up yield: on a machine that is busier than that, the next standby would never be ready."""
_SESSION = Path("/proc/self/autogroup")
_AGAIN = 0.1
"""Seconds until the kernel takes another change of a session's niceness from those who are not root."""


class Courtesy:
    """Of this process and all that it starts, from `begin` to `end`; of a process that leads its session."""

    def __init__(self) -> None:
        self._usual = os.getpriority(os.PRIO_PROCESS, 0)
        self._may_go_back = may_be_lowered()
        self._added = 0
        self._over = True
        self._changing = threading.Lock()
        self._patience = threading.Timer(PATIENCE, self._change, (0,))
        self._patience.daemon = True

    def begin(self) -> None:
        """Yield from now on, for `PATIENCE` seconds at most unless `resume` is called until then.

        One that was started by hand, in a session with others, does not: they would yield with it.
        """
        self._over = os.getsid(0) != os.getpid()
        self._change(YIELDING)
        self._patience.start()

    def resume(self) -> None:
        """Yield as long as it takes: nobody waits for what comes from now on."""
        self._patience.cancel()
        self._change(YIELDING)

    def pause(self) -> None:
        """Yield no longer for now: somebody waits."""
        self._patience.cancel()
        self._change(0)

    def end(self) -> None:
        """Yield no longer, ever."""
        self._patience.cancel()
        self._change(0, last=True)

    def _change(self, added: int, *, last: bool = False) -> None:
        with self._changing:
            if self._over:
                return
            self._over = last
            if self._added == added:
                return
            before, self._added = self._added, added
            session_done = _set_session(added)
            if self._may_go_back:
                _set_group(0, self._niceness(added))
        rest = threading.Thread(
            target=self._change_rest, args=(before, added, session_done), name="courtesy", daemon=True
        )
        rest.start()

    def _change_rest(self, before: int, added: int, session_done: bool) -> None:
        """What nobody's first answer waits for: Python workers, in groups of their own, and threads that were begun just then.

        Groups of another niceness have chosen it.
        """
        if self._may_go_back:
            for group in _groups_of_session():
                with self._changing, contextlib.suppress(OSError):  # it has ended
                    ours = os.getpriority(os.PRIO_PGRP, group) == self._niceness(before)
                    if (ours or group == os.getpgrp()) and self._added == added:
                        _set_group(group, self._niceness(added))
        while not session_done:
            time.sleep(_AGAIN)  # the kernel says only "again", never when
            with self._changing:
                session_done = self._added != added or _set_session(added)

    def _niceness(self, added: int) -> int:
        return min(self._usual + added, LAST)


def _set_session(niceness: int) -> bool:
    """Whether that is done with; else the kernel wants to be asked again."""
    try:
        _SESSION.write_text(str(niceness))
    except OSError as error:  # EAGAIN, or there is no such thing
        return error.errno != errno.EAGAIN
    return True


def _set_group(group: int, niceness: int) -> None:
    """Of all threads of all its processes."""
    with contextlib.suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PGRP, group, niceness)


def _groups_of_session() -> set[int]:
    found, session = set(), os.getsid(0)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # processes come and go
            if os.getsid(int(process.name)) == session:
                found.add(os.getpgid(int(process.name)))
    return found
