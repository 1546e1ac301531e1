"""What the product is for, on three real servers with real Spark: code is uploaded once, data is shared by name, jobs are
submitted, watched and killed through any server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bundles_by_hand import EGG, WHEEL, ZIP, egg, wheel, zipped
from live_cluster import Live

from tests.contract.contract_table import ROWS
from tests.contract.situation import Situation

KILL_LIMIT = 2.0
"""Seconds from the request to kill until the job's slot is free again."""

CODE = '''
import time

def build(spark, env, config):
    """A named DataFrame of random amounts, made once."""
    def make():
        return spark.range(config["rows"]).selectExpr("id", "id % 3 as part", "cast(rand() * 100 as int) as amount")
    frame = env.named_objects.get_or_create(config["name"], make)
    return [frame.count(), frame.groupBy().sum("amount").first()[0]]

def ask(spark, env, config):
    frame = env.named_objects.get(config["name"])
    return [frame.count(), frame.groupBy().sum("amount").first()[0]]

def ask_in_sql(spark, env, config):
    row = spark.sql("select count(*), sum(amount) from " + config["name"]).first()
    return [row[0], row[1]]

def data_file(spark, env, config):
    """How many bytes and lines a data file has, read by Python and by Spark."""
    with open(env.data_file(config["path"]), "rb") as file:
        return [len(file.read()), spark.read.text(config["path"]).count()]

def put(spark, env, config):
    env.named_objects.update(config["name"], lambda: config["value"])

def get(spark, env, config):
    return env.named_objects.get(config["name"])

def create_slowly(spark, env, config):
    def make():
        time.sleep(0.5)
        return env.job_id
    return env.named_objects.get_or_create(config["name"], make)

def echo(spark, env, config):
    return config.get("value", None)

def who(spark, env, config):
    return [env.job_id, env.attempt, env.context_config.get("colour", None)]

class Count:
    def validate(self, context, runtime, config):
        return config.get("input.strings")
    def run_job(self, context, runtime, data):
        words = context.sparkContext.parallelize(data).flatMap(str.split)
        return dict(words.map(lambda word: (word, 1)).reduceByKey(lambda a, b: a + b).collect())

def spark_job(spark, env, config):
    spark.sparkContext.parallelize(range(2), 2).map(lambda _: time.sleep(600)).collect()

def python_loop(spark, env, config):
    while True:
        pass

def sleeper(spark, env, config):
    time.sleep(600)
'''


@pytest.fixture(scope="module")
def live(cluster: Any) -> Live:
    return Live(cluster)


@pytest.fixture(scope="module")
def code(live: Live) -> str:
    return live.upload(CODE, name="main_job")


@pytest.fixture(scope="module")
def shared(live: Live) -> str:
    """The context of most tests: one slot, so that a leaked slot is seen at once."""
    return live.context("shared", **{"max-jobs": 1, "colour": "blue"})


@pytest.fixture(scope="module")
def wide(live: Live) -> str:
    """A context with several slots."""
    return live.context("wide", **{"max-jobs": 4})


PACKAGE = {
    "stats/__init__.py": "",
    "stats/core.py": "def double(x):\n    return 2 * x\n",
    "stats/jobs.py": (
        "from stats.core import double\n"
        "def run(spark, env, config):\n"
        "    return spark.sparkContext.parallelize([1, 2, 3], 2).map(double).collect()\n"
    ),
}


@pytest.mark.parametrize(
    ("kind", "data", "shown"),
    [
        (WHEEL, wheel(PACKAGE), "Wheel"),
        (EGG, egg(PACKAGE), "Egg"),
        ("application/python-archive", egg(PACKAGE), "Egg"),
        (ZIP, zipped(PACKAGE), "Zip"),
    ],
    ids=["wheel", "egg", "archive", "zip"],
)
def test_a_package_runs_on_driver_and_executors_from_every_kind_of_bundle(
    live: Live, wide: str, kind: str, data: bytes, shown: str
) -> None:
    name = live.upload(data, kind)
    assert live.value(name, "stats.jobs:run", wide) == [2, 4, 6]
    assert live.get(f"/binaries/{name}")["binary-type"] == shown
    assert live.ask("DELETE", f"/binaries/{name}").status == 200
    assert live.ask("GET", f"/binaries/{name}").status == 404


