"""Identity of processes: a pid is only meaningful with the start time of its process. Linux (/proc)."""

from __future__ import annotations

import os

from ha.deaths import start_ticks

__all__ = ["own_start_ticks", "start_ticks"]


def own_start_ticks() -> int:
    """Start time of this process, in kernel ticks since boot."""
    ticks = start_ticks(os.getpid())
    if ticks is None:
        raise RuntimeError("this process is not in /proc")
    return ticks
