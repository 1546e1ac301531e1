"""Many seeds of the whole cluster, and the proof that a broken fence would be noticed.

`make sim SEEDS=5000` runs more. A seed that breaks a promise is told with its story; keep it by
`python -m tests.sim --keep tests/sim/regressions --first <seed> --seeds 1`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import fences_off
from tests.sim.aims import AIMS, ENOUGH
from tests.sim.aims import SEEDS as AIMED
from tests.sim.scenario import Fault, What, from_json, kept, scenario_of, to_json
from tests.sim.simulation import Report, run
from tests.sim.world import Fences

SEEDS = int(os.environ.get("SEEDS", "500"))
FIRST = int(os.environ.get("FIRST_SEED", "1"))
SHARES = 10
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


@pytest.mark.parametrize("name", sorted(AIMS))
def test_a_fence_that_is_off_is_noticed(name):
    noticed = AIMS[name].noticed()
    assert len(noticed) >= ENOUGH, f"only the seeds {noticed} of 1 to {AIMED} noticed it"


@pytest.mark.parametrize("name", sorted(AIMS))
def test_what_a_fence_is_for_breaks_nothing_while_it_is_on(name):
    for scenario in AIMS[name].scenarios():
        report = run(scenario)
        assert not report.broken, told(report)


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
