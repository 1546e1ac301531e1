"""How far the driver's work that has time yields, and whether that can be taken back."""

from __future__ import annotations

import os
import threading

YIELDING = 10
"""What is added to a niceness: about a tenth of a processor while others wait for one, all of it else."""
LAST = 19
"""The highest niceness there is."""


def may_be_lowered() -> bool:
    """Whether the system lets us yield no longer once we have: that takes CAP_SYS_NICE or a limit ("nice").

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
        os.setpriority(os.PRIO_PROCESS, me, min(usual + 1, LAST))
        os.setpriority(os.PRIO_PROCESS, me, usual)
    except OSError:
        return False
    return True
