"""Scenarios aimed at one fence each: what this fence exists for happens in all of them, and nothing else goes wrong.

A fence that is switched off must not be missed by chance only: `SEEDS` runs, `ENOUGH` of which notice it. What varies with the
seed are the times, and who asks where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.sim import fences_off
from tests.sim.scenario import SERVERS, Fault, Request, Scenario, What
from tests.sim.simulation import run
from tests.sim.world import Fences

SEEDS = 8
"""Runs for each fence."""
ENOUGH = 4
"""So many of them notice that it is off, or the aim is lost; at the time of writing, six at least do."""


@dataclass(frozen=True)
class Aim:
    """`fences` has one switched off; `scenario` of a seed brings about what it is for; `damage` is what breaks without it."""

    fences: Fences
    scenario: Callable[[Random, int], Scenario]
    damage: str

    def noticed(self) -> list[int]:
        """The seeds that show the damage."""
        return [seed for seed in range(1, SEEDS + 1) if self._shows(seed)]

    def scenarios(self) -> list[Scenario]:
        """All of them."""
        return [self.scenario(Random(f"aim {seed}"), seed) for seed in range(1, SEEDS + 1)]

    def _shows(self, seed: int) -> bool:
        report = run(self.scenario(Random(f"aim {seed}"), seed), self.fences)
        return any(re.search(self.damage, sentence) for sentence in report.broken)


def _scenario(seed: int, faults: tuple[Fault, ...], requests: list[Request]) -> Scenario:
    """Three machines, one context, room for all of its jobs at once."""
    return Scenario(
        seed=seed,
        contexts=("c1",),
        one_host=False,
        warm=1,
        max_jobs=16,
        broken_starts=0.0,
        faults=faults,
        requests=tuple(sorted(requests, key=lambda request: request.at)),
    )


def _asked(random: Random, begin: float, end: float, count: int, *mains: str) -> list[Request]:
    """Between two times, by clients of all servers."""
    return [
        Request(random.uniform(begin, end), SERVERS[number % 3], "c1", random.choice(mains), False, 10.0)
        for number in range(count)
    ]


def superseded_owner_that_has_sql(random: Random, seed: int) -> Scenario:
    """The others hold the owner for dead; it goes on to start jobs when another one owns the context.

    They write nothing, so that its driver never looks at the markers: only SQL can tell it.
    """
    alone = Fault(1.0, What.LONE_OWNER, "c1", 5.0)
    return _scenario(seed, (alone,), _asked(random, 0.9, 5.0, 24, "sleep 3"))


def adopt_that_comes_late(random: Random, seed: int) -> Scenario:
    """The next owner's adopt lies at the driver until its epoch is spent and the one after it was taken."""
    late = Fault(random.uniform(1.0, 3.0), What.DELAY_ADOPT, "c1", random.uniform(2.1, 4.0))
    return _scenario(seed, (late,), _asked(random, 0.0, 6.0, 8, "add a", "sleep 3"))


def superseded_driver_that_writes(random: Random, seed: int) -> Scenario:
    """Owner and driver go on together behind a cut; jobs update named data while another driver begins from the checkpoint."""
    cut = Fault(1.0, What.CUT_PAIR, "c1", 9.0)
    return _scenario(seed, (cut,), _asked(random, 2.5, 5.0, 24, "work a", "work b"))


def sweep_beside_writes(random: Random, seed: int) -> Scenario:
    """Many jobs write at once: data lies there while its manifest waits for its turn, and the commits before it begin sweeps."""
    return _scenario(seed, (), _asked(random, 0.0, 5.0, 24, "add a", "work b", "work b"))


def starts_that_meet_a_move(random: Random, seed: int) -> Scenario:
    """Jobs that have just been started are put back by a planned move; it fails, and they start again in the same driver."""
    faults = (Fault(2.0, What.SWITCHOVER, "c1", 0.8), Fault(2.05, What.ZOOKEEPER_DOWN, "", 6.0))
    return _scenario(seed, faults, _asked(random, 0.5, 2.6, 12, "work a", "work b", "late l"))


AIMS = {
    "SQL compares no epoch": Aim(
        Fences(store=fences_off.NoEpochInSql), superseded_owner_that_has_sql, "still RUNNING"
    ),
    "any epoch adopts": Aim(
        Fences(driver=fences_off.AnyEpochAdopts), adopt_that_comes_late, "went from epoch"
    ),
    "markers are not read": Aim(
        Fences(driver=fences_off.NoMarkersRead),
        superseded_driver_that_writes,
        "begins without an update|lacks it",
    ),
    "the sweep takes what is new": Aim(
        Fences(driver=fences_off.SweepsWhatIsNew),
        sweep_beside_writes,
        "its data is gone|has lost an update",
    ),
    "attempts are not compared": Aim(
        Fences(driver=fences_off.NoAttemptCompared),
        starts_that_meet_a_move,
        "ran 2 times|holds .* 2 times|was given the result",
    ),
}
"""By what is switched off."""
