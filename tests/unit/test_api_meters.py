"""Meters and timers: rates that follow the load, quantiles of what came last."""

from __future__ import annotations

import pytest

from jobserver.api.meters import KEPT, Meter, Timer, quantile


def test_a_steady_load_shows_its_rate_in_every_average() -> None:
    meter = Meter(0.0)
    for event in range(6000):
        meter.mark(event / 10)
    shown = meter.shown(600.0)
    assert shown["count"] == 6000
    assert [shown[key] for key in ("mean", "m1", "m5", "m15")] == pytest.approx([10.0] * 4, rel=0.02)


def test_when_the_load_ends_the_short_average_falls_first() -> None:
    meter = Meter(0.0)
    for event in range(6000):
        meter.mark(event / 10)
    shown = meter.shown(660.0)
    assert shown["m1"] == pytest.approx(10 / 2.718, rel=0.1)
    assert shown["m1"] < shown["m5"] < shown["m15"] < 10.0


def test_a_meter_that_saw_nothing_shows_zeros() -> None:
    assert Meter(5.0).shown(5.0) == {
        "type": "meter", "units": "seconds", "count": 0, "mean": 0.0, "m1": 0.0, "m5": 0.0, "m15": 0.0,
    }  # fmt: skip


def test_a_timer_shows_milliseconds_of_its_last_durations() -> None:
    timer = Timer(0.0)
    for _ in range(5):
        timer.update(9.0, 0.0)
    for number in range(KEPT):
        timer.update(number / KEPT, 1.0)
    shown = timer.shown(10.0)
    assert (shown["type"], shown["rate"]["count"], shown["duration"]["units"]) == (
        "timer", KEPT + 5, "milliseconds",
    )  # fmt: skip
    assert shown["duration"]["median"] == pytest.approx(500, abs=2)
    assert shown["duration"]["p99"] == pytest.approx(990, abs=2)


def test_quantiles_lie_between_values_in_proportion() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile([4.0], 0.999) == 4.0
    assert quantile([0.0, 10.0], 0.25) == 2.5
