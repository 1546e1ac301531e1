"""A cluster whose processes die, freeze and come back, its data, and clients at work that judge it afterwards."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from live_cluster import Live

from jobserver.local.processes import identify, naming
from test_failover.clients import DRIVER_TIMEOUT, PLACE, Load

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

def steps(spark, env, config):
    done = env.progress.load(0)
    if env.attempt == 1:
        env.progress.save(1)
        while True:  # ends at once when it is killed
            time.sleep(0.001)
    return {"attempt": env.attempt, "begins at": done}

def work(spark, env, config):
    time.sleep(config["seconds"])
    return [config["n"], spark.table("rows").groupBy().sum("amount").first()[0]]
"""


@pytest.fixture(scope="package")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three servers without warm drivers. What they leave behind is looked for in the teardown."""
    settings = {"ha": {"standby": "cold"}, "driver": {"driver_timeout": f"{DRIVER_TIMEOUT:g}s"}}
    with start_cluster(tmp_path_factory.mktemp("failover"), **settings) as cluster:
        yield Live(cluster)
        left = cluster.drivers()
    assert naming(cluster.layout.root) == []
    assert [process for process in left if identify(process.pid) == process] == []


@pytest.fixture(scope="package")
def code(live: Live) -> str:
    return live.upload(CODE, name="work")


@pytest.fixture(scope="package")
def truth(live: Live, code: str) -> Any:
    """The answer of `query` for as long as the context lives: its rows are random."""
    live.context(PLACE, **{"max-jobs": 6})
    live.value(code, "work:build", PLACE)
    return live.value(code, "work:query", PLACE)


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
