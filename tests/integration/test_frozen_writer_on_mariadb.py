"""A whole server stops in the middle of a write to MariaDB, holding its fences: its contexts go to another all the same.

Processes, ZooKeeper, the database and the checkpoint store are real; drivers are processes without Spark. Clients work
throughout; afterwards every acknowledged job is final, once and right, there is one owner, and nothing is left behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobserver.local.zookeeper import ZooKeeperNode
from tests.drills.checker import JobSeen, faults
from tests.drills.workload import Task, Workload
from tests.integration import frozen_writer
from tests.integration.forked_servers import ForkedServers, all_here, ask, context_at, until

SESSION = 4.0
"""ZooKeeper's session timeout by default, seconds."""
NAME = "ctx"
LOCK_WAIT = 20.0
"""Seconds in which a takeover that waited for the frozen server's locks would not be done."""


@pytest.fixture
def servers(tmp_path: Path, zookeeper: ZooKeeperNode, mariadb_url: str) -> Iterator[ForkedServers]:
    forked = ForkedServers(tmp_path, zookeeper.address, mariadb_url)
    for name in forked.urls:
        forked.start(name, {frozen_writer.ENDED: str(tmp_path / f"{name}.write")}, frozen_writer.serve)
    until(lambda: all_here(forked), "three servers")
    code = ask(forked.urls["s1"], "POST", "/binaries/t", b"x = 1", {"Content-Type": "text/x-python"})
    assert code is not None
    assert code[0] == 201, code
    yield forked
    forked.close()


def is_stopped(pid: int) -> bool:
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def jobs_on_record(servers: ForkedServers, server: str) -> dict[str, JobSeen]:
    found = ask(servers.urls[server], "GET", "/jobs?limit=10000")
    assert found is not None
    assert found[0] == 200, found
    ids = [job["jobId"] for job in found[1]]
    jobs = [_ended(servers, server, job_id) for job_id in ids]
    return {job["jobId"]: JobSeen(job["jobId"], job["status"], job.get("result")) for job in jobs}


def _ended(servers: ForkedServers, server: str, job_id: str) -> Any:
    found = ask(servers.urls[server], "GET", f"/jobs/{job_id}?wait=30s")
    assert found is not None
    return found[1]


def test_a_takeover_is_not_blocked_by_an_owner_that_froze_in_the_middle_of_a_write(
    servers: ForkedServers, tmp_path: Path
) -> None:
    begun = ask(servers.urls["s1"], "POST", f"/contexts/{NAME}")
    assert begun is not None
    assert begun[0] == 200, begun
    before = until(lambda: context_at(servers, "s1", NAME), "the context")
    frozen = before["owner"]
    pid = servers.processes[frozen].pid
    assert pid is not None
    elsewhere = next(name for name in servers.urls if name != frozen)
    task = Task(
        {"appName": "t", "classPath": "t.Answer", "context": NAME}, lambda number, sync: {}, lambda number: 1
    )
    with Workload(lambda: list(servers.urls.values()), task, attempt=2.0) as load:
        until(lambda: load.answered() > 10, "clients are answered")
        os.kill(pid, signal.SIGUSR1)
        until(lambda: is_stopped(pid), "it has stopped in its write")
        try:
            after = until(
                lambda: _next_owner(servers, elsewhere, before["epoch"]), "the next owner", LOCK_WAIT
            )
            since = time.monotonic()
            until(lambda: load.answered(since) > 10, "clients are answered again")
        finally:
            os.kill(pid, signal.SIGCONT)
        until((tmp_path / f"{frozen}.write").exists, "its write has ended")
        since = time.monotonic()
        until(lambda: load.answered(since) > 10, "clients are answered by all three")
    assert (tmp_path / f"{frozen}.write").read_text() != "done", (
        "what the frozen owner wrote was taken over by nobody"
    )
    assert after["owner"] != frozen
    assert after["driver"] == before["driver"], "its driver lived, and was adopted"
    for name in servers.urls:
        seen = until(lambda name=name: context_at(servers, name, NAME), "the context")
        assert (seen["owner"], seen["epoch"]) == (after["owner"], after["epoch"])
        assert faults(load.history, jobs_on_record(servers, name)) == []
    ended = ask(servers.urls[frozen], "DELETE", f"/contexts/{NAME}")
    assert ended is not None
    assert ended[0] == 200, ended
    until(lambda: not servers.drivers(), "its driver has ended")


def _next_owner(servers: ForkedServers, server: str, epoch: int) -> Any:
    context = context_at(servers, server, NAME)
    return context if context and context["epoch"] > epoch and context["state"] == "RUNNING" else None
