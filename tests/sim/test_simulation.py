"""Many seeds of the whole cluster, and the proof that a broken fence would be noticed.

`make sim SEEDS=5000` runs more. A seed that breaks a promise is told with its story; keep it by
`python -m tests.sim --keep tests/sim/regressions --first <seed> --seeds 1`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import fences_off
from tests.sim.scenario import TWO_OWNERS, Fault, What, from_json, kept, scenario_of, to_json
from tests.sim.simulation import Report, run
from tests.sim.world import Fences

SEEDS = int(os.environ.get("SEEDS", "500"))
FIRST = int(os.environ.get("FIRST_SEED", "1"))
SHARES = 10
LATE_WRITES = (What.CUT_PAIR, What.SQL_LATE)
MOVES = (What.SWITCHOVER, What.SWITCHOVER, What.ZOOKEEPER_DOWN, What.FILES_DOWN)
SHARE = 0.85
"""Part of the faults that are of the kind for which a fence is there."""
ENOUGH = 1500
"""Seeds within which a switched-off fence has to be noticed."""
REGRESSIONS = kept(Path(__file__).parent / "regressions")


def told(report: Report) -> str:
    """The story of a run that broke something: it is run once more for it."""
    return run(report.scenario, tell=True).text if report.broken else ""


@pytest.mark.parametrize("share", range(SHARES))
def test_no_seed_breaks_a_promise(share):
    for seed in range(FIRST + share, FIRST + SEEDS, SHARES):
        report = run(scenario_of(seed))
        assert not report.broken, told(report)


@pytest.mark.parametrize("name", sorted(REGRESSIONS))
def test_what_once_broke_a_promise_does_so_no_more(name):
    report = run(REGRESSIONS[name])
    assert not report.broken, told(report)


@pytest.mark.parametrize(
    ("fences", "often", "damage"),
    [
        (Fences(store=fences_off.NoEpochInSql), LATE_WRITES, "still RUNNING"),
        (Fences(driver=fences_off.AnyEpochAdopts), TWO_OWNERS, "went from epoch"),
        (Fences(driver=fences_off.NoMarkersRead), TWO_OWNERS, "begins without an update|lacks it"),
        (Fences(driver=fences_off.SweepsWhatIsNew), TWO_OWNERS, "its data is gone|has lost an update"),
        (
            Fences(driver=fences_off.NoAttemptCompared),
            MOVES,
            "ran 2 times|holds .* 2 times|was given the result",
        ),
    ],
    ids=[
        "SQL compares no epoch",
        "any epoch adopts",
        "markers are not read",
        "the sweep takes what is new",
        "attempts are not compared",
    ],
)
def test_a_fence_that_is_off_is_noticed(fences, often, damage):
    for seed in range(1, ENOUGH + 1):
        report = run(scenario_of(seed, often, SHARE), fences)
        if any(re.search(damage, sentence) for sentence in report.broken):
            return
    pytest.fail(f"{ENOUGH} seeds did not notice it")


def test_a_promise_that_is_broken_is_told_with_its_story():
    scenario = next(one for one in map(scenario_of, range(1, 200)) if _ends_context_while_used(one.faults))
    report = run(scenario, Fences(driver=fences_off.NoMarkersRead), tell=True)
    assert "NEMESIS" in report.text
    assert "granting → basing" in report.text
    assert f"seed {scenario.seed} broke" in report.text


def _ends_context_while_used(faults: tuple[Fault, ...]) -> bool:
    return any(fault.what is What.KILL_BOTH for fault in faults)


def test_the_same_seed_tells_the_same_story():
    first, second = (run(scenario_of(7), tell=True) for _ in range(2))
    assert first.story == second.story
    assert len(first.story) > 20


def test_the_same_seed_tells_the_same_story_in_another_process():
    here = run(scenario_of(11), tell=True).text
    command = [sys.executable, "-m", "tests.sim", "--story", "11"]
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    there = subprocess.run(command, capture_output=True, text=True, env=environment, check=False).stdout
    assert there.strip() == here.strip()


def test_a_kept_scenario_is_the_same_one():
    scenario = scenario_of(3)
    assert from_json(to_json(scenario)) == scenario


def test_runs_use_what_they_are_meant_to_test():
    reports = [run(scenario_of(seed)) for seed in range(1, 31)]
    assert sum(report.acknowledgements for report in reports) > 150
    assert len({fault.what for report in reports for fault in report.scenario.faults}) > 20
