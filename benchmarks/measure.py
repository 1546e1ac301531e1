"""Series of measured times, their percentiles, and how they are shown and kept. Pure but for `Clock`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.table import Table


@dataclass(slots=True)
class Series:
    """Measured values under one name. `goal` bounds the 95th percentile, in the unit of the values, if there is one."""

    name: str
    unit: str = "s"
    goal: float | None = None
    values: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the seconds that the block took; nothing when it fails."""
        begin = time.perf_counter()
        yield
        self.values.append(time.perf_counter() - begin)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("a percentile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def summary(series: Series) -> dict[str, object]:
    """What is kept of a series."""
    shown = {f"p{round(share * 100)}": percentile(series.values, share) for share in (0.5, 0.95, 0.99)}
    reached = None if series.goal is None else shown["p95"] <= series.goal
    return {
        "name": series.name,
        "unit": series.unit,
        "n": len(series.values),
        **shown,
        "max": max(series.values),
        "goal_p95": series.goal,
        "reached": reached,
    }


def table(all_series: Sequence[Series]) -> Table:
    """All series, a row each."""
    shown = Table("what", "unit", "n", "p50", "p95", "p99", "max", "goal (p95)")
    for series in all_series:
        row = summary(series)
        numbers = [f"{row[key]:.3f}" for key in ("p50", "p95", "p99", "max")]
        goal = "-" if series.goal is None else f"{series.goal:g} {'reached' if row['reached'] else 'MISSED'}"
        shown.add_row(series.name, series.unit, str(row["n"]), *numbers, goal)
    return shown
