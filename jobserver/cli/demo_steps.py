"""The steps of the demo, in order: each is a function that does something and says what it saw, or raises StepFailed.

The expected answer of every query is the first one: the rows hold random numbers, so only the very same rows give it again.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobserver.cli.client import Answer, Client
from jobserver.cli.status import cluster_picture
from jobserver.errors import Unavailable
from jobserver.local.layout import Layout, read_picture

CONTEXT = "demo"
PATIENCE = 120.0
"""Seconds a step may take."""
LINES = ["to be or not to be", "that is the question"]
COUNTS = {"to": 2, "be": 2, "or": 1, "not": 1, "that": 1, "is": 1, "the": 1, "question": 1}


class StepFailed(Exception):
    """What was expected, and what came instead."""


@dataclass(slots=True)
class Cluster:
    """The cluster as the demo uses it: `dead` servers are those that it has killed itself."""

    layout: Layout
    examples: Path
    standby: str = "warm"
    dead: set[str] = field(default_factory=set)
    totals: Any = None

    def client(self) -> Client:
        """A client of the first server that was not killed."""
        living = [s for s in read_picture(self.layout).servers if s.id not in self.dead]
        return Client(living[0].url)

    def server_pid(self, server_id: str) -> int:
        return next(s.pid for s in read_picture(self.layout).servers if s.id == server_id)

    def context(self) -> dict[str, Any]:
        """The demo's context in GET /cluster, once it runs under an owner that lives."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self._seen_context()
            if found.get("state") == "RUNNING" and found["driver"] and found["owner"] not in self.dead:
                return found
            if time.monotonic() > deadline:
                raise StepFailed(f"the context runs nowhere: {found}")
            time.sleep(0.02)

    def _seen_context(self) -> dict[str, Any]:
        try:
            contexts = cluster_picture(self.client())["contexts"]
        except Unavailable as error:
            return {"unavailable": error.message}
        return next((each for each in contexts if each["name"] == CONTEXT), {})

    def run(self, binary: str, main: str, config: object) -> Any:
        """The result of a sync job. Repeats with the same key while the service asks for it (503)."""
        query = {"cp": binary, "mainClass": main, "context": CONTEXT, "sync": "true", "timeout": "100"}
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = _asked(self.client(), query, json.dumps(config), headers)
            if answer.status == 200 and "status" not in answer.body:
                return answer.body["result"]
            if answer.status != 503 or time.monotonic() > deadline:
                raise StepFailed(f"{main} is answered {answer.status}: {_said(answer.body)}")
            time.sleep(0.05)

    def same_totals(self) -> None:
        """Asks for the totals and compares them with the first ones."""
        expect("the totals", self.run("cached_query", "cached_query:query", {}), self.totals)


def _asked(client: Client, query: dict[str, str], body: str, headers: dict[str, str]) -> Answer:
    try:
        return client.post("/jobs", body, query=query, headers=headers)
    except Unavailable as error:
        return Answer(503, error.message)


def _said(body: Any) -> str:
    """The message in the body of an error, or its beginning."""
    result = body.get("result") if isinstance(body, dict) else body
    return str(result.get("message") if isinstance(result, dict) else result)[:300]


def expect(what: str, seen: object, wanted: object) -> None:
    """Raises StepFailed when they differ."""
    if seen != wanted:
        raise StepFailed(f"{what}: expected {wanted!r}, got {seen!r}")


def upload(cluster: Cluster) -> str:
    """Uploads the two example files."""
    for name in ("word_count", "cached_query"):
        body = (cluster.examples / f"{name}.py").read_bytes()
        answer = cluster.client().post(f"/binaries/{name}", body, headers={"Content-Type": "text/x-python"})
        expect(f"POST /binaries/{name}", answer.status, 201)
    return "word_count.py, cached_query.py"


def create_context(cluster: Cluster) -> str:
    """Creates the context and waits until it runs."""
    answer = cluster.client().post(f"/contexts/{CONTEXT}")
    if answer.status != 200:
        raise StepFailed(f"POST /contexts/{CONTEXT} is answered {answer.status}: {answer.body}")
    context = cluster.context()
    return f"owner {context['owner']}, driver pid {context['driver']['pid']}, epoch {context['epoch']}"


