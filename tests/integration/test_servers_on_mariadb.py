"""An owner that stops in the middle of a write to MariaDB, holding its fences; an owner that alone is cut off from MariaDB.

Processes, ZooKeeper, the database and the checkpoint store are real; drivers are processes without Spark. Clients work
throughout; afterwards every acknowledged job is final, once and right, there is one owner, and nothing is left behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobserver.local.zookeeper import ZooKeeperNode
from tests.drills.checker import JobSeen, faults
from tests.drills.workload import Task, Workload
from tests.fakes.proxy import Cut, Proxies, TcpProxy
from tests.integration import frozen_writer
from tests.integration.forked_servers import ForkedServers, all_here, ask, context_at, until
from tests.mariadb import address_of

SESSION = 4.0
"""ZooKeeper's session timeout by default, seconds."""
NAME = "ctx"
LOCK_WAIT = 20.0
"""Seconds in which a takeover that waited for the frozen server's locks would not be done."""


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with Proxies.running() as proxies:
        yield proxies


@pytest.fixture
def ways(proxies: Proxies, mariadb_url: str) -> dict[str, TcpProxy]:
    """Each server's way to the database."""
    address = address_of(mariadb_url)
    return {name: proxies.open((address.host, address.port)) for name in ("s1", "s2", "s3")}


@pytest.fixture
def servers(
    tmp_path: Path, zookeeper: ZooKeeperNode, mariadb_url: str, ways: dict[str, TcpProxy]
) -> Iterator[ForkedServers]:
    """Three, with a context."""
    address = address_of(mariadb_url)
    upstream = f"{address.host}:{address.port}"
    forked = ForkedServers(
        tmp_path,
        zookeeper.address,
        mariadb_url,
        ways={name: mariadb_url.replace(upstream, way.address) for name, way in ways.items()},
    )
    for name in forked.urls:
        forked.start(name, {frozen_writer.ENDED: str(tmp_path / f"{name}.write")}, frozen_writer.serve)
    until(lambda: all_here(forked), "three servers")
    answered(forked, "s1", 201, "POST", "/binaries/t", b"x = 1", {"Content-Type": "text/x-python"})
    answered(forked, "s1", 200, "POST", f"/contexts/{NAME}")
    yield forked
    forked.close()


def answered(
    servers: ForkedServers,
    server: str,
    status: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Any:
    """The JSON of an answer with this status."""
    found = ask(servers.urls[server], method, path, body, headers)
    assert found is not None, f"{method} {path} at {server} has no answer"
    assert found[0] == status, found
    return found[1]


def load_on(servers: ForkedServers) -> Workload:
    """Clients of all three servers."""
    task = Task(
        {"appName": "t", "classPath": "t.Answer", "context": NAME}, lambda number, sync: {}, lambda number: 1
    )
    return Workload(lambda: list(servers.urls.values()), task, attempt=2.0)


def goes_on(load: Workload, what: str) -> None:
    since = time.monotonic()
    until(lambda: load.answered(since) > 10, what)


def judge(servers: ForkedServers, load: Workload, expected: dict[str, Any], also: str = "") -> None:
    """Every server tells the same: of the owner, and of every job. In the end nothing is left."""
    for name in servers.urls:
        seen = until(lambda name=name: context_at(servers, name, NAME), "the context")  # type: ignore[misc]
        assert all(seen[same] == expected[same] for same in ("owner", "epoch", "driver")), (seen, expected)
        jobs = jobs_on_record(servers, name)
        jobs.pop(also, None)
        assert faults(load.history, jobs) == []
    answered(servers, expected["owner"], 200, "DELETE", f"/contexts/{NAME}")
    until(lambda: not servers.drivers(), "its driver has ended")


def is_stopped(pid: int) -> bool:
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def jobs_on_record(servers: ForkedServers, server: str) -> dict[str, JobSeen]:
    ids = [job["jobId"] for job in answered(servers, server, 200, "GET", "/jobs?limit=10000")]
    jobs = [answered(servers, server, 200, "GET", f"/jobs/{job_id}?wait=30s") for job_id in ids]
    return {job["jobId"]: JobSeen(job["jobId"], job["status"], job.get("result")) for job in jobs}


def test_a_takeover_is_not_blocked_by_an_owner_that_froze_in_the_middle_of_a_write(
    servers: ForkedServers, tmp_path: Path
) -> None:
    before = until(lambda: context_at(servers, "s1", NAME), "the context")
    frozen, told = before["owner"], tmp_path / f"{before['owner']}.write"
    pid = servers.processes[frozen].pid
    assert pid is not None
    elsewhere = next(name for name in servers.urls if name != frozen)
    with load_on(servers) as load:
        goes_on(load, "clients are answered")
        os.kill(pid, signal.SIGUSR1)
        until(lambda: is_stopped(pid), "it has stopped in its write")
        try:
            after = until(lambda: _next_owner(servers, elsewhere, before), "the next owner", LOCK_WAIT)
            goes_on(load, "clients are answered again")
        finally:
            os.kill(pid, signal.SIGCONT)
        until(told.exists, "its write has ended")
        goes_on(load, "clients are answered by all three")
    assert told.read_text() != "done", "its write was undone with its connection"
    assert after["driver"] == before["driver"], "its driver lived, and was adopted"
    judge(servers, load, after)


@pytest.mark.parametrize("how", list(Cut), ids=lambda how: how.value)
def test_an_owner_that_alone_is_cut_off_from_the_database_acknowledges_nothing_and_loses_nothing(
    servers: ForkedServers, proxies: Proxies, ways: dict[str, TcpProxy], how: Cut
) -> None:
    before = until(lambda: context_at(servers, "s1", NAME), "the context")
    owner = before["owner"]
    elsewhere = next(name for name in servers.urls if name != owner)
    with load_on(servers) as load:
        goes_on(load, "clients are answered")
        with proxies.cut(how, ways[owner]):
            until(lambda: (ask(servers.urls[owner], "GET", "/healthz") or (0,))[0] == 500, "it says so")
            query = f"appName=t&classPath=t.Answer&context={NAME}"
            job = answered(servers, elsewhere, 202, "POST", f"/jobs?{query}")["jobId"]
            assert answered(servers, elsewhere, 200, "GET", f"/jobs/{job}")["status"] == "QUEUED"
            assert context_at(servers, elsewhere, NAME)["epoch"] == before["epoch"]
        goes_on(load, "clients are answered again")
        ended = answered(servers, elsewhere, 200, "GET", f"/jobs/{job}?wait=30s")
    assert (ended["status"], ended["result"]) == ("FINISHED", 1)
    answered(servers, elsewhere, 200, "GET", "/healthz")
    judge(servers, load, before, also=job)


def _next_owner(servers: ForkedServers, server: str, before: Any) -> Any:
    """The context under another owner, whose epoch is granted before all servers have seen its node."""
    context = context_at(servers, server, NAME)
    if not context or context["epoch"] <= before["epoch"] or context["state"] != "RUNNING":
        return None
    return context if context["owner"] not in (None, before["owner"]) else None