def test_a_data_file_is_read_by_jobs_whichever_server_took_it(live: Live, code: str, wide: str) -> None:
    for server in live.ids:
        reply = live.ask("POST", "/data/lines", b"a\nb\nc\n", server=server)
        path = reply.json["result"]["filename"]
        assert live.value(code, "main_job:data_file", wide, {"path": path}) == [6, 3]
        assert all(path in live.get("/data", other) for other in live.ids)
    assert live.ask("PUT", "/data?reset=reboot").status == 200
    assert [live.get("/data", server) for server in live.ids] == [[], [], []]


@pytest.mark.parametrize("through", ["owner", "another"])
async def test_the_tables_of_the_contract_hold_through_every_server(
    live: Live, wide: str, through: str
) -> None:
    owner = live.running(wide)["owner"]
    server = owner if through == "owner" else next(each for each in live.ids if each != owner)

    async def send(
        method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str, Mapping[str, str]]:
        reply = await asyncio.to_thread(live.ask, method, path, body, server=server, headers=headers)
        return reply.status, reply.body.decode(), reply.headers

    async def context() -> str:
        return wide

    situation = Situation(send, context)
    found = {str(row): await situation.differences(row) for row in ROWS}
    assert {row: differences for row, differences in found.items() if differences} == {}


def test_a_single_file_runs_as_a_class_and_as_functions(live: Live, code: str, shared: str) -> None:
    assert live.value(code, "main_job.Count", shared, {"input": {"strings": ["a b", "a"]}}) == {
        "a": 2,
        "b": 1,
    }
    job_id, attempt, colour = live.value(code, "main_job:who", shared)
    assert (attempt, colour) == (1, "blue")
    assert live.job(job_id)["status"] == "FINISHED"


def test_every_server_lists_and_shows_the_same_contexts_binaries_and_jobs(
    live: Live, code: str, shared: str
) -> None:
    job_id = live.value(code, "main_job:who", shared)[0]
    for server in live.ids:
        assert shared in live.get("/contexts", server)
        shown = live.get(f"/contexts/{shared}", server)
        assert (shown["name"], shown["state"], shown["endTime"]) == (shared, "RUNNING", "Empty")
        assert live.get("/binaries", server)["main_job"]["binary-type"] == "Python"
        assert live.job(job_id, server)["classPath"] == "main_job:who"
        assert job_id in [job["jobId"] for job in live.get("/jobs?limit=1", server)]


def test_each_server_takes_sync_and_async_jobs_for_any_context(live: Live, code: str, shared: str) -> None:
    for server in live.ids:
        sent = {"value": [server, 1.5, None, {"deep": True}]}
        assert live.value(code, "main_job:echo", shared, sent, server=server) == sent["value"]
        job_id = live.start(code, "main_job:echo", shared, sent, server=server)
        assert live.ended(job_id)["result"] == sent["value"]
        assert live.get(f"/jobs/{job_id}/config") == sent


def test_a_named_dataframe_built_by_one_job_answers_others_also_by_name_in_sql(
    live: Live, code: str, shared: str
) -> None:
    made = live.value(code, "main_job:build", shared, {"name": "sales", "rows": 3000})
    assert made[0] == 3000
    for server in live.ids:
        assert live.value(code, "main_job:ask", shared, {"name": "sales"}, server=server) == made
        assert live.value(code, "main_job:ask_in_sql", shared, {"name": "sales"}, server=server) == made
    again = live.value(code, "main_job:build", shared, {"name": "sales", "rows": 5})
    assert again == made, "the amounts are random: only the same object gives the same sum"
    shown = {each["name"]: each for server in live.ids for each in objects(live, shared, server)}
    assert shown["sales"]["kind"] == "dataframe"


def objects(live: Live, context: str, server: str | None = None) -> list[dict[str, Any]]:
    return list(live.get(f"/contexts/{context}/objects", server))


def test_plain_values_are_shared_and_replaced(live: Live, code: str, shared: str) -> None:
    for value in ({"a": [1, 2]}, "text", 7):
        live.value(code, "main_job:put", shared, {"name": "plain", "value": value})
        assert live.value(code, "main_job:get", shared, {"name": "plain"}) == value
    assert live.value(code, "main_job:get", shared, {"name": "nobody made it"}) is None


def test_jobs_at_the_same_time_share_one_creation(live: Live, code: str, wide: str) -> None:
    jobs = [live.start(code, "main_job:create_slowly", wide, {"name": "one"}) for _ in range(4)]
    results = {live.ended(job)["result"] for job in jobs}
    assert len(results) == 1
    assert results <= set(jobs)


