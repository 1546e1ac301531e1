"""Seconds of the event loop's clock. All waits of the shells are measured on it, so that a simulation can turn it."""

from __future__ import annotations

import asyncio


def now() -> float:
    """Seconds on the running loop's clock, which never jumps back."""
    return asyncio.get_running_loop().time()


def seconds_left(deadline: float) -> float:
    """Seconds until a time of that clock, at least 0."""
    return max(0.0, deadline - now())
