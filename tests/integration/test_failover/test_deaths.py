"""Servers and drivers die and freeze while clients work. Afterwards every acknowledged job is final, once, with the right
answer; the named data is equal; there is one owner; and when the cluster has ended, no process is left."""

from __future__ import annotations

import os
import queue
import signal
from typing import Any

import pytest
from live_cluster import Live, NoAnswer, Reply
from signals import freeze_between_writes, kill_server, other_than, process

from jobserver.client import JobClient, Work
from jobserver.local.processes import identify, session_of, wait_until
from test_failover.clients import DRIVER_TIMEOUT, PLACE, Load, in_background

SESSION = 4.0
"""ZooKeeper's session timeout of the cluster, seconds."""


def test_a_dead_owners_driver_is_adopted_and_its_jobs_run_on(
    live: Live, code: str, truth: Any, load: Load, listener: Any
) -> None:
    before = live.running(PLACE)
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    url = listener(told)
    job = live.start(
        code, "work:slow", PLACE, {"n": 1, "seconds": 5}, callbackUrl=url, server=before["owner"]
    )
    waiter = other_than(live, before["owner"])
    client = JobClient([live.cluster.url(before["owner"]), live.cluster.url(waiter)])
    slow = Work("work:slow", (code,), context=PLACE, config={"n": 3, "seconds": 4})
    with (
        in_background(
            lambda: live.value(code, "work:slow", PLACE, {"n": 2, "seconds": 3}, server=waiter)
        ) as results,
        in_background(lambda: live.get(f"/jobs/{job}?wait=60s", waiter)) as polled,
        in_background(lambda: client.run(slow).value) as clients,
    ):
        live.eventually(
            lambda: live.get("/jobs?limit=10&status=running"),
            lambda jobs: sum(each["classPath"] == "work:slow" for each in jobs) == 3,
        )
        kill_server(live, before["owner"])
        assert live.value(code, "work:query", PLACE) == truth
        after = live.running(PLACE)
        assert after["driver"] == before["driver"]
        assert after["owner"] != before["owner"]
        assert after["epoch"] > before["epoch"]
        assert after["last_failover"]["kind"] == "adopted"
        ended = live.ended(job)
        assert (ended["result"]["n"], ended["result"]["attempt"]) == (1, 1)
    assert (results[0]["n"], results[0]["attempt"]) == (2, 1)
    assert (clients[0]["n"], clients[0]["attempt"]) == (3, 1)
    assert (polled[0]["status"], polled[0]["result"]) == ("FINISHED", ended["result"])
    assert told.get(timeout=60) == {"jobId": job, "result": ended["result"]}


def test_what_a_forwarding_server_dies_with_is_answered_by_another_and_nobody_else_notices(
    live: Live, code: str, load: Load
) -> None:
    before = live.running(PLACE)
    forwarder = other_than(live, before["owner"])
    third = other_than(live, before["owner"], forwarder)
    asked = {"n": 7, "seconds": 3}
    with (
        in_background(
            lambda: live.submit(
                code, "work:slow", PLACE, asked, key=f"cut-{before['epoch']}", server=forwarder
            )
        ) as cut,
        in_background(
            lambda: live.value(code, "work:slow", PLACE, {"n": 8, "seconds": 3}, server=third)
        ) as other,
    ):
        live.eventually(
            lambda: live.get("/jobs?limit=10&status=running"),
            lambda jobs: sum(each["classPath"] == "work:slow" for each in jobs) == 2,
        )
        kill_server(live, forwarder)
        again = live.submit(code, "work:slow", PLACE, asked, key=f"cut-{before['epoch']}", server=third)
        assert again.json["result"]["n"] == 7, str(again)
        assert again.json["result"]["attempt"] == 1
    assert isinstance(cut[0], NoAnswer)
    assert (other[0]["n"], other[0]["attempt"]) == (8, 1)
    after = live.running(PLACE)
    assert [after[same] for same in ("owner", "epoch", "driver")] == [
        before[same] for same in ("owner", "epoch", "driver")
    ]


@pytest.mark.parametrize("which", ["pid", "jvm_pid"], ids=["python", "jvm"])
def test_a_dead_driver_is_replaced_with_its_named_data_and_its_jobs_run_again(
    live: Live, code: str, truth: Any, load: Load, which: str
) -> None:
    before = live.running(PLACE)
    members = session_of(process(before["driver"]["pid"]))
    job = live.start(code, "work:slow", PLACE, {"n": 3, "seconds": 1.5})
    os.kill(before["driver"][which], signal.SIGKILL)
    assert live.value(code, "work:query", PLACE) == truth
    after = live.running(PLACE)
    assert after["driver"] != before["driver"]
    assert after["owner"] == before["owner"]
    assert after["last_failover"]["kind"] == "restored-cold"
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (3, 2)
    assert wait_until(lambda: not any(identify(each.pid) == each for each in members), 15), members


