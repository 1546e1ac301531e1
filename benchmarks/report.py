"""How sections are shown: as tables for a terminal, as Markdown for the README, as JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.measure import Against, Goal, Section, Series, percentile, reached_value, summary

COLUMNS = ("what", "n", "p50", "p99", "worst", "p50 against the baseline", "goals")


def rows(section: Section) -> list[list[str]]:
    """The cells of a section, a row for each series that has values."""
    return [_row(series) for series in section.series if series.values]


def _row(series: Series) -> list[str]:
    numbers = [percentile(series.values, share) for share in (0.5, 0.99, 1.0)]
    shown = [quantity(number, series.unit) for number in numbers]
    goals = "; ".join(_goal(series, goal) for goal in series.goals)
    return [series.name, str(len(series.values)), *shown, _against(series), goals or "-"]


def quantity(value: float, unit: str) -> str:
    """A value with its unit; seconds below one are shown in milliseconds."""
    if unit == "s":
        return f"{value:.2f} s" if abs(value) >= 1 else f"{value * 1000:.{_digits(value * 1000)}f} ms"
    return f"{value:.{_digits(value)}f} {unit}"


def _digits(value: float) -> int:
    """Three figures that count, at most three behind the point."""
    size = abs(value)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3


def _against(series: Series) -> str:
    if series.baseline is None or not series.baseline.values:
        return "-"
    value, other = (percentile(each.values, 0.5) for each in (series, series.baseline))
    sign = "+" if value >= other else ""
    ratio = f", × {value / other:.2f}" if other and value / other < 100 else ""
    return f"{sign}{quantity(value - other, series.unit)}{ratio} ({series.baseline.name})"


def _goal(series: Series, goal: Goal) -> str:
    """What was reached, the limit, and whether that is enough."""
    name = "worst" if goal.share == 1 else "median" if goal.share == 0.5 else f"p{goal.share * 100:g}"
    value = reached_value(series, goal)
    if goal.against is Against.RATIO:
        words = f"{name} {value:.2f} ≤ {goal.limit:g} × baseline"
    else:
        sign = "+" if goal.against is Against.DIFFERENCE and value >= 0 else ""
        words = f"{name} {sign}{quantity(value, series.unit)} ≤ {quantity(goal.limit, series.unit)}"
    return f"{words}: {'reached' if value <= goal.limit else 'MISSED'}"


def table(section: Section) -> Table:
    """A section for a terminal."""
    shown = Table(*COLUMNS, title=section.title, caption="\n".join([section.about, *section.notes]))
    for row in rows(section):
        shown.add_row(*row)
    return shown


def markdown(sections: Sequence[Section], machine: str, older: str = "") -> str:
    """`older` with each section in the place of the one of its title, or behind all; `machine` says where it was measured."""
    text = older.rstrip("\n")
    for section in sections:
        heading = f"### {section.title}"
        before, _, rest = f"\n{text}\n".partition(f"\n{heading}\n")
        _, more, behind = rest.partition("\n### ")
        parts = [before, f"{heading}\n\n{_section(section, machine)}", f"### {behind}" if more else ""]
        text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    return text + "\n"


def _section(section: Section, machine: str) -> str:
    body = [list(COLUMNS), ["---"] * len(COLUMNS), *rows(section)]
    lines = "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in body)
    notes = "\n".join(f"* {note}" for note in section.notes)
    return "\n\n".join([machine, section.about, lines, *([notes] if notes else [])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def plain_data(sections: Sequence[Section]) -> list[dict[str, object]]:
    """All sections with every value, as JSON holds them."""
    return [
        {
            "title": section.title,
            "notes": section.notes,
            "series": [
                {**summary(series), "values": series.values} for series in section.series if series.values
            ],
        }
        for section in sections
    ]
