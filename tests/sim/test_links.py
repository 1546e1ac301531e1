"""Proofs of death across machines: what links prove moves a context within a moment, and false evidence moves nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim import fences_off
from tests.sim.scenario import Fault, Scenario, What, scenario_of
from tests.sim.simulation import run
from tests.sim.world import Fences

SEEDS = range(1, 5)


def with_only(seed: int, *faults: Fault, **changes: object) -> Scenario:
    """The seed's cluster and clients, and no other fault; no job ends a driver."""
    scenario = scenario_of(seed)
    requests = tuple(one for one in scenario.requests if one.main != "die")
    quiet = replace(scenario, faults=faults, requests=requests, crashes=(), broken_starts=0.0)
    return replace(quiet, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", [What.RESET_PEER, What.CUT_PEER, What.FULL_QUEUE])
@pytest.mark.parametrize("server", ["s1", "s2", "s3"])
def test_two_living_servers_that_lose_each_other_only_move_nothing(what, server):
    for seed in SEEDS:
        faults = (Fault(1.0, what, server, 4.0), Fault(6.0, what, server, 4.0))
        report = run(with_only(seed, *faults))
        assert not report.broken, report.broken
        assert report.moves == 0, f"seed {seed}: a context was moved"


def test_the_rule_between_two_servers_is_evidence_that_a_witness_takes_back():
    scenario = with_only(1, Fault(1.0, What.RESET_PEER, "s1", 4.0))
    text = run(scenario, tell=True).text
    assert "server s2: ended → suspected" in text
    assert "server s2: suspected → linked" in text


def test_a_server_on_a_machine_of_its_own_is_proven_dead_by_its_links():
    for seed in SEEDS:
        alone = with_only(seed, Fault(2.0, What.KILL_OWNER, "c1", 9.0), one_host=False, sharing=())
        report = run(alone, tell=True)
        assert not report.broken, report.broken
        assert report.moves >= 1
        assert "suspected → dead: no other server has a link to it" in report.text


def test_an_owner_that_resets_all_others_may_lose_its_contexts_and_nothing_else():
    moves = 0
    for seed in SEEDS:
        report = run(with_only(seed, Fault(1.0, What.RESET_OWNER, "c1", 5.0), one_host=False, sharing=()))
        assert not report.broken, report.broken
        moves += report.moves
    assert moves, "nobody was ever proven dead: the fault does not do what it is for"


def test_a_proof_without_its_second_witness_is_noticed():
    blind = Fences(links=fences_off.NoWitnessAsked)
    reports = [run(with_only(seed, Fault(1.0, What.RESET_PEER, "s1", 4.0)), blind) for seed in SEEDS]
    assert all(any("to which s" in one for one in report.broken) for report in reports)
