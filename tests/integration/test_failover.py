"""Processes of a real cluster die, freeze and come back while clients work. Afterwards: every acknowledged job is final, once,
with the right answer; the named data is equal; there is one owner; and when the cluster has ended, no process is left."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import queue
import signal
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from live_cluster import Live, NoAnswer, Reply
from signals import freeze_between_writes, kill_server, other_than, process

from jobserver.client import JobClient, Work
from jobserver.local.processes import identify, naming, session_of, wait_until

SESSION = 4.0
"""ZooKeeper's session timeout of the cluster, seconds."""
DRIVER_TIMEOUT = 4.0
"""A driver silent for so long counts as dead, seconds; shorter than by default, for the sake of the tests' time."""
PLACE = "place"
MANY = 10_000
"""The longest list of jobs that a server gives; more than the tests submit."""

CODE = """
import time

def build(spark, env, config):
    frame = spark.range(20_000).selectExpr("id", "id % 7 as part", "cast(rand() * 1000 as int) as amount")
    made = env.named_objects.get_or_create("rows", lambda: frame)
    env.named_objects.get_or_create("plain", lambda: {"kept": [1, 2, 3]})
    return totals(made)

def totals(frame):
    return [list(row) for row in frame.groupBy("part").sum("amount").orderBy("part").collect()]

def query(spark, env, config):
    return [totals(env.named_objects.get("rows")), env.named_objects.get("plain"),
            spark.sql("select count(*) from rows").first()[0]]

def put(spark, env, config):
    env.named_objects.update(config["name"], lambda: config["value"])

def get(spark, env, config):
    return env.named_objects.get(config["name"])

def slow(spark, env, config):
    time.sleep(config["seconds"])
    return {"n": config["n"], "attempt": env.attempt, "first": totals(env.named_objects.get("rows"))[0]}

def work(spark, env, config):
    time.sleep(config["seconds"])
    return [config["n"], spark.table("rows").groupBy().sum("amount").first()[0]]
"""


@pytest.fixture(scope="module")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three servers without warm drivers. What they leave behind is looked for in the teardown."""
    settings = {"ha": {"standby": "cold"}, "driver": {"driver_timeout": f"{DRIVER_TIMEOUT:g}s"}}
    with start_cluster(tmp_path_factory.mktemp("failover"), **settings) as cluster:
        yield Live(cluster)
        left = cluster.drivers()
    assert naming(cluster.layout.root) == []
    assert [process for process in left if identify(process.pid) == process] == []


@pytest.fixture(scope="module")
def code(live: Live) -> str:
    return live.upload(CODE, name="work")


@pytest.fixture(scope="module")
def truth(live: Live, code: str) -> Any:
    """The answer of `query` for as long as the context lives: its rows are random."""
    live.context(PLACE, **{"max-jobs": 6})
    live.value(code, "work:build", PLACE)
    return live.value(code, "work:query", PLACE)


class Load:
    """Clients that submit with keys and repeat what was not answered on the next server, until it is."""

    def __init__(self, live: Live, code: str, truth: Any) -> None:
        self._live, self._code = live, code
        self._sum = sum(amount for _, amount in truth[0])
        self._ends = threading.Event()
        self._numbers = itertools.count(1)
        self.name = f"load-{time.time_ns()}"
        self.jobs: dict[int, str] = {}
        self.answered: list[tuple[float, int]] = []
        self.faults: list[str] = []
        self.repeated: list[str] = []
        self.through: list[str] | None = None
        self.patience = 8.0
        self._before = self._listed()
        self._threads = [threading.Thread(target=self._client, args=(sync,)) for sync in (True, False)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _client(self, sync: bool) -> None:
        # without a pause, queries would take the cores that new processes need
        while not self._ends.wait(0.4):
            number = next(self._numbers)
            try:
                self._one(number, sync)
            except (AssertionError, LookupError, ValueError) as error:
                self.faults.append(f"job {number} (sync {sync}): {error!r}")

    def _one(self, number: int, sync: bool) -> None:
        reply = self._answer(number, sync)
        assert reply.status == (200 if sync else 202), str(reply)
        assert sync is ("status" not in reply.json), str(reply)
        if sync:
            assert reply.json["result"] == [number, self._sum], str(reply)
        self.jobs[number] = reply.json["jobId"]
        self.answered.append((time.monotonic(), number))

    def _answer(self, number: int, sync: bool, limit: float = 90.0) -> Reply:
        """The answer, however often it must be asked for; 503 and a silent server mean: ask again, elsewhere."""
        deadline, last = time.monotonic() + limit, ""
        config = {"n": number, "seconds": 0.0 if sync else 0.3}
        while time.monotonic() < deadline:
            server = self.through[number % len(self.through)] if self.through else None
            try:
                reply = self._live.submit(
                    self._code, "work:work", PLACE, config, sync=sync, key=f"{self.name}-{number}", timeout=60,
                    patience=self.patience, server=server,
                )  # fmt: skip
            except NoAnswer as error:
                last = str(error)
            else:
                if reply.status != 503:
                    return reply
                last = str(reply)
            self.repeated.append(f"job {number} through {server}: {last}")
            time.sleep(0.05)
        raise AssertionError(f"no answer within {limit:g} s; last: {last}")

    def goes_on(self, after: float | None = None, count: int = 5, limit: float = 60.0) -> None:
        """Waits until jobs that were answered after a time (now) are `count`."""
        after = time.monotonic() if after is None else after
        enough = wait_until(lambda: sum(at > after for at, _ in self.answered) >= count, limit)
        assert enough, f"clients get no answers; {self.faults}"

    def judge(self) -> None:
        """Everything that was acknowledged is final, once, and right, whichever server is asked."""
        live = self._live
        assert self.faults == []
        for number, job_id in self.jobs.items():
            job = live.ended(job_id, 60)
            assert (job["status"], job.get("result")) == ("FINISHED", [number, self._sum]), job
        for server in live.ids:
            ours = self._listed(server) - self._before
            assert ours == set(self.jobs.values()), "a job that nobody asked for, or one that is lost"

    def _listed(self, server: str | None = None) -> set[str]:
        listed = self._live.get(f"/jobs?limit={MANY}", server)
        return {job["jobId"] for job in listed if job["classPath"] == "work:work"}


@pytest.fixture
def load(live: Live, code: str, truth: Any) -> Iterator[Load]:
    """Clients at work during the test; afterwards the cluster is whole again, and everything is judged."""
    for server in set(live.cluster.servers) - set(live.ids):
        live.cluster.start_server(server)
    live.agreed(PLACE)
    with Load(live, code, truth) as load:
        load.goes_on(count=3)
        yield load
        load.goes_on()
    for server in set(live.cluster.servers) - set(live.ids):
        live.cluster.start_server(server)
    live.agreed(PLACE)
    assert live.value(code, "work:query", PLACE) == truth
    load.judge()


def stop_server(live: Live, server: str) -> None:
    child = live.cluster.servers[server]
    child.handle.terminate()
    assert child.handle.wait(60) == 0


@contextlib.contextmanager
def in_background(action: Any) -> Iterator[list[Any]]:
    """Runs `action` beside the block; the list holds its result, or what it raised, once the block has been left."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(action())
        except (AssertionError, NoAnswer) as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join()


