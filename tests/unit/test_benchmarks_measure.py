"""What benchmarks say of their values."""

import pytest

from benchmarks.measure import Series, percentile, summary, table


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.01, 1), (1.0, 10)])
def test_a_percentile_is_a_measured_value_of_that_rank(share, value):
    assert percentile([10, 1, 2, 3, 4, 5, 6, 7, 8, 9], share) == value


def test_a_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_goal_is_reached_by_the_95th_percentile_not_by_the_best_value():
    assert summary(Series("a", goal=1.0, values=[0.5] * 19 + [2.0]))["reached"] is True
    assert summary(Series("a", goal=1.0, values=[0.5] * 18 + [2.0] * 2))["reached"] is False
    assert summary(Series("a", values=[1.0]))["reached"] is None


def test_a_failed_round_leaves_no_value():
    series = Series("a")
    with pytest.raises(RuntimeError), series.timed():
        raise RuntimeError
    with series.timed():
        pass
    assert len(series.values) == 1


def test_the_table_says_which_goals_were_missed():
    goals = list(table([Series("a", goal=1, values=[2.0]), Series("b", values=[1.0])]).columns[-1].cells)
    assert goals == ["1 MISSED", "-"]
