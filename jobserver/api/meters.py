"""Meters and timers as `GET /metricz` of existing servers prints them (rest_contract section 7). Pure: time is a parameter.

A meter's m1, m5 and m15 are moving averages per second, weighted towards the last 1, 5 and 15 minutes; a timer's quantiles
are those of its last 1,024 durations.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

TICK = 5.0
"""Seconds between two steps of the moving averages."""
KEPT = 1024
_MINUTES = (1, 5, 15)
_QUANTILES = {"median": 0.5, "p75": 0.75, "p95": 0.95, "p98": 0.98, "p99": 0.99, "p999": 0.999}


class Meter:
    """Counts events; rates per second. `now` is any clock of seconds that never goes back."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._ticked = now
        self._fresh = 0
        self.count = 0
        self._rates = [0.0] * len(_MINUTES)
        self._started = False

    def mark(self, now: float) -> None:
        """One more event."""
        self._tick(now)
        self.count += 1
        self._fresh += 1

    def shown(self, now: float) -> dict[str, Any]:
        """As `/metricz` prints it."""
        self._tick(now)
        passed = now - self._began
        m1, m5, m15 = self._rates
        mean = self.count / passed if passed > 0 else 0.0
        return {
            "type": "meter",
            "units": "seconds",
            "count": self.count,
            "mean": mean,
            "m1": m1,
            "m5": m5,
            "m15": m15,
        }

    def _tick(self, now: float) -> None:
        steps = int((now - self._ticked) // TICK)
        if steps <= 0:
            return
        self._ticked += steps * TICK
        rate, self._fresh = self._fresh / TICK, 0
        for index, minutes in enumerate(_MINUTES):
            keep = math.exp(-TICK / 60.0 / minutes)
            first = rate if not self._started else rate + (self._rates[index] - rate) * keep
            self._rates[index] = first * keep ** (steps - 1)  # the steps after it saw no event
        self._started = True


class Timer:
    """A meter with the durations of its events in seconds; they are shown in milliseconds."""

    def __init__(self, now: float) -> None:
        self._meter = Meter(now)
        self._last: deque[float] = deque(maxlen=KEPT)
        self._sum = 0.0

    def update(self, seconds: float, now: float) -> None:
        """One more event that took so long."""
        self._meter.mark(now)
        self._last.append(seconds)
        self._sum += seconds

    def shown(self, now: float) -> dict[str, Any]:
        """As `/metricz` prints it."""
        count = self._meter.count
        ordered = sorted(self._last)
        durations: dict[str, Any] = {"type": "histogram", "units": "milliseconds"}
        durations["mean"] = 1000.0 * self._sum / count if count else 0.0
        durations |= {name: 1000.0 * quantile(ordered, part) for name, part in _QUANTILES.items()}
        return {"type": "timer", "rate": self._meter.shown(now), "duration": durations}


def quantile(ordered: list[float], part: float) -> float:
    """The value below which that part of the ordered values lies, between two of them in proportion; 0 of none."""
    if not ordered:
        return 0.0
    at = part * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
