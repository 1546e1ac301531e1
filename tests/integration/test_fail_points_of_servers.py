"""Real servers that end at every step of a takeover: the next server brings the context to a right end.

Processes, ZooKeeper, SQL and the checkpoint store are real; drivers are processes without Spark.
"""

from __future__ import annotations

import os
import signal
from urllib.parse import urlencode

import pytest

from ha.coordination import ServerInfo
from ha.placement import standby_order
from jobserver.contexts.fail_points import ALLOWED, AT, EXIT_CODE, SWITCH, Point
from tests.integration.forked_servers import ForkedServers, all_here, ask, context_at, until

ADOPTING = (
    Point.ELECTED,
    Point.GRANTED,
    Point.HELLO,
    Point.ADOPT_SENT,
    Point.ADOPTED,
    Point.PLANNED,
    Point.RECORDED,
    Point.OPENED,
    Point.PUBLISHED,
)
RESTORING = (
    Point.GRANTED,
    Point.MARKED,
    Point.BASE_READ,
    Point.PINNED,
    Point.DRIVER_TAKEN,
    Point.ACTIVATE_SENT,
    Point.ACTIVATED,
    Point.PLANNED,
    Point.RECORDED,
    Point.OPENED,
    Point.PUBLISHED,
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory, zookeeper):
    forked = ForkedServers(tmp_path_factory.mktemp("forked"), zookeeper.address)
    for name in forked.urls:
        forked.start(name)
    until(lambda: all_here(forked), "three servers")
    code = b"def answer(spark, env, config): return 1"
    headers = {"Content-Type": "text/x-python"}
    assert ask(forked.urls["s1"], "POST", "/binaries/t", code, headers)[0] in (200, 201)
    yield forked
    forked.close()


@pytest.fixture
def three(servers):
    """All three run, none with a fail point."""
    for name in servers.urls:
        if name not in servers.running():
            servers.start(name)
    until(lambda: all_here(servers), "three servers")
    return servers


def begin(servers, name):
    """A new context: its id, owner, the server that stands first, the other one."""
    status, answer = ask(servers.urls["s1"], "POST", f"/contexts/{name}")
    assert status == 200, answer
    context = until(lambda: context_at(servers, "s1", name), "the context")
    owner = context["owner"]
    infos = {one: ServerInfo(one, one, "", "", 0, 0, "") for one in servers.urls if one != owner}
    first, second = standby_order(context["id"], infos)
    return context, owner, first, second


def submit(servers, server, context, job, key):
    query = urlencode({"appName": "t", "classPath": job, "context": context})
    headers = {"Idempotency-Key": key}
    found = until(
        lambda: ask(servers.urls[server], "POST", f"/jobs?{query}", b"", headers), "the job is accepted"
    )
    assert found[0] == 202, found
    return found[1]["jobId"]


def started(servers, server, job_id):
    found = ask(servers.urls[server], "GET", f"/jobs/{job_id}")
    return found and found[0] == 200 and found[1]["status"] == "RUNNING"


def attempts(servers, server, job_id):
    """How often it ran."""
    status, moves = ask(servers.urls[server], "GET", f"/jobs/{job_id}/history")
    assert status == 200
    return max(move["attempt"] for move in moves)


def ended(servers, server, job_id):
    found = ask(servers.urls[server], "GET", f"/jobs/{job_id}?wait=20s")
    return found[1] if found and found[1].get("status") in ("FINISHED", "ERROR", "KILLED") else None


def fail(servers, name, *, adopt, point):
    """The owner is killed, the next server ends at the point; the context and its job as the last server shows them."""
    context, owner, first, second = begin(servers, name)
    servers.kill(first)
    servers.start(first, {AT: point, SWITCH: ALLOWED})
    until(lambda: all_here(servers), "it is back, with its fail point")
    job_id = submit(servers, second, name, "t.Wait", f"key-{name}")
    until(lambda: started(servers, second, job_id), "it runs")
    if not adopt:
        os.kill(context["driver"]["pid"], signal.SIGKILL)
    servers.kill(owner)
    assert servers.exit_code(first, 30.0) == EXIT_CODE, f"{first} did not end at its fail point"
    job = until(lambda: ended(servers, second, job_id), "the job ends")
    return second, job, until(lambda: _settled(servers, second, name), "the context runs")


def _settled(servers, server, name):
    """Its failover is put on record after the gate is open; the state of an adopted one is RUNNING all the time."""
    context = context_at(servers, server, name)
    if not context or not context["last_failover"]:
        return None
    return context if context["state"] == "RUNNING" and context["owner"] == server else None


def finish(servers, server, name):
    """It takes new jobs, and ends with all that is its own."""
    query = urlencode({"appName": "t", "classPath": "t.Answer", "context": name, "sync": "true"})
    status, answer = ask(servers.urls[server], "POST", f"/jobs?{query}")
    assert (status, answer["result"]) == (200, 1)
    pid = context_at(servers, server, name)["driver"]["pid"]
    assert ask(servers.urls[server], "DELETE", f"/contexts/{name}")[0] == 200
    until(lambda: pid not in servers.drivers(), "its driver has ended")


@pytest.mark.parametrize("point", ADOPTING)
def test_a_server_that_ends_while_it_adopts_is_followed_by_one_that_adopts_the_same_driver(three, point):
    name = f"adopt-{point.replace(' ', '-')}"
    server, job, context = fail(three, name, adopt=True, point=point)
    assert (job["status"], job["result"]) == ("FINISHED", "waited")
    assert attempts(three, server, job["jobId"]) == 1
    assert context["last_failover"]["kind"] == "adopted"
    finish(three, server, name)


@pytest.mark.parametrize("point", RESTORING)
def test_a_server_that_ends_while_it_restores_is_followed_by_one_that_comes_to_the_same_end(three, point):
    name = f"restore-{point.replace(' ', '-')}"
    server, job, context = fail(three, name, adopt=False, point=point)
    assert (job["status"], job["result"]) == ("FINISHED", "waited")
    assert 2 <= attempts(three, server, job["jobId"]) <= 3
    assert context["epoch"] >= 3
    finish(three, server, name)


def test_no_driver_is_left_over_in_the_end(servers):
    until(lambda: not servers.drivers(), "drivers that were started for nothing have ended", 30.0)
