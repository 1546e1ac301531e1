"""Faults between machines: three servers on machines of their own, reached through proxies that cut them off, their drivers on
addresses of their own. Clients work throughout; afterwards every job is final, once and right, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from far_apart import FarApart, far_apart
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from live_cluster import Live, unfinished_files
from load import Load
from signals import freeze_between_writes, kill_server, other_than, process

from jobserver.local.processes import identify, naming, session_of, wait_until
from jobserver.local.zookeeper import ZooKeeperNode, mode
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
        "driver": {"driver_timeout": "4s", "orphan_timeout": "40s"},
    }
    with start_cluster(tmp_path_factory.mktemp("faults"), **settings) as cluster:
        yield Live(cluster)
        left = cluster.drivers()
    assert naming(cluster.layout.root) == []
    assert [process for process in left if identify(process.pid) == process] == []


@pytest.fixture(scope="module")
def apart(live: Live) -> Iterator[FarApart]:
    with far_apart(live.cluster) as apart:
        yield apart


@pytest.fixture(scope="module")
def code(live: Live, apart: FarApart) -> str:
    return live.upload(CODE, name="work")


@pytest.fixture(scope="module")
def truth(live: Live, code: str) -> Iterator[Any]:
    """The answer of `query` for as long as the context lives: its rows are random. In the end no node of it is left."""
    live.context(PLACE, **{"max-jobs": 6})
    yield live.value(code, "work:build", PLACE)
    assert live.ask("DELETE", f"/contexts/{PLACE}").status == 200
    live.eventually(lambda: nodes(live), lambda found: found == [])
    live.eventually(lambda: unfinished_files(live), lambda found: found == [])


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


def nodes(live: Live) -> list[str]:
    """Contexts that have a node in ZooKeeper."""
    client = KazooClient(live.cluster.zookeeper.address)
    client.start()
    try:
        return list(client.get_children("/jobserver/default/contexts"))
    except NoNodeError:
        return []
    finally:
        client.stop()
        client.close()


def logged(live: Live, server: str) -> int:
    """Where the server's log ends now."""
    return live.cluster.servers[server].log.stat().st_size


def has_logged(live: Live, server: str, text: str, since: int) -> bool:
    with live.cluster.servers[server].log.open("rb") as log:
        log.seek(since)
        return text.encode() in log.read()