def count_words(cluster: Cluster) -> str:
    """Runs the word count."""
    counts = cluster.run("word_count", "word_count.WordCount", {"input": {"strings": LINES}})
    expect("the word counts", counts, COUNTS)
    return f"{len(counts)} words"


def build_rows(cluster: Cluster) -> str:
    """Makes the named rows; their totals are what every later query must answer."""
    cluster.totals = cluster.run("cached_query", "cached_query:build", {"rows": 1_000_000})
    expect("the number of rows", sum(each["rows"] for each in cluster.totals.values()), 1_000_000)
    return f"sum {sum(each['amount'] for each in cluster.totals.values())}"


def query(cluster: Cluster) -> str:
    """Asks for the totals."""
    cluster.same_totals()
    return "the same totals"


def standbys_ready(cluster: Cluster) -> str:
    """Waits until what the settings want to be ready for the next failover is ready: standbys take seconds to start."""
    if cluster.standby == "cold":
        return "cold standbys: nothing is kept ready"
    deadline = time.monotonic() + PATIENCE
    while not (ready := _ready(cluster)):
        if time.monotonic() > deadline:
            raise StepFailed(f"no {cluster.standby} standby was ready within {PATIENCE:g} s")
        time.sleep(0.1)
    return ready


def _ready(cluster: Cluster) -> str:
    """Where the context's next driver is ready, or nothing. A dead driver is replaced by its own server first."""
    context, picture = cluster.context(), cluster_picture(cluster.client())
    if cluster.standby == "hot":
        hot = [each["server"] for each in context["standbys"] if each["mode"] == "hot"]
        return f"a hot standby on {hot[0]}" if hot and hot[0] not in cluster.dead else ""
    living = [each for each in picture["servers"] if each["id"] not in cluster.dead]
    ready = all(each["warm_drivers"] > 0 for each in living)
    return f"a warm driver on each of {', '.join(each['id'] for each in living)}" if ready else ""


def kill_owner(cluster: Cluster) -> str:
    """Kills the owner; the driver lives and must be adopted, not replaced."""
    before = cluster.context()
    _kill_server(cluster, before["owner"])
    cluster.same_totals()
    after = cluster.context()
    expect("the driver's pid", after["driver"]["pid"], before["driver"]["pid"])
    return f"{_moved(before, after)}; driver pid {after['driver']['pid']} adopted, nothing loaded"


def kill_driver(cluster: Cluster) -> str:
    """Kills the driver; another one must be there with the same rows."""
    before = cluster.context()
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    cluster.same_totals()
    return _replaced(before, cluster.context())


def kill_both(cluster: Cluster) -> str:
    """Kills the new owner and its driver at once."""
    before = cluster.context()
    _kill_server(cluster, before["owner"])
    os.kill(before["driver"]["pid"], signal.SIGKILL)
    cluster.same_totals()
    after = cluster.context()
    return f"{_moved(before, after)}; {_replaced(before, after)}"


def _kill_server(cluster: Cluster, server_id: str) -> None:
    os.kill(cluster.server_pid(server_id), signal.SIGKILL)
    cluster.dead.add(server_id)


def _moved(before: dict[str, Any], after: dict[str, Any]) -> str:
    if after["epoch"] <= before["epoch"]:
        raise StepFailed(f"the epoch did not grow: {before['epoch']}, then {after['epoch']}")
    return f"{before['owner']} -> {after['owner']}, epoch {after['epoch']}"


def _replaced(before: dict[str, Any], after: dict[str, Any]) -> str:
    old, new = before["driver"]["pid"], after["driver"]["pid"]
    if old == new:
        raise StepFailed(f"the driver that was killed (pid {old}) is still shown")
    how = (after["last_failover"] or {}).get("kind", "restored")
    return f"driver pid {old} -> {new}, {how} from the checkpoint"


STEPS: tuple[tuple[str, Callable[[Cluster], str]], ...] = (
    ("upload two Python files", upload),
    ("create a context", create_context),
    ("count words, waiting for the answer", count_words),
    ("build a named DataFrame of a million rows", build_rows),
    ("query it", query),
    ("kill the owner server; same query through another", kill_owner),
    ("wait for the next standby", standbys_ready),
    ("kill the driver; same query", kill_driver),
    ("wait for the next standby", standbys_ready),
    ("kill both, server and driver; same query", kill_both),
)