@pytest.mark.parametrize("what", ["spark_job", "python_loop", "sleeper"])
def test_a_killed_job_is_gone_and_its_slot_is_free_within_two_seconds(
    live: Live, code: str, shared: str, what: str
) -> None:
    job_id = live.start(code, f"main_job:{what}", shared)
    waiting = live.start(code, "main_job:echo", shared, {"value": "next"})
    assert live.job(job_id)["status"] == "RUNNING"
    assert live.job(waiting)["status"] == "QUEUED"
    begun = time.monotonic()
    assert live.ask("DELETE", f"/jobs/{job_id}").json == {"status": "KILLED"}
    assert live.job(job_id)["status"] == "KILLED"
    assert live.ended(waiting, KILL_LIMIT)["result"] == "next"
    assert time.monotonic() - begun < KILL_LIMIT
    refused = live.ask("DELETE", f"/jobs/{job_id}")
    assert (refused.status, refused.json["result"]) == (404, f"No running job with ID {job_id}")


def test_a_key_names_one_job_also_when_two_servers_are_asked_at_once(
    live: Live, code: str, shared: str
) -> None:
    def submit(server: str, replies: list[Any]) -> None:
        replies.append(live.submit(code, "main_job:who", shared, key="the same", server=server))

    replies: list[Any] = []
    threads = [threading.Thread(target=submit, args=(server, replies)) for server in live.ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 3, [str(reply) for reply in replies]
    assert len({reply.body for reply in replies}) == 1
    other = live.submit(code, "main_job:echo", shared, key="the same")
    assert other.status == 422, str(other)


def test_a_new_upload_is_used_by_the_next_job_beside_the_old_one(live: Live, wide: str) -> None:
    version = """
import time
VERSION = {number}
def run(spark, env, config):
    import importlib, sys
    while config["wait"] and env.named_objects.get("upgraded") is None:
        time.sleep(0.05)
    return [VERSION] + spark.sparkContext.parallelize([1, 2], 2).map(lambda x: x * VERSION).collect()
def tell(spark, env, config):
    env.named_objects.update("upgraded", lambda: True)
"""
    live.upload(version.format(number=10), name="versions")
    old = live.start("versions", "versions:run", wide, {"wait": True})
    live.upload(version.format(number=20), name="versions")
    assert live.value("versions", "versions:run", wide, {"wait": False}) == [20, 20, 40]
    live.value("versions", "versions:tell", wide)
    assert live.ended(old)["result"] == [10, 10, 20]


def test_an_ad_hoc_job_has_a_context_of_its_own_that_ends_with_it(live: Live, code: str) -> None:
    reply = live.submit(code, "main_job.Count", None, {"input": {"strings": ["a"]}}, timeout=90)
    assert (reply.status, reply.json["result"]) == (200, {"a": 1}), str(reply)
    job = live.job(reply.json["jobId"])
    assert job["context"].endswith("-main_job.Count")
    ended = live.eventually(
        lambda: live.get(f"/contexts/{job['context']}"), lambda context: context["state"] == "FINISHED"
    )
    assert ended["id"] == job["contextId"]
    assert job["context"] not in live.get("/contexts")


def test_a_deleted_context_ends_its_driver_and_jobs_and_its_name_is_free(live: Live, code: str) -> None:
    name = live.context("short")
    driver = live.driver(name)
    live.value(code, "main_job:put", name, {"name": "kept", "value": 1})
    running = live.start(code, "main_job:sleeper", name)
    assert live.ask("DELETE", f"/contexts/{name}").json["result"] == "Context stopped"
    job = live.ended(running, 5)
    assert job["status"] == "ERROR"
    assert job["result"]["message"] == f"Context ({name}) for this job was terminated"
    assert live.get(f"/contexts/{name}")["state"] == "FINISHED"
    live.eventually(lambda: live.cluster.drivers(), lambda left: driver not in left, 10)
    assert live.submit(code, "main_job:echo", name).status == 404
    live.context(name)
    assert live.value(code, "main_job:get", name, {"name": "kept"}) is None
    assert live.ask("DELETE", f"/contexts/{name}").status == 200


def test_the_contract_of_the_api_holds_on_the_live_cluster(live: Live) -> None:
    """The contract's tests, once more, against a server that does not own most of the contexts."""
    folder = Path(__file__).parents[1] / "contract"
    files = [folder / f"test_rest_{matter}.py" for matter in ("binaries", "contexts", "jobs", "framework")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider", "-rf"],
        env={**os.environ, "JOBSERVER_URL": live.cluster.url("s2")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
