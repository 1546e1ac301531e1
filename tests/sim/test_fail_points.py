"""Every step of every kind of takeover, broken right after it was done: the next owner brings the context to a right end.

All promises of a run are judged as in any other one: nothing acknowledged is lost, every job ends once, one owner, no
driver left over.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import pytest

from jobserver.contexts.fail_points import Point
from tests.sim.scenario import Crash, Fault, Harm, Request, Scenario, What
from tests.sim.simulation import run

EVERY = int(os.environ.get("EVERY_PAIR", "4"))
"""Of the pairs of points every so many-th is tried; 1 for all."""
AT = 2.0
"""When the first failure happens, while jobs run and updates are made."""
ALWAYS = (Point.ELECTED, Point.GRANTED)
END = (Point.PLANNED, Point.RECORDED, Point.OPENED, Point.PUBLISHED)
ADOPT = (Point.HELLO, Point.ADOPT_SENT, Point.ADOPTED)
RESTORE = (
    Point.MARKED,
    Point.BASE_READ,
    Point.PINNED,
    Point.DRIVER_TAKEN,
    Point.ACTIVATE_SENT,
    Point.ACTIVATED,
)
WAYS = {
    "adopt": (What.KILL_OWNER, 0, False, (*ALWAYS, *ADOPT, *END)),
    "cold": (What.KILL_BOTH, 0, False, (*ALWAYS, *RESTORE, *END)),
    "warm": (What.KILL_BOTH, 1, False, (*ALWAYS, *RESTORE, *END)),
    "hot": (What.KILL_BOTH, 0, True, (*ALWAYS, *RESTORE, *END)),
    "same server, next driver": (What.KILL_DRIVER, 0, False, (Point.GRANTED, *RESTORE, *END)),
}
"""The failure, warm drivers, hot standbys, and the points that the takeover then passes."""
HARMS = (Harm.END_SERVER, Harm.END_DRIVER, Harm.END_BOTH, Harm.FREEZE)
"""Those that every point meets here; the seeds of `make sim` bring the others, too."""
CASES = [(way, point) for way, (*_, points) in WAYS.items() for point in points]


def requests() -> tuple[Request, ...]:
    """Updates, reads and lasting jobs before, during and after the failure, sent to all servers."""
    mains = ("work a", "once a", "sleep 3", "add b", "read a")
    again = tuple(
        Request(round(0.4 * number, 1), f"s{number % 3 + 1}", "c1", main, number % 2 == 0, 30.0)
        for number, main in enumerate(mains * 2)
    )
    once = (
        Request(0.5, "s1", "c1", "work b", False, 30.0, on_failover="fail"),
        Request(1.5, "s2", "c1", "sleep 3", True, 30.0, max_attempts=1),
        Request(4.0, "s3", "c1", "work a", True, 30.0, on_failover="fail"),
    )
    return (*again, *once)


def scenario(way: str, point: Point, harm: Harm, seed: int) -> Scenario:
    what, warm, hot, _ = WAYS[way]
    return Scenario(
        seed=seed,
        contexts=("c1",),
        one_host=False,
        warm=warm,
        max_jobs=8,
        broken_starts=0.0,
        faults=(Fault(AT, what, "c1", 9.0),),
        requests=requests(),
        hot=hot,
        crashes=(Crash(point, harm),),
    )


@pytest.mark.parametrize(("way", "point"), CASES, ids=[f"{way}, {point}" for way, point in CASES])
def test_whatever_happens_at_this_point_the_context_comes_to_a_right_end(way, point):
    for seed, harm in enumerate(HARMS):
        made = scenario(way, point, harm, seed)
        report = run(made)
        assert report.harmed == (point,), f"the takeover did not pass {point}"
        assert not report.broken, run(made, tell=True).text


@pytest.mark.parametrize("way", ["adopt", "cold"])
def test_two_takeovers_in_a_row_may_be_broken(way):
    *_, points = WAYS[way]
    for seed, (first, second) in list(enumerate(product(points, repeat=2)))[::EVERY]:
        crashes = (
            Crash(first, Harm.END_SERVER),
            Crash(second, Harm.END_SERVER, nth=2 if first == second else 1),
        )
        made = replace(scenario(way, first, Harm.END_SERVER, seed), crashes=crashes)
        report = run(made)
        assert report.harmed, "no takeover was broken"
        assert not report.broken, run(made, tell=True).text
