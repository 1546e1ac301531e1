"""Whether the driver of an owned context still does its work, and what it tells of itself meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from jobserver.contexts.clock import now
from jobserver.contexts.parts import KeeperTimes
from jobserver.contexts.takeover import Takeover
from jobserver.errors import JobServerError
from jobserver.protocol import Request

log = logging.getLogger(__name__)

PING_INTERVAL = 1.0
"""Seconds between pings to the driver."""


class DriverWatch:
    """`store_trouble`, `stuck_jobs` and `data` are what the driver told last. Belongs to the event loop."""

    def __init__(self, context_id: str, times: KeeperTimes, give_up: Callable[[Takeover, str], None]) -> None:
        self._context_id = context_id
        self._times = times
        self._give_up = give_up
        self.store_trouble: Mapping[str, int] = {}
        self.stuck_jobs = 0
        self.data: dict[str, Any] | None = None

    async def follow(self, takeover: Takeover) -> None:
        """Pings until the driver is gone: one that is silent for too long, or full of jobs that no kill ends, is given up."""
        limit = self._times.driver_timeout
        self.stuck_jobs = 0
        while not takeover.link.closed:
            silence, stuck = await self._ping(takeover, limit)
            if silence >= limit and not takeover.link.closed:
                self._give_up(takeover, f"the driver or its JVM was silent for {silence:.1f} s")
                return
            if self._is_stuck(stuck) and not takeover.link.closed:
                self._give_up(takeover, f"{stuck} killed jobs could not be ended")
                return
            await asyncio.sleep(PING_INTERVAL)

    async def _ping(self, takeover: Takeover, limit: float) -> tuple[float, int]:
        """Seconds for which the driver or its JVM has been silent, and how many killed jobs go on in it."""
        silence, stuck = 0.0, 0
        with contextlib.suppress(JobServerError):
            answer = await takeover.link.request(Request.PING, timeout=limit)
            silence = answer.get("jvm_silence", 0.0)
            self.store_trouble = answer.get("store_trouble", {})
            stuck = int(answer.get("abandoned", 0))
            self.data = answer.get("data")
        return max(silence, now() - takeover.link.heard_at), stuck

    def _is_stuck(self, stuck: int) -> bool:
        """Whether the driver is to be replaced, as killed jobs go on in it and the settings want that."""
        if stuck > self.stuck_jobs:
            log.warning("context %s: %d killed jobs could not be ended", self._context_id, stuck)
        self.stuck_jobs = stuck
        return stuck > 0 and self._times.replace_when_stuck
