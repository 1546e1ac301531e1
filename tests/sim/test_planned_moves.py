"""Planned moves alone break nothing at all: no request fails, no job that ends in the grace runs twice, one owner."""

from random import Random

import pytest

from jobserver.model import JobState
from tests.sim.scenario import CONTEXTS, SERVERS, Fault, Request, Scenario, What
from tests.sim.simulation import run

SEEDS = 8
SHORT = ("add a", "add b", "once a 1", "read b", "late l", "sleep 0.5")
"""Jobs that end well within the grace of a move."""
MOVES = (What.SWITCHOVER, What.SWITCHOVER_KEEPING, What.DRAIN)


def scenario(seed: int, what: What, *, hot: bool) -> Scenario:
    random = Random(f"moves {seed}")
    targets = SERVERS if what is What.DRAIN else CONTEXTS
    return Scenario(
        seed=seed,
        contexts=CONTEXTS,
        one_host=random.random() < 0.5,
        warm=random.choice((0, 1)),
        max_jobs=random.choice((2, 8)),
        broken_starts=0.0,
        faults=tuple(Fault(1.0 + 6 * n, what, random.choice(targets), 5.0) for n in range(3)),
        requests=tuple(
            Request(
                random.uniform(0.0, 20.0),
                random.choice(SERVERS),
                random.choice(CONTEXTS),
                random.choice(SHORT),
                random.random() < 0.7,
                30.0,
            )
            for _ in range(40)
        ),
        hot=hot,
    )


@pytest.mark.parametrize("hot", [False, True], ids=["no standby", "hot standbys"])
@pytest.mark.parametrize("what", MOVES)
def test_no_request_fails_and_no_short_job_runs_twice(what, hot):
    moved = 0
    for seed in range(SEEDS):
        made = scenario(seed, what, hot=hot)
        report = run(made, tell=True)
        assert not report.broken, report.text
        assert report.failed_requests == ()
        assert {job.state for job in report.jobs} == {JobState.FINISHED}
        assert {job.attempt for job in report.jobs} == {1}
        moved += any("has moved" in line or "drained to" in line for line in report.story)
    assert moved >= SEEDS // 2, "hardly anything was moved"
