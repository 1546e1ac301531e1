"""Real servers on one real MariaDB, drivers without Spark: under load one is killed, and every job is there once."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.integration.forked_servers import ForkedServers, until
from tests.mariadb import Databases, address_of

CLIENTS = 6
JOBS = 25
PATIENCE = 60.0
CODE = b"def answer(spark, env, config): return 1"


def ask(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any] | None:
    """Status and parsed answer; None when there is none."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": "text/plain", **named})
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@dataclass
class Load:
    """Clients with keys: each repeats a request, through any server that runs, until it is acknowledged."""

    servers: ForkedServers
    acknowledged: dict[str, str] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)
    repeated: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, number: int) -> None:
        turn = itertools.count(number)
        for n in range(JOBS):
            self._submit(f"{number}-{n}", sync=n % 2 == 0, turn=turn)

    def _submit(self, key: str, *, sync: bool, turn: Iterator[int]) -> None:
        query = urlencode(
            {"appName": "t", "classPath": "t.Answer", "context": "shared", "sync": str(sync).lower()}
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            running = self.servers.running()
            url = self.servers.urls[running[next(turn) % len(running)]]
            found = ask(url, "POST", f"/jobs?{query}&timeout=20", Idempotency_Key=key)
            if found is not None and found[0] in (200, 202):
                break
            assert time.monotonic() < deadline, f"{key} was not acknowledged: {found}"
            with self._lock:
                self.repeated += 1
            time.sleep(0.05)
        with self._lock:
            self.acknowledged[key] = found[1]["jobId"]
            if found[0] == 200:
                self.answers.append(found[1].get("result"))


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.new()


@pytest.fixture
def servers(tmp_path: Path, zookeeper: Any, url: str) -> Iterator[ForkedServers]:
    """Two, each of which sees the other."""
    forked = ForkedServers(tmp_path, zookeeper.address, url)
    try:
        for name in ("s1", "s2"):
            forked.start(name)
        for name in ("s1", "s2"):
            until(lambda name=name: _sees_two(forked, name), "two servers")
        yield forked
    finally:
        forked.close()


def _sees_two(servers: ForkedServers, name: str) -> bool:
    found = ask(servers.urls[name], "GET", "/cluster")
    return found is not None and found[0] == 200 and len(found[1]["servers"]) == 2


def owner_of(servers: ForkedServers, through: str) -> str | None:
    found = ask(servers.urls[through], "GET", "/cluster")
    owners = [one["owner"] for one in (found[1]["contexts"] if found else ()) if one["name"] == "shared"]
    return owners[0] if owners else None


def test_of_two_servers_on_one_database_one_is_killed_under_load_and_every_job_is_there_once(
    servers: ForkedServers, databases: Databases, url: str
) -> None:
    first = servers.urls["s1"]
    assert ask(first, "POST", "/binaries/t", CODE, Content_Type="text/x-python") is not None
    created = ask(first, "POST", "/contexts/shared")
    assert created is not None
    assert created[0] == 200, created
    owner = until(lambda: owner_of(servers, "s1"), "the context has an owner")
    other = "s2" if owner == "s1" else "s1"
    load = Load(servers)
    with ThreadPoolExecutor(CLIENTS) as clients:
        running = [clients.submit(load.client, number) for number in range(CLIENTS)]
        until(lambda: len(load.acknowledged) >= CLIENTS * 4, "jobs are acknowledged")
        servers.kill(owner)
        assert len(load.acknowledged) < CLIENTS * JOBS, (
            "the load was over before the kill: the test shows nothing"
        )
        for one in running:
            one.result()
    until(lambda: owner_of(servers, other) == other, "the other server owns the context")
    rows = until(lambda: _all_final(databases, url), "every job has ended")
    _check(rows, load)
    assert _rows(databases, url, "SELECT epoch, owner FROM {0}.fences") == [(2, other)]


def _check(rows: list[tuple[Any, ...]], load: Load) -> None:
    """Counts are equal: acknowledged keys, jobs, keys on record, ends; what was answered is the result."""
    keys = {f"{number}-{n}" for number in range(CLIENTS) for n in range(JOBS)}
    assert set(load.acknowledged) == keys
    assert {key: job_id for job_id, key, *_ in rows} == load.acknowledged
    assert len(rows) == len(keys)
    assert {(state, result, ends) for _, _, state, result, ends in rows} == {("FINISHED", "1", 1)}
    assert load.answers == [1] * (CLIENTS * (JOBS // 2 + 1))
    assert load.repeated > 0, "no client met the kill: the test shows nothing"


def _all_final(databases: Databases, url: str) -> list[tuple[Any, ...]] | None:
    """Of each job: id, key, state, result and how many ends its history has. None while one has not ended."""
    found = _rows(
        databases,
        url,
        "SELECT id, idempotency_key, state, result, (SELECT COUNT(*) FROM {0}.job_history h WHERE h.job_id = j.id"
        " AND h.state IN ('FINISHED', 'ERROR', 'KILLED')) FROM {0}.jobs j",
    )
    unfinished = [row for row in found if row[2] not in ("FINISHED", "ERROR", "KILLED")]
    return None if unfinished or not found else found


def _rows(databases: Databases, url: str, query: str) -> list[tuple[Any, ...]]:
    return databases.run(query.format(address_of(url).database))
