"""Series of measured values, what is expected of them, and sections of the report. Pure but for `Series.timed`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum


class Against(StrEnum):
    """What a goal bounds: the value itself, or how it differs from the baseline measured in the same run."""

    VALUE = "value"
    DIFFERENCE = "difference"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class Goal:
    """`limit` for one percentile (`share`, 0 to 1), in the unit of the values or as a ratio."""

    share: float
    limit: float
    against: Against = Against.VALUE


@dataclass(slots=True)
class Series:
    """Measured values under one name. `baseline`: the same thing without us, measured in the same run."""

    name: str
    unit: str = "s"
    goals: tuple[Goal, ...] = ()
    baseline: Series | None = None
    values: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the seconds that the block took; nothing when it fails."""
        begin = time.perf_counter()
        yield
        self.values.append(time.perf_counter() - begin)


@dataclass(slots=True)
class Section:
    """The result of one benchmark. `about` says what was done; `notes` say what was seen beside the numbers."""

    title: str
    about: str
    series: list[Series]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: as much as each benchmark likes, a given number of rounds, or hardly anything."""

    rounds: int | None = None
    quick: bool = False

    def rounds_of(self, full: int) -> int:
        """Rounds of a benchmark that would like to have `full`."""
        return self.rounds or (1 if self.quick else full)

    def times(self, full: int, least: int) -> int:
        """A count inside a round: `full`, or `least` of a quick run."""
        return least if self.quick else full


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("a percentile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def reached_value(series: Series, goal: Goal) -> float:
    """What was reached where the goal looks. Raises ValueError for a comparison without a baseline."""
    value = percentile(series.values, goal.share)
    if goal.against is Against.VALUE:
        return value
    if series.baseline is None:
        raise ValueError(f"{series.name!r} has a goal against a baseline and no baseline")
    other = percentile(series.baseline.values, goal.share)
    return value - other if goal.against is Against.DIFFERENCE else value / other


def summary(series: Series) -> dict[str, object]:
    """What is kept of a series beside its values."""
    shown = {f"p{round(share * 100)}": percentile(series.values, share) for share in (0.5, 0.95, 0.99)}
    goals = [
        {
            "share": goal.share,
            "against": goal.against.value,
            "limit": goal.limit,
            "reached": reached_value(series, goal),
            "met": reached_value(series, goal) <= goal.limit,
        }
        for goal in series.goals
    ]
    return {
        "name": series.name,
        "unit": series.unit,
        "n": len(series.values),
        **shown,
        "max": max(series.values),
        "baseline": series.baseline.name if series.baseline else None,
        "goals": goals,
    }
