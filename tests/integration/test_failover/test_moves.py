"""Contexts move on purpose while clients work, and none of them notices."""

from __future__ import annotations

import urllib.parse
from typing import Any

from live_cluster import Live
from signals import other_than, process

from jobserver.local.processes import identify, session_of, wait_until
from test_failover.clients import PLACE, Load, stop_server


def moved(live: Live, path: str, status: int = 200, **query: str) -> Any:
    """What a planned move answers."""
    reply = live.ask("POST", f"{path}?{urllib.parse.urlencode(query)}", timeout=120.0)
    assert reply.status == status, str(reply)
    return reply.json


def test_a_switchover_fails_no_request_and_jobs_end_in_the_grace_or_go_on_from_what_they_saved(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    load.patience = 60.0
    before = live.running(PLACE)
    members = session_of(process(before["driver"]["pid"]))
    to = other_than(live, before["owner"])
    live.value(code, "work:put", PLACE, {"name": "moved", "value": before["epoch"]})
    job = live.start(code, "work:slow", PLACE, {"n": 6, "seconds": 4})
    steps = live.start(code, "work:steps", PLACE)
    answer = moved(live, f"/contexts/{PLACE}/switchover", to=to, grace="8s")
    assert (answer["from"], answer["to"]) == (before["owner"], to)
    assert live.value(code, "work:query", PLACE) == truth
    assert live.value(code, "work:get", PLACE, {"name": "moved"}) == before["epoch"]
    after = live.agreed(PLACE)
    assert (after["owner"], after["epoch"]) == (to, answer["epoch"])
    assert after["driver"] != before["driver"]
    assert after["last_failover"]["kind"].startswith("moved-")
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (6, 1)
    assert live.ended(steps)["result"] == {"attempt": 2, "begins at": 1}
    load.goes_on()
    assert load.repeated == []
    assert wait_until(lambda: not any(identify(each.pid) == each for each in members), 15), members


def test_a_switchover_that_keeps_the_driver_changes_the_owner_only(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    load.patience = 60.0
    before = live.running(PLACE)
    job = live.start(code, "work:slow", PLACE, {"n": 11, "seconds": 3})
    moved(live, f"/contexts/{PLACE}/switchover", **{"keep-driver": "true"})
    after = live.agreed(PLACE)
    assert after["owner"] != before["owner"]
    assert after["driver"] == before["driver"]
    assert live.value(code, "work:query", PLACE) == truth
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (11, 1)
    load.goes_on()
    assert load.repeated == []


def test_a_drained_server_is_stopped_without_anybody_noticing(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    load.patience = 60.0
    owner = live.running(PLACE)["owner"]
    moved(live, f"/cluster/{owner}/drain", 202, grace="20s")
    live.eventually(
        lambda: {each["id"]: each["state"] for each in live.get("/cluster")["servers"]},
        lambda states: states[owner] == "drained",
        limit=120.0,  # nobody waits for it: a driver is started elsewhere first, and may rehearse for 20 s
    )
    load.through = [server for server in live.ids if server != owner]
    after = live.agreed(PLACE)
    assert after["owner"] != owner
    stop_server(live, owner)
    load.goes_on()
    assert live.running(PLACE)["epoch"] == after["epoch"]
    assert load.repeated == []


def test_a_server_that_is_restarted_leaves_its_driver_to_another_and_fails_no_request_sent_elsewhere(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    load.patience = 60.0
    before = live.running(PLACE)
    load.through = [server for server in live.ids if server != before["owner"]]
    load.goes_on()
    job = live.start(code, "work:slow", PLACE, {"n": 12, "seconds": 4}, server=load.through[0])
    stop_server(live, before["owner"])
    live.cluster.start_server(before["owner"])
    after = live.agreed(PLACE)
    assert after["driver"] == before["driver"]
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (12, 1)
    load.goes_on()
    assert load.repeated == []
