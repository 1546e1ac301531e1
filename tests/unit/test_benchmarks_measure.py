"""What benchmarks say of their values."""

import json

import pytest

from benchmarks.measure import Against, Effort, Goal, Section, Series, percentile, reached_value, summary
from benchmarks.report import markdown, plain_data, quantity, rows


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.01, 1), (1.0, 10)])
def test_a_percentile_is_a_measured_value_of_that_rank(share, value):
    assert percentile([10, 1, 2, 3, 4, 5, 6, 7, 8, 9], share) == value


def test_a_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_goal_is_reached_by_its_percentile_not_by_the_best_value():
    goals = (Goal(0.95, 1.0),)
    assert summary(Series("a", goals=goals, values=[0.5] * 19 + [2.0]))["goals"][0]["met"] is True
    assert summary(Series("a", goals=goals, values=[0.5] * 18 + [2.0] * 2))["goals"][0]["met"] is False


@pytest.mark.parametrize(("against", "reached"), [(Against.DIFFERENCE, 1.0), (Against.RATIO, 1.5)])
def test_a_goal_against_the_baseline_compares_the_same_percentile_of_both(against, reached):
    series = Series("ours", values=[3.0, 9.0, 9.0], baseline=Series("theirs", values=[2.0, 2.0, 100.0]))
    assert reached_value(series, Goal(0.3, 0.0, against)) == reached


def test_a_goal_against_a_baseline_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="no baseline"):
        reached_value(Series("a", values=[1.0]), Goal(0.5, 1.0, Against.RATIO))


def test_a_failed_round_leaves_no_value():
    series = Series("a")
    with pytest.raises(RuntimeError), series.timed():
        raise RuntimeError
    with series.timed():
        pass
    assert len(series.values) == 1


def test_the_report_says_what_was_reached_and_which_goals_were_missed():
    base = Series("theirs", values=[1.0])
    ours = Series("ours", goals=(Goal(0.5, 0.5, Against.DIFFERENCE),), baseline=base, values=[2.0])
    quick = Series("quick", goals=(Goal(1.0, 0.1),), values=[0.05])
    shown = rows(Section("t", "about", [base, ours, quick]))
    assert [row[-1] for row in shown] == [
        "-",
        "median +1.00 s ≤ 500 ms: MISSED",
        "worst 50.0 ms ≤ 100 ms: reached",
    ]
    assert shown[1][-2] == "+1.00 s, × 2.00 (theirs)"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "s", "12.35 s"),
        (0.0123, "s", "12.3 ms"),
        (-0.4, "s", "-400 ms"),
        (88.96, "MB", "89.0 MB"),
        (0.1, "%", "0.100 %"),
    ],
)
def test_a_quantity_shows_three_figures_and_its_unit(value, unit, text):
    assert quantity(value, unit) == text


def test_the_markdown_is_a_table_whose_rows_have_as_many_cells_as_its_head():
    text = markdown([Section("Title", "About.", [Series("a | b", values=[1.0])], ["a note"])], "Here.")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("### Title\n\nHere.\n\nAbout.\n\n|")
    assert {line.replace("\\|", "").count("|") for line in table} == {8}
    assert len(table) == 3
    assert text.endswith("* a note\n")


def test_what_is_measured_again_replaces_the_section_of_its_title_only():
    def about(title: str, value: float) -> Section:
        return Section(title, f"About {title}.", [Series("a", values=[value])])

    older = markdown([about("A", 1.0), about("AB", 2.0), about("C", 3.0)], "Then.", "# Results\n\nWords.\n")
    assert older.startswith("# Results\n\nWords.\n\n### A\n\nThen.\n")
    for title in ("A", "AB", "C"):
        newer = markdown([about(title, 4.0)], "Now.", older)
        changed = [
            (was, now) for was, now in zip(older.splitlines(), newer.splitlines(), strict=True) if was != now
        ]
        assert changed[0][1] == "Now."
        assert len(changed) == 2
    assert markdown([about("D", 5.0)], "Now.", older) == older + "\n" + markdown([about("D", 5.0)], "Now.")


def test_series_without_values_are_left_out():
    section = Section("t", "about", [Series("a")])
    assert rows(section) == []
    assert json.loads(json.dumps(plain_data([section]))) == [{"title": "t", "notes": [], "series": []}]


def test_rounds_are_the_given_ones_else_few_when_quick_else_the_benchmark_s_own():
    assert Effort(rounds=7, quick=True).rounds_of(10) == 7
    assert Effort(quick=True).rounds_of(10) == 1
    assert Effort().rounds_of(10) == 10
    assert (Effort().times(20, 3), Effort(quick=True).times(20, 3)) == (20, 3)
