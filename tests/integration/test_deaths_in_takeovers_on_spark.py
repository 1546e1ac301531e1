"""Servers that end in the middle of a takeover of a real Spark driver.

Clients work throughout; afterwards every acknowledged job is final, once and right, one server owns the context, its named
data is equal, and no process is left over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from live_cluster import Live, unfinished_files
from load import Load
from signals import kill_server

from ha.coordination import ServerInfo
from ha.placement import standby_order
from jobserver.contexts.fail_points import ALLOWED, AT, EXIT_CODE, SWITCH, Point
from jobserver.local.processes import ProcessId, identify, naming

PLACE = "place"

CODE = """
import time

def build(spark, env, config):
    frame = spark.range(20_000).selectExpr("id", "cast(rand() * 1000 as int) as amount")
    env.named_objects.get_or_create("rows", lambda: frame)
    return query(spark, env, config)

def query(spark, env, config):
    return spark.table("rows").groupBy().sum("amount").first()[0]

def slow(spark, env, config):
    time.sleep(config["seconds"])
    return [env.attempt, query(spark, env, config)]

def work(spark, env, config):
    time.sleep(config["seconds"])
    return [config["n"], query(spark, env, config)]
"""


@pytest.fixture(scope="module")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three servers without warm drivers. What they leave behind is looked for in the teardown."""
    with start_cluster(tmp_path_factory.mktemp("deaths"), ha={"standby": "cold"}) as cluster:
        yield Live(cluster)
        left = cluster.drivers()
    assert naming(cluster.layout.root) == []
    assert [process for process in left if identify(process.pid) == process] == []


@pytest.fixture(scope="module")
def code(live: Live) -> str:
    return live.upload(CODE, name="work")


@pytest.fixture(scope="module")
def truth(live: Live, code: str) -> Iterator[Any]:
    """The answer of `query` for as long as the context lives: its rows are random. In the end no file of it is half written."""
    live.context(PLACE, **{"max-jobs": 6})
    yield live.value(code, "work:build", PLACE)
    assert live.ask("DELETE", f"/contexts/{PLACE}").status == 200
    live.eventually(lambda: unfinished_files(live), lambda found: found == [])


@pytest.fixture
def load(live: Live, code: str, truth: Any) -> Iterator[Load]:
    """Clients at work during the test; afterwards the cluster is whole again, and everything is judged."""

    def config(number: int, sync: bool) -> dict[str, Any]:
        return {"n": number, "seconds": 0.0 if sync else 0.3}

    with Load(live, code, "work:work", PLACE, config, lambda number: [number, truth]) as load:
        load.goes_on(count=3)
        yield load
        load.goes_on()
    for server in set(live.cluster.servers) - set(live.ids):
        live.cluster.start_server(server)
    after = live.agreed(PLACE)
    load.judge()
    assert live.value(code, "work:query", PLACE) == truth
    live.eventually(
        lambda: drivers(live), lambda found: [one.pid for one in found] == [after["driver"]["pid"]]
    )


def drivers(live: Live) -> list[ProcessId]:
    """Drivers that live at this moment: each leads the session of its JVM and its workers."""
    return [
        one for one in live.cluster.drivers() if identify(one.pid) == one and os.getsid(one.pid) == one.pid
    ]


def next_in_line(live: Live, context: dict[str, Any]) -> str:
    """The standby that claims the context first."""
    infos = {one: ServerInfo(one, one, "", "", 0, 0, "") for one in live.ids if one != context["owner"]}
    return standby_order(context["id"], infos)[0]


def start_to_fail(live: Live, server: str, point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts a server again, told to end at a point of its next takeover."""
    kill_server(live, server)
    with monkeypatch.context() as environment:
        environment.setenv(AT, point)
        environment.setenv(SWITCH, ALLOWED)
        live.cluster.start_server(server)
    live.eventually(
        lambda: [len(live.get("/cluster", one)["servers"]) for one in live.ids],
        lambda seen: seen == [3, 3, 3],
    )


@pytest.mark.parametrize("point", [Point.ADOPTED])
def test_a_server_that_ends_while_it_adopts_a_spark_driver_is_followed_by_one_that_adopts_it(
    live: Live, code: str, load: Load, truth: Any, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    before = live.agreed(PLACE)
    first = next_in_line(live, before)
    start_to_fail(live, first, point, monkeypatch)
    job = live.start(code, "work:slow", PLACE, {"seconds": 3})
    live.eventually(lambda: live.job(job), lambda one: one["status"] == "RUNNING")
    kill_server(live, before["owner"])
    assert live.cluster.servers[first].handle.wait(30) == EXIT_CODE, "it ends at its fail point"
    after = live.running(PLACE)
    assert after["driver"] == before["driver"]
    assert live.ended(job)["result"] == [1, truth]


@pytest.mark.parametrize("point", [Point.PINNED])
def test_a_server_that_ends_while_it_restores_into_spark_is_followed_by_one_that_restores(
    live: Live, code: str, load: Load, truth: Any, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    before = live.agreed(PLACE)
    first = next_in_line(live, before)
    start_to_fail(live, first, point, monkeypatch)
    job = live.start(code, "work:slow", PLACE, {"seconds": 1})
    live.eventually(lambda: live.job(job), lambda one: one["status"] == "RUNNING")
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    kill_server(live, before["owner"])
    assert live.cluster.servers[first].handle.wait(60) == EXIT_CODE, "it ends at its fail point"
    after = live.running(PLACE)
    assert after["driver"] != before["driver"]
    assert live.ended(job)["result"] == [2, truth]
