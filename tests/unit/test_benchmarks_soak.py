"""The verdict of the soak."""

import pytest

from benchmarks.measure import reached_value
from benchmarks.soak import Trace, section, slope


@pytest.mark.parametrize(
    ("values", "growth"),
    [([], 0), ([5], 0), ([3, 3, 3], 0), ([1, 2, 3, 4], 1), ([4, 2], -2), ([0, 1, 0, 1, 0], 0)],
)
def test_growth_is_the_slope_of_the_line_through_the_samples(values, growth):
    assert slope(values) == pytest.approx(growth)


def test_growth_is_told_per_1000_jobs_and_after_the_warm_up():
    leaking = Trace("server: resident", "MB", [10, 60, 80, *(100 + 2 * at for at in range(8))])
    series = {each.name: each for each in section([leaking], 500).series}
    verdict = series["server: resident: growth per 1,000 jobs"]
    assert verdict.values == [pytest.approx(4)]
    assert reached_value(verdict, verdict.goals[0]) > verdict.goals[0].limit