@pytest.fixture
def listener() -> Iterator[Any]:
    """`listener(told)`: an address; the JSON of every callback that comes there is put into the queue."""
    servers: list[http.server.HTTPServer] = []

    def listen(told: queue.Queue[dict[str, Any]]) -> str:
        class Told(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Told)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield listen
    for server in servers:
        server.shutdown()
        server.server_close()


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
                lambda one: one["epoch"] > before["epoch"] and one["state"] == "RUNNING",
                SESSION + 20,
            )
            elsewhere_value = live.value(code, "work:query", PLACE, server=elsewhere)
            live.value(code, "work:put", PLACE, {"name": "written", "value": key}, server=elsewhere)
        finally:
            os.kill(sleeper, signal.SIGCONT)
        assert elsewhere_value == truth
        assert after["owner"] != frozen
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


def moved(live: Live, path: str, status: int = 200, **query: str) -> Any:
    """What a planned move answers."""
    reply = live.ask("POST", f"{path}?{urllib.parse.urlencode(query)}", timeout=120.0)
    assert reply.status == status, str(reply)
    return reply.json


def test_a_switchover_fails_no_request_and_a_job_that_ends_in_the_grace_runs_once(
    live: Live, code: str, truth: Any, load: Load
) -> None:
    load.patience = 60.0
    before = live.running(PLACE)
    members = session_of(process(before["driver"]["pid"]))
    to = other_than(live, before["owner"])
    live.value(code, "work:put", PLACE, {"name": "moved", "value": before["epoch"]})
    job = live.start(code, "work:slow", PLACE, {"n": 6, "seconds": 4})
    answer = moved(live, f"/contexts/{PLACE}/switchover", to=to, grace="60s")
    assert (answer["from"], answer["to"]) == (before["owner"], to)
    assert live.value(code, "work:query", PLACE) == truth
    assert live.value(code, "work:get", PLACE, {"name": "moved"}) == before["epoch"]
    after = live.agreed(PLACE)
    assert (after["owner"], after["epoch"]) == (to, answer["epoch"])
    assert after["driver"] != before["driver"]
    assert after["last_failover"]["kind"].startswith("moved-")
    ended = live.ended(job)
    assert (ended["result"]["n"], ended["result"]["attempt"]) == (6, 1)
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