@pytest.mark.parametrize("which", ["pid", "jvm_pid"], ids=["python", "jvm"])
def test_a_frozen_driver_is_ended_and_replaced(
    live: Live, code: str, truth: Any, load: Load, which: str
) -> None:
    before = live.running(PLACE)
    members = session_of(process(before["driver"]["pid"]))
    os.kill(before["driver"][which], signal.SIGSTOP)
    after = live.eventually(
        lambda: live.running(PLACE), lambda one: one["driver"] != before["driver"], DRIVER_TIMEOUT + 30
    )
    assert after["owner"] == before["owner"]
    assert live.value(code, "work:query", PLACE) == truth
    assert wait_until(lambda: not any(identify(each.pid) == each for each in members), 15), members


def test_owner_and_driver_dead_at_once_cost_neither_data_nor_jobs(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    before = live.running(PLACE)
    job = live.start(code, "work:slow", PLACE, {"n": 4, "seconds": 1.5})
    kill_server(live, before["owner"])
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    assert live.value(code, "work:query", PLACE) == truth
    after = live.running(PLACE)
    assert after["driver"] != before["driver"]
    assert after["owner"] != before["owner"]
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (4, 2)


def test_an_owner_frozen_for_longer_than_its_session_acknowledges_nothing_when_it_wakes(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    before = live.running(PLACE)
    frozen, elsewhere = before["owner"], other_than(live, before["owner"])
    sleeper = live.cluster.servers[frozen].id.pid
    asked = {"n": 9, "seconds": 2}
    key = f"frozen-{before['epoch']}"
    with in_background(
        lambda: live.submit(code, "work:slow", PLACE, asked, key=key, server=frozen, patience=60.0)
    ) as held:
        live.eventually(
            lambda: live.get("/jobs?limit=10&status=running", elsewhere),
            lambda jobs: any(each["classPath"] == "work:slow" for each in jobs),
        )
        freeze_between_writes(live, sleeper)
        try:
            after = live.eventually(
                lambda: live.seen(PLACE, elsewhere),
                # an epoch is granted before all have seen the node of its owner
                lambda one: (
                    one["epoch"] > before["epoch"]
                    and one["state"] == "RUNNING"
                    and one["owner"] not in (None, frozen)
                ),
                SESSION + 20,
            )
            elsewhere_value = live.value(code, "work:query", PLACE, server=elsewhere)
            live.value(code, "work:put", PLACE, {"name": "written", "value": key}, server=elsewhere)
        finally:
            os.kill(sleeper, signal.SIGCONT)
        assert elsewhere_value == truth
        woken = live.eventually(
            lambda: live.value(code, "work:get", PLACE, {"name": "written"}, server=frozen),
            lambda value: value is not None,
        )
        assert woken == key
    again = live.submit(code, "work:slow", PLACE, asked, key=key, server=elsewhere)
    assert again.json["result"]["n"] == 9, str(again)
    if isinstance(held[0], Reply) and held[0].status == 200:
        assert held[0].json == again.json
    else:
        assert isinstance(held[0], NoAnswer) or held[0].status == 503, str(held[0])
    settled = live.agreed(PLACE)
    assert (settled["owner"], settled["epoch"]) == (after["owner"], after["epoch"])


@pytest.mark.parametrize("with_driver", [False, True], ids=["servers", "servers-and-driver"])
def test_contexts_come_back_with_their_data_when_all_servers_were_killed(
    live: Live, code: str, truth: Any, load: Load, with_driver: bool
) -> None:
    before = live.running(PLACE)
    job = live.start(code, "work:slow", PLACE, {"n": 5, "seconds": 1.5})
    servers = live.ids
    for server in servers:
        kill_server(live, server)
    if with_driver:
        os.kill(before["driver"]["pid"], signal.SIGKILL)
    for server in servers:
        live.cluster.start_server(server)
    assert live.value(code, "work:query", PLACE) == truth
    after = live.agreed(PLACE)
    assert after["epoch"] > before["epoch"]
    assert (after["driver"] == before["driver"]) is not with_driver
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (5, 2 if with_driver else 1)