def unmoved(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(before[same] == after[same] for same in ("owner", "epoch", "driver"))


def running(seen: list[dict[str, Any]]) -> bool:
    """Under an owner, too: its epoch is granted before all servers have seen its node."""
    return all(one["state"] == "RUNNING" and one["owner"] is not None for one in seen)


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
    owner, other = before["owner"], other_than(live, before["owner"])
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


@pytest.mark.parametrize("how", list(Cut), ids=lambda how: how.value)
def test_an_owner_that_no_other_server_reaches_costs_no_job(
    live: Live, apart: FarApart, load: Load, how: Cut
) -> None:
    """By resets it looks dead to all of them, so it may move, if it is not asked through its driver; by silence it stays."""
    before = live.agreed(PLACE)
    with apart.peers_cut(how, before["owner"]):
        load.goes_on(
            count=2
        )  # in silence, two of three servers keep a client waiting before the third is asked
        if how is Cut.SILENCE:
            assert unmoved(before, live.seen(PLACE, before["owner"]))
    after = live.agreed(PLACE)
    assert after["driver"] == before["driver"]


def test_an_owner_cut_off_from_zookeeper_loses_its_contexts_and_says_nothing_any_more(
    live: Live, apart: FarApart, code: str, truth: Any, load: Load
) -> None:
    before = live.agreed(PLACE)
    job = live.start(code, "work:slow", PLACE, {"seconds": SESSION + 3})
    with apart.zookeeper_cut(Cut.SILENCE, before["owner"]):
        after = live.eventually(
            lambda: [live.seen(PLACE, one) for one in live.ids if one != before["owner"]],
            lambda seen: unmoved(*seen) and seen[0]["epoch"] > before["epoch"] and running(seen),
            SESSION + 20,
        )[0]
        assert after["owner"] != before["owner"]
        assert after["driver"] == before["driver"]
        load.goes_on()
        assert live.value(code, "work:query", PLACE, server=before["owner"]) == truth
    assert live.ended(job)["result"] == [1, before["epoch"], truth]
    assert unmoved(after, live.agreed(PLACE))


def test_while_zookeeper_is_out_of_everybodys_reach_contexts_serve_and_nothing_moves(
    live: Live, apart: FarApart, load: Load
) -> None:
    before = live.agreed(PLACE)
    ends = time.monotonic() + 30
    with apart.zookeeper_cut(Cut.SILENCE):
        while time.monotonic() < ends:
            load.goes_on(count=20)
            assert unmoved(before, live.seen(PLACE))
    assert unmoved(before, live.eventually(lambda: live.agreed(PLACE), lambda one: one["owner"]))
    live.eventually(
        lambda: [len(live.get("/cluster", one)["servers"]) for one in live.ids], lambda n: n == [3, 3, 3]
    )
    load.goes_on()
    assert unmoved(before, live.agreed(PLACE))


@pytest.mark.parametrize("wiped", [False, True], ids=["restarted", "wiped"])
def test_zookeeper_killed_and_started_again_moves_nothing(
    live: Live, java: Path, load: Load, wiped: bool
) -> None:
    before = live.agreed(PLACE)
    node = live.cluster.zookeeper
    node.stop(grace=0)
    load.goes_on(count=20)
    if wiped:
        shutil.rmtree(node.directory / "data")
    node.launch(java)
    node.wait_serving()
    live.eventually(
        lambda: [len(live.get("/cluster", one)["servers"]) for one in live.ids], lambda n: n == [3, 3, 3]
    )
    live.eventually(lambda: nodes(live), lambda found: len(found) == 1)
    load.goes_on()
    assert unmoved(before, live.agreed(PLACE))


def test_an_ensemble_that_loses_its_leader_moves_nothing(
    live: Live, apart: FarApart, zookeeper_ensemble: list[ZooKeeperNode], load: Load
) -> None:
    apart.settle(",".join(node.address for node in zookeeper_ensemble))
    try:
        load.goes_on()
        before = live.agreed(PLACE)
        next(node for node in zookeeper_ensemble if mode(node.port) == "leader").stop(grace=0)
        load.goes_on(count=20)
        rest = [node for node in zookeeper_ensemble if node.child is not None]
        assert wait_until(lambda: any(mode(node.port) == "leader" for node in rest), 30), "a new leader"
        live.eventually(
            lambda: [len(live.get("/cluster", one)["servers"]) for one in live.ids], lambda n: n == [3, 3, 3]
        )
        load.goes_on()
        assert unmoved(before, live.agreed(PLACE))
    finally:
        apart.settle()


def test_a_dead_leader_has_a_successor_and_nobody_waits_for_it(live: Live, load: Load) -> None:
    leader = live.get("/cluster")["leader"]
    kill_server(live, leader)
    load.goes_on()
    live.eventually(
        lambda: [live.get("/cluster", one)["leader"] for one in live.ids],
        lambda seen: len(set(seen)) == 1 and seen[0] in live.ids,
        SESSION + 20,
    )


def test_owner_and_driver_frozen_together_acknowledge_nothing_when_they_wake_and_the_driver_ends(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    before = live.agreed(PLACE)
    frozen, elsewhere = before["owner"], other_than(live, before["owner"])
    members = session_of(process(before["driver"]["pid"]))
    job = live.start(code, "work:slow", PLACE, {"seconds": 2}, server=elsewhere)
    live.eventually(lambda: live.job(job, elsewhere), lambda one: one["status"] == "RUNNING")
    freeze_between_writes(live, live.cluster.servers[frozen].id.pid)
    for member in members:
        os.kill(member.pid, signal.SIGSTOP)
    try:
        after = live.eventually(
            lambda: live.seen(PLACE, elsewhere),
            lambda one: (
                one["driver"] not in (None, before["driver"])
                and one["state"] == "RUNNING"
                and one["owner"] not in (None, frozen)
            ),
            SESSION + 60,
        )
    finally:
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGCONT)
        os.kill(live.cluster.servers[frozen].id.pid, signal.SIGCONT)
    ended = live.ended(job)["result"]
    assert ended[0] == 2, "the attempt of the driver that was frozen counts for nothing"
    assert ended[1:] == [after["epoch"], truth]
    assert wait_until(lambda: not any(identify(each.pid) == each for each in members), 30), members
    assert unmoved(after, live.agreed(PLACE))


def machine_of(server: str) -> str:
    """The address of the machine of a server (`far_apart.py`)."""
    return f"127.0.0.1{server.removeprefix('s')}"


def test_a_driver_frozen_out_of_its_owners_reach_ends_when_it_wakes(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    """Its owner is on another machine: nobody can kill it."""
    machine = live.agreed(PLACE)["driver"]["host"]
    if machine_of(live.agreed(PLACE)["owner"]) == machine:
        far = next(server for server in live.ids if machine_of(server) != machine)
        moved = live.ask("POST", f"/contexts/{PLACE}/switchover?to={far}&keep-driver=true")
        assert moved.status == 200, str(moved)
    before = live.agreed(PLACE)
    assert before["driver"]["host"] == machine != machine_of(before["owner"])
    members = session_of(process(before["driver"]["pid"]))
    job = live.start(code, "work:slow", PLACE, {"seconds": 2})
    live.eventually(lambda: live.job(job), lambda one: one["status"] == "RUNNING")
    for member in members:
        os.kill(member.pid, signal.SIGSTOP)
    try:
        after = live.eventually(
            lambda: live.seen(PLACE), lambda one: one["driver"] not in (None, before["driver"]), 60
        )
        assert after["owner"] == before["owner"]
        assert live.value(code, "work:query", PLACE) == truth
        assert [identify(each.pid) for each in members] == members, "it was out of reach"
    finally:
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGCONT)
    assert live.ended(job)["result"][0] == 2
    assert wait_until(lambda: not any(identify(each.pid) == each for each in members), 30), members


def test_a_dead_hot_standby_is_replaced_on_another_server(live: Live, load: Load) -> None:
    name = live.context(standby="hot")
    try:
        with load.at_rest():
            standby = live.eventually(
                lambda: hot_standbys(live, name), lambda found: len(found) == 1, limit=120.0
            )[0]
        before = live.seen(name)
        kill_server(live, standby)
        load.goes_on()
        with load.at_rest():
            again = live.eventually(
                lambda: hot_standbys(live, name), lambda found: found and standby not in found, limit=120.0
            )
            assert len(again) == 1
            live.eventually(
                lambda: live.seen(name)["standbys"], lambda found: any(map(rehearsed, found)), limit=180.0
            )
        assert unmoved(before, live.seen(name))
        os.kill(before["driver"]["pid"], signal.SIGKILL)
        after = live.eventually(
            lambda: live.seen(name),
            lambda one: one["driver"] not in (None, before["driver"]) and one["last_failover"],
        )
        assert after["last_failover"]["kind"] == "restored-hot"
    finally:
        assert live.ask("DELETE", f"/contexts/{name}").status == 200


def rehearsed(standby: dict[str, Any]) -> bool:
    return bool(standby.get("rehearsed"))


def hot_standbys(live: Live, name: str) -> list[str]:
    return [one["server"] for one in live.seen(name)["standbys"] if one["mode"] == "hot"]
