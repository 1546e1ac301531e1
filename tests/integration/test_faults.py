"""Faults between machines: three servers on machines of their own, reached through proxies that cut them off, their drivers on
addresses of their own. Clients work throughout; afterwards every job is final, once and right, and nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from far_apart import FarApart, far_apart
from live_cluster import Live
from load import Load

from jobserver.local.processes import wait_until
from tests.fakes.proxy import Cut

SESSION = 5.0
"""ZooKeeper's session timeout of the cluster, seconds."""
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
    return [env.attempt, env.epoch, query(spark, env, config)]

def work(spark, env, config):
    time.sleep(config["seconds"])
    return [config["n"], query(spark, env, config)]
"""


@pytest.fixture(scope="module")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = {
        "ha": {"standby": "cold"},
        "zookeeper": {"session_timeout": f"{SESSION:g}s"},
        "driver": {"driver_timeout": "4s"},
    }
    with start_cluster(tmp_path_factory.mktemp("faults"), **settings) as cluster:
        yield Live(cluster)


@pytest.fixture(scope="module")
def apart(live: Live) -> Iterator[FarApart]:
    with far_apart(live.cluster) as apart:
        yield apart


@pytest.fixture(scope="module")
def code(live: Live, apart: FarApart) -> str:
    return live.upload(CODE, name="work")


@pytest.fixture(scope="module")
def truth(live: Live, code: str) -> Any:
    """The answer of `query` for as long as the context lives: its rows are random."""
    live.context(PLACE, **{"max-jobs": 6})
    return live.value(code, "work:build", PLACE)


@pytest.fixture
def load(live: Live, apart: FarApart, code: str, truth: Any) -> Iterator[Load]:
    """Clients at work during the test; afterwards the cluster is whole again, and everything is judged."""
    whole(live)

    def config(number: int, sync: bool) -> dict[str, Any]:
        return {"n": number, "seconds": 0.0 if sync else 0.3}

    with Load(live, code, "work:work", PLACE, config, lambda number: [number, truth]) as load:
        load.goes_on(count=3)
        yield load
        load.goes_on()
    whole(live)
    assert live.value(code, "work:query", PLACE) == truth
    load.judge()


def whole(live: Live) -> dict[str, Any]:
    """Starts what is missing; the context once all agree on it."""
    for server in set(live.cluster.servers) - set(live.ids):
        live.cluster.start_server(server)
    return live.agreed(PLACE)


def others(live: Live, *servers: str) -> list[str]:
    return [server for server in live.ids if server not in servers]


def kill_server(live: Live, server: str) -> None:
    child = live.cluster.servers[server]
    child.handle.kill()
    child.handle.wait()


def logged(live: Live, server: str) -> int:
    """Where the server's log ends now."""
    return live.cluster.servers[server].log.stat().st_size


def has_logged(live: Live, server: str, text: str, since: int) -> bool:
    with live.cluster.servers[server].log.open("rb") as log:
        log.seek(since)
        return text.encode() in log.read()


def unmoved(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(before[same] == after[same] for same in ("owner", "epoch", "driver"))


def test_a_dead_owner_on_another_machine_is_replaced_long_before_its_session_ends(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    before = live.agreed(PLACE)
    job = live.start(code, "work:slow", PLACE, {"seconds": 3})
    ended = time.monotonic()
    kill_server(live, before["owner"])
    after = live.eventually(
        lambda: live.seen(PLACE), lambda one: one["epoch"] > before["epoch"] and one["state"] == "RUNNING", 30
    )
    assert time.monotonic() - ended < SESSION / 2
    assert after["driver"] == before["driver"]
    assert live.ended(job)["result"] == [1, before["epoch"], truth]


@pytest.mark.parametrize("how", list(Cut), ids=lambda how: how.value)
def test_two_servers_cut_off_from_each_other_only_move_nothing(
    live: Live, apart: FarApart, load: Load, how: Cut
) -> None:
    before = live.agreed(PLACE)
    owner, other = before["owner"], others(live, before["owner"])[0]
    since = logged(live, other)
    with apart.servers_cut(how, owner, other):
        if how is Cut.RESET:
            seen = f"server {owner}: ended → suspected"
            assert wait_until(lambda: has_logged(live, other, seen, since), 15), seen
        load.goes_on()
        time.sleep(1.0)  # time for a wrong conclusion: witnesses are asked every second by now
        assert unmoved(before, live.agreed(PLACE))
    seen = "→ linked"
    if how is Cut.RESET:
        assert wait_until(lambda: has_logged(live, other, seen, since), 15), "the link is up again"
    assert not has_logged(live, other, "is proven dead", since)
