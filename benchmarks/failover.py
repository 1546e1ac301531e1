"""From a kill to the first right answer: of the owner server, of the driver, of both.

The answer is a group-by over a named DataFrame of random rows, asked through a server that lives. Each round kills once,
and starts the killed server again before the next.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Series
from jobserver.cli import demo_steps as steps
from jobserver.cli.db import upgrade_url
from jobserver.cli.demo import examples_folder
from jobserver.local.ports import busy_ports
from jobserver.local.processes import wait_until
from jobserver.local.up import LocalCluster, Plan

GOALS = {
    "cold": {"server": 0.5, "driver": None, "both": None},
    "warm": {"server": 0.5, "driver": 3.0, "both": 3.2},
    "hot": {"server": 0.5, "driver": 1.0, "both": 1.2},
}
STANDBY_TIMEOUT = 120.0


def run(rounds: int, standby: str = "warm") -> list[Series]:
    """Three series, one for each thing that is killed."""
    port = next(first for first in range(19000, 28000, 20) if not busy_ports(range(first, first + 3)))
    with tempfile.TemporaryDirectory(prefix="jobserver-bench-") as folder:
        plan = Plan(Path(folder), 3, port, {"ha": {"standby": standby}})
        with LocalCluster(plan, prepare_database=upgrade_url) as cluster:
            view = steps.Cluster(cluster.layout, examples_folder())
            for prepare in (steps.upload, steps.create_context, steps.build_rows):
                prepare(view)
            return [
                _series(cluster, view, f"{what} killed ({standby})", kill, rounds, GOALS[standby][what])
                for what, kill in KILLS.items()
            ]


def _series(
    cluster: LocalCluster,
    view: steps.Cluster,
    name: str,
    kill: Callable[[steps.Cluster, dict], None],
    rounds: int,
    goal: float | None,
) -> Series:
    series = Series(name, goal=goal)
    for _ in range(rounds):
        _wait_standby(view)
        before = view.context()
        with series.timed():
            kill(view, before)
            view.same_totals()
        for dead in sorted(view.dead):
            cluster.start_server(dead)
        view.dead.clear()
    return series


def _wait_standby(view: steps.Cluster) -> None:
    """A round begins when the context runs and its standby is there again; without one, when the wait is over."""
    wait_until(lambda: bool(view.context()["standbys"]), STANDBY_TIMEOUT)


def _kill_server(view: steps.Cluster, context: dict) -> None:
    os.kill(view.server_pid(context["owner"]), signal.SIGKILL)
    view.dead.add(context["owner"])


def _kill_driver(view: steps.Cluster, context: dict) -> None:
    os.kill(context["driver"]["pid"], signal.SIGKILL)


def _kill_both(view: steps.Cluster, context: dict) -> None:
    _kill_server(view, context)
    _kill_driver(view, context)


KILLS = {"server": _kill_server, "driver": _kill_driver, "both": _kill_both}
