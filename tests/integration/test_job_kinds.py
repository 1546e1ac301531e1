"""SQL, JVM and Python jobs on two real servers with real Spark, submitted and watched through either of them."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow
import pyarrow.parquet
import pytest
from jars_by_hand import jar
from live_cluster import Live, Reply

JAR = "application/java-archive"
KILL_LIMIT = 2.0
"""Seconds from the request to kill until it is answered, and who waited is told."""
EXAMPLES = Path(__file__).parents[2] / "examples"

CODE = """
def build(spark, env, config):
    frame = spark.range(100).selectExpr("id", "id % 4 as part", "cast(id as string) as name")
    env.named_objects.update("Rows Of All", lambda: frame)
    env.named_objects.update("amounts", lambda: frame)
    return frame.count()
"""


@pytest.fixture(scope="module")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with start_cluster(tmp_path_factory.mktemp("kinds"), servers=2, ha={"standby": "cold"}) as running:
        yield Live(running)


@pytest.fixture(scope="module")
def context(live: Live) -> str:
    name = live.context("kinds")
    code = live.upload(CODE, name="kinds_code")
    assert live.value(code, "kinds_code:build", name) == 100
    return name


def sql(live: Live, context: str | None, text: str, sync: bool = True, **body: Any) -> Reply:
    where = "" if context is None else f"&context={context}"
    query = f"/jobs?sql={quote(text)}&sync={str(sync).lower()}&timeout=60{where}"
    return live.ask("POST", query, json.dumps(body))


# SQL


def test_a_query_over_named_objects_answers_rows_and_schema(live: Live, context: str) -> None:
    text = "select part, count(*) as n from amounts where id < 99 group by part order by part"
    result = sql(live, context, text).json["result"]
    assert result == {
        "schema": [
            {"name": "part", "type": "bigint", "nullable": True},
            {"name": "n", "type": "bigint", "nullable": False},
        ],
        "rows": [[0, 25], [1, 25], [2, 25], [3, 24]],
        "truncated": False,
    }


def test_a_query_in_the_body_takes_named_parameters_and_a_limit(live: Live, context: str) -> None:
    body = 'sql = """select id, name\n from `rows of all` where part = :part\n order by id"""\nargs { part = 2 }\nlimit = 2'
    reply = live.ask("POST", f"/jobs?sync=true&timeout=60&context={context}", body)
    assert reply.json["result"]["rows"] == [[2, "2"], [6, "6"]], str(reply)
    assert reply.json["result"]["truncated"] is True


def test_positional_parameters_keep_text_apart_from_sql(live: Live, context: str) -> None:
    reply = sql(live, context, "select ? as a, ? as b", args=["'; drop table amounts", None])
    assert reply.json["result"]["rows"] == [["'; drop table amounts", None]], str(reply)


def test_a_large_result_of_a_query_is_whole(live: Live, context: str) -> None:
    reply = live.ask("POST", f"/jobs?sync=true&timeout=60&context={context}&limit=20000", json.dumps(
        {"sql": "select id, cast(id as string) as name from range(20001)"}))  # fmt: skip
    result = reply.json["result"]
    assert (len(result["rows"]), result["rows"][-1], result["truncated"]) == (20_000, [19_999, "19999"], True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("selec 1", "PARSE_SYNTAX_ERROR"),
        ("select x from nowhere", "TABLE_OR_VIEW_NOT_FOUND"),
        ("select :a", "UNBOUND_SQL"),
    ],
)
@pytest.mark.parametrize("sync", [True, False])
def test_what_spark_does_not_understand_is_a_failed_validation(
    live: Live, context: str, text: str, words: str, sync: bool
) -> None:
    reply = sql(live, context, text, sync)
    assert (reply.status, reply.json["status"]) == (400, "VALIDATION FAILED"), str(reply)
    assert words in reply.json["result"]["message"]


def test_a_query_that_fails_while_it_runs_is_a_job_in_error(live: Live, context: str) -> None:
    reply = sql(live, context, "select raise_error('spoilt') from amounts")
    assert (reply.status, reply.json["status"]) == (200, "ERROR"), str(reply)
    assert "spoilt" in reply.json["result"]["message"]


def test_the_example_in_sql_sums_the_rows_of_the_cached_query(live: Live, context: str) -> None:
    code = live.upload((EXAMPLES / "cached_query.py").read_text(), name="cached_query")
    totals = live.value(code, "cached_query:build", context, {"rows": 1000})
    reply = live.ask(
        "POST", f"/jobs?context={context}&sync=true&timeout=60", (EXAMPLES / "region_totals.conf").read_text()
    )
    rows = reply.json["result"]["rows"]
    assert {region: {"rows": count, "amount": amount} for region, count, amount in rows} == totals, str(reply)


def test_views_of_a_query_are_its_own(live: Live, context: str) -> None:
    assert sql(live, context, "create temporary view mine as select 1").json["result"]["rows"] == []
    assert sql(live, context, "select * from mine").json["status"] == "VALIDATION FAILED"


def test_a_query_is_listed_with_its_text_in_its_configuration(live: Live, context: str) -> None:
    job_id = sql(live, context, "select 1", a=1).json["jobId"]
    assert live.job(job_id)["classPath"] == "sql"
    assert live.get(f"/jobs/{job_id}/config")["a"] == 1


# A DataFrame as the result, and formats

FRAMES = """
def rows(spark, env, config):
    return spark.table("amounts").where(f"id < {config['below']}")

def many(spark, env, config):
    return spark.range(300_000).selectExpr("id", "cast(id as string) as name", "id * 0.5 as half")
"""
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def frames(live: Live, context: str) -> str:
    return live.upload(FRAMES, name="frames")


def run_frame(live: Live, context: str, frames: str, function: str, accept: str, body: str = "") -> Reply:
    path = f"/jobs?cp={frames}&mainClass=frames:{function}&context={context}&sync=true&timeout=120"
    return live.ask("POST", path, body, headers={"Accept": accept})


def test_a_python_job_that_returns_a_dataframe_answers_its_rows(
    live: Live, context: str, frames: str
) -> None:
    result = run_frame(live, context, frames, "rows", "*/*", "below = 2").json["result"]
    assert [column["name"] for column in result["schema"]] == ["id", "part", "name"]
    assert (result["rows"], result["truncated"]) == ([[0, 0, "0"], [1, 1, "1"]], False)


@pytest.mark.parametrize("kind", ["sql", "python"])
@pytest.mark.parametrize("accept", [ARROW, PARQUET])
def test_rows_come_as_arrow_or_parquet_through_either_server(
    live: Live, context: str, frames: str, kind: str, accept: str
) -> None:
    if kind == "sql":
        query = quote("select * from amounts where id < 2")
        path = f"/jobs?sql={query}&context={context}&sync=true&timeout=60"
        reply = live.ask("POST", path, headers={"Accept": accept})
    else:
        reply = run_frame(live, context, frames, "rows", accept, "below = 2")
    assert reply.status == 200, str(reply)
    table = table_of(reply)
    assert table.to_pylist() == [{"id": 0, "part": 0, "name": "0"}, {"id": 1, "part": 1, "name": "1"}]
    job_id = reply.headers["X-Job-Id"]
    for server in live.ids:
        again = live.ask("GET", f"/jobs/{job_id}/result", server=server, headers={"Accept": accept})
        assert again.body == reply.body
    shown = live.get(f"/jobs/{job_id}")["result"]
    assert (shown["format"], shown["rowCount"], shown["truncated"]) == (accept, 2, False)


def test_types_keep_their_meaning_in_arrow(live: Live, context: str) -> None:
    text = """select cast(1.5 as decimal(9,2)) as d, timestamp'2020-01-02 03:04:05' as t, array(1, 2) as a,
        map('k', 1) as m, named_struct('x', 1L) as s, cast(null as string) as n, double('NaN') as nan"""
    path = f"/jobs?sql={quote(text)}&context={context}&sync=true&timeout=60"
    row = table_of(live.ask("POST", path, headers={"Accept": ARROW})).to_pylist()[0]
    assert (row["d"], row["a"], row["m"], row["s"], row["n"]) == (
        Decimal("1.50"), [1, 2], [("k", 1)], {"x": 1}, None,
    )  # fmt: skip
    assert row["nan"] != row["nan"], "what JSON has no word for is whole"
    assert row["t"].isoformat()[:10] in ("2020-01-01", "2020-01-02", "2020-01-03")


def test_a_limit_cuts_rows_in_arrow_and_says_so(live: Live, context: str) -> None:
    path = f"/jobs?sql={quote('select id from range(100000)')}&context={context}&limit=60000&sync=true&timeout=60"
    reply = live.ask("POST", path, headers={"Accept": ARROW})
    assert table_of(reply).num_rows == 60_000
    shown = live.get(f"/jobs/{reply.headers['X-Job-Id']}")["result"]
    assert (shown["rowCount"], shown["truncated"]) == (60_000, True)


def test_many_rows_come_whole_as_arrow(live: Live, context: str, frames: str) -> None:
    reply = run_frame(live, context, frames, "many", ARROW)
    table = table_of(reply)
    assert (table.num_rows, table.column("half")[299_999].as_py()) == (300_000, 149_999.5)


def table_of(reply: Reply) -> Any:
    if reply.headers["Content-Type"] == ARROW:
        return pyarrow.ipc.open_stream(reply.body).read_all()
    assert reply.headers["Content-Type"] == PARQUET, str(reply)
    return pyarrow.parquet.read_table(io.BytesIO(reply.body))


def test_code_is_loaded_from_an_address(live: Live, context: str, tmp_path: Path) -> None:
    file = tmp_path / "lying.py"
    for version in (1, 2):
        file.write_text(f"def run(spark, env, config):\n    return {version}\n")
        assert live.value(f"file://{file}", "lying:run", context) == version
    refused = live.submit("file:///nothing/here.py", "here:run", context)
    assert (refused.status, refused.json["status"]) == (400, "JOB LOADING FAILED"), str(refused)


# JVM jobs

JVM_JOB = """
package demo;
import java.util.*;
import org.apache.spark.sql.*;
import org.apache.spark.api.java.*;
import org.apache.spark.api.java.function.MapFunction;

public class Job {
    public static class Add implements MapFunction {
        public Object call(Object value) { return Long.valueOf(((Long) value).longValue() + %(version)d); }
    }
    public static class AddToRdd implements org.apache.spark.api.java.function.Function {
        public Object call(Object value) { return Long.valueOf(((Long) value).longValue() + %(version)d); }
    }
    public Object validate(SparkSession spark, Map config) {
        Object what = config.get("refuse");
        if ("throw".equals(what)) throw new IllegalStateException("validate broke");
        return what;
    }
    public Object runJob(SparkSession spark, Map config) throws Exception {
        String what = String.valueOf(config.get("what"));
        if (what.equals("versions")) {
            List rows = spark.range(2).map((MapFunction) new Add(), Encoders.LONG()).collectAsList();
            List rdd = new JavaSparkContext(spark.sparkContext()).parallelize(
                Arrays.asList(new Long[] {Long.valueOf(10)})).map(new AddToRdd()).collect();
            return Arrays.asList(new Object[] {Integer.valueOf(%(version)d), rows, rdd});
        }
        if (what.equals("values")) {
            Map values = new LinkedHashMap();
            values.put("nested", config.get("nested"));
            values.put("numbers", new Object[] {Integer.valueOf(1), Long.valueOf(2), Double.valueOf(0.5), Float.valueOf(1.5f),
                Double.valueOf(Double.NaN)});
            values.put("others", new Object[] {new java.math.BigInteger("12345678901234567890"), Byte.valueOf((byte) 7), null});
            values.put("scala", new scala.Tuple2("a", scala.Option.apply("b")));
            values.put("row", spark.sql("select 1 as a, 'x' as b").first());
            values.put(Integer.valueOf(5), Boolean.TRUE);
            return values;
        }
        if (what.equals("named")) return ((Row) spark.sql(
            "select sum(id) from global_temp.amounts").first()).get(0);
        if (what.equals("throw")) throw new IllegalArgumentException("the job broke", new RuntimeException("deeper"));
        if (what.equals("dataset")) return spark.range(3);
        if (what.equals("sleep")) { Thread.sleep(600000L); return "overslept"; }
        if (what.equals("loop")) { while (!Thread.currentThread().isInterrupted()) { } return "interrupted"; }
        if (what.equals("tasks")) return Long.valueOf(spark.range(0, 100000000000L).filter("id * id = 3").count());
        if (what.equals("view")) { spark.range(1).createOrReplaceTempView("mine"); return Long.valueOf(
            (long) spark.catalog().listTables().collectAsList().size()); }
        return null;
    }
}
"""


@pytest.fixture(scope="module")
def jvm(live: Live, java: Path) -> str:
    return live.upload(jar(java, JVM_JOB % {"version": 1}), JAR, "jvm_code")


def test_a_jvm_job_gets_nested_maps_and_its_values_follow_the_contract(
    live: Live, context: str, jvm: str
) -> None:
    config = 'what = values, nested { a { b = [1, {c = "d"}] }, e = null }'
    assert live.value(jvm, "demo.Job", context, config) == {
        "nested": {"a": {"b": [1, {"c": "d"}]}, "e": None},
        "numbers": [1, 2, 0.5, 1.5, None],
        "others": ["12345678901234567890", "7", None],
        "scala": ["a", ["b"]],
        "row": [1, "x"],
        "5": True,
    }
    assert live.value(jvm, "demo.Job", context) is None


def test_two_versions_of_a_class_run_side_by_side_also_on_executors(
    live: Live, context: str, jvm: str, java: Path
) -> None:
    newer = live.upload(jar(java, JVM_JOB % {"version": 100}), JAR)
    for _ in range(2):
        assert live.value(jvm, "demo.Job", context, {"what": "versions"}) == [1, [1, 2], [11]]
        assert live.value(newer, "demo.Job", context, {"what": "versions"}) == [100, [100, 101], [110]]


def test_a_new_upload_is_used_by_the_next_job_without_a_new_context(
    live: Live, context: str, java: Path
) -> None:
    name = "renewed"
    for version in (3, 4):
        live.upload(jar(java, JVM_JOB % {"version": version}), JAR, name)
        assert live.value(name, "demo.Job", context, {"what": "versions"})[0] == version


def test_jvm_jobs_read_named_objects_and_keep_their_views_to_themselves(
    live: Live, context: str, jvm: str
) -> None:
    assert live.value(jvm, "demo.Job", context, {"what": "named"}) == 4950
    for _ in range(2):
        assert live.value(jvm, "demo.Job", context, {"what": "view"}) == 1


@pytest.mark.parametrize(
    ("refuse", "shown"), [("no words", "no words"), (["no words", "no letters"], "no words; no letters")]
)
@pytest.mark.parametrize("sync", [True, False])
def test_what_validate_of_a_jvm_job_returns_is_a_failed_validation(
    live: Live, context: str, jvm: str, refuse: Any, shown: str, sync: bool
) -> None:
    reply = live.submit(jvm, "demo.Job", context, {"refuse": refuse}, sync=sync)
    assert (reply.status, reply.json["status"]) == (400, "VALIDATION FAILED"), str(reply)
    assert shown in reply.json["result"]["message"]


@pytest.mark.parametrize(
    ("config", "kind", "text"),
    [
        ({"what": "throw"}, "java.lang.IllegalArgumentException", "the job broke"),
        ({"refuse": "throw"}, "java.lang.IllegalStateException", "validate broke"),
        ({"what": "dataset"}, "java.lang.IllegalArgumentException", "collectAsList"),
    ],
)
def test_what_a_jvm_job_throws_is_its_error(
    live: Live, context: str, jvm: str, config: Any, kind: str, text: str
) -> None:
    reply = live.submit(jvm, "demo.Job", context, config)
    assert (reply.status, reply.json["status"], reply.json["result"]["errorClass"]) == (200, "ERROR", kind), (
        str(reply)
    )
    assert text in reply.json["result"]["message"]
    assert ("at demo.Job." in reply.json["result"]["stack"]) == (config != {"what": "dataset"})


def test_jars_and_classes_that_cannot_run_are_refused(live: Live, context: str, jvm: str) -> None:
    missing = live.submit(jvm, "demo.Nothing", context)
    assert (missing.status, missing.json["result"]) == (404, "classPath demo.Nothing not found")
    no_job = live.submit(jvm, "demo.Job$Add", context)
    assert (no_job.status, no_job.json["status"]) == (400, "JOB LOADING FAILED"), str(no_job)
    garbage = live.upload(b"PK\x03\x04" + b"\0" * 100, JAR)
    assert live.submit(garbage, "demo.Job", context).status == 404
    mixed = live.submit(f"{jvm},kinds_code", "demo.Job", context)
    assert (mixed.status, mixed.json["result"]) == (400, "Invalid job type for this context"), str(mixed)


@pytest.mark.parametrize("what", ["sleep", "loop", "tasks"])
def test_a_jvm_job_is_killed_and_its_thread_serves_the_next(
    live: Live, context: str, jvm: str, what: str
) -> None:
    job_id = live.start(jvm, "demo.Job", context, {"what": what})
    begun = time.monotonic()
    assert live.ask("DELETE", f"/jobs/{job_id}").json == {"status": "KILLED"}
    assert time.monotonic() - begun < KILL_LIMIT
    assert live.value(jvm, "demo.Job", context, {"what": "named"}) == 4950


@pytest.mark.parametrize("kind", ["jvm", "python", "sql"])
def test_who_waits_for_a_job_that_is_killed_is_told_at_once(
    live: Live, context: str, jvm: str, large: str, kind: str
) -> None:
    answers: list[tuple[Reply, float]] = []

    def wait() -> None:
        if kind == "jvm":
            reply = live.submit(jvm, "demo.Job", context, {"what": "loop"}, timeout=100)
        elif kind == "python":
            reply = live.submit(large, "large:sleeps", context, timeout=100)
        else:
            reply = sql(live, context, "select count(*) from range(100000000000) where rand() < 2")
        answers.append((reply, time.monotonic()))

    waiter = threading.Thread(target=wait)
    waiter.start()
    running = live.eventually(lambda: live.get(f"/jobs?status=running&context={context}"), len)
    begun = time.monotonic()
    assert live.ask("DELETE", f"/jobs/{running[0]['jobId']}").json == {"status": "KILLED"}
    waiter.join(30)
    reply, told = answers[0]
    assert (reply.status, reply.json["status"]) == (200, "KILLED"), str(reply)
    assert told - begun < KILL_LIMIT


def test_the_example_in_java_counts_lengths(live: Live, context: str, java: Path) -> None:
    name = live.upload(jar(java, (EXAMPLES / "WordLengths.java").read_text()), JAR)
    words = {"input": {"words": ["to", "be", "or", "not", "a"], "at-least": 2}}
    assert live.value(name, "examples.WordLengths", context, words) == {"2": 3, "3": 1}
    refused = live.submit(name, "examples.WordLengths", context, {"input": {"at-least": "two"}})
    assert "input.words must be a list of words; config input.at-least" in refused.json["result"]["message"]


# Progress, events, output

SHOWING = """
import logging, sys, threading, time

def reports(spark, env, config):
    print("before", flush=True)
    env.report(0.25, "warming up")
    while env.named_objects.get("go-" + config["name"]) is None:
        time.sleep(0.02)
    env.report(0.5, "counting")
    def slowly(x):
        time.sleep(config["task"])
        return x
    count = spark.sparkContext.parallelize(range(8), 8).map(slowly).count()
    print("after")
    return count

def go(spark, env, config):
    env.named_objects.update("go-" + config["name"], lambda: True)

def talks(spark, env, config):
    for number in range(config["lines"]):
        print(config["name"], number)
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("a line of the log: %s", config["name"])
    helper = threading.Thread(target=lambda: print(config["name"], "from a thread"))
    helper.start()
    helper.join()
    if config.get("fails", False):
        raise ValueError("and then it failed")

def floods(spark, env, config):
    block = "x" * 99 + "\\\\n"
    for _ in range(60_000):
        sys.stdout.write(block)
"""


@pytest.fixture(scope="module")
def showing(live: Live, context: str) -> str:
    return live.upload(SHOWING, name="showing")


def owner_and_other(live: Live, context: str) -> tuple[str, str]:
    owner = live.running(context)["owner"]
    return owner, next(name for name in live.ids if name != owner)


def output(live: Live, job_id: str, server: str | None = None, query: str = "", **headers: str) -> Reply:
    return live.ask("GET", f"/jobs/{job_id}/log{query}", server=server, headers=headers)


def test_a_running_job_shows_its_own_progress_and_sparks_through_any_server(
    live: Live, context: str, showing: str
) -> None:
    job_id = live.start(showing, "showing:reports", context, {"name": "progress", "task": 0.4})
    for server in owner_and_other(live, context):
        seen = live.eventually(
            lambda s=server: live.get(f"/jobs/{job_id}/progress", s), lambda p: p["fraction"]
        )
        assert (seen["jobId"], seen["status"], seen["fraction"], seen["message"]) == (
            job_id, "RUNNING", 0.25, "warming up")  # fmt: skip
    live.value(showing, "showing:go", context, {"name": "progress"})
    seen = live.eventually(
        lambda: live.get(f"/jobs/{job_id}/progress"), lambda p: 0 < p["tasks"]["done"] < p["tasks"]["total"]
    )
    assert (seen["tasks"]["total"], seen["stages"]["total"], seen["message"]) == (8, 1, "counting")
    assert seen["activeStages"][0]["tasks"]["total"] == 8
    assert live.ended(job_id)["result"] == 8
    ended = live.get(f"/jobs/{job_id}/progress")
    assert (ended["status"], ended["fraction"]) == ("FINISHED", 1.0)


class Events:
    """A client of server-sent events: reads in a thread of its own until the stream ends."""

    def __init__(self, live: Live, job_id: str, server: str, last: str = "") -> None:
        self.seen: list[tuple[str, str, Any]] = []
        self.ended = threading.Event()
        host = live.cluster.url(server).removeprefix("http://")
        self._connection = http.client.HTTPConnection(host, timeout=60)
        self._connection.request(
            "GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": last} if last else {}
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            response = self._connection.getresponse()
            for line in iter(response.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "id" in fields:
                    self.seen.append((fields["id"], fields["event"], json.loads(fields["data"])))
                    fields = {}
        except (OSError, http.client.HTTPException):
            pass  # the server was killed; what was seen stays
        finally:
            self.ended.set()

    @property
    def states(self) -> list[str]:
        return [data["state"] for _, kind, data in self.seen if kind == "state"]


def test_events_tell_states_and_progress_and_go_on_behind_the_last_that_was_seen(
    live: Live, context: str, showing: str
) -> None:
    job_id = live.start(showing, "showing:reports", context, {"name": "events", "task": 0.1})
    owner, other = owner_and_other(live, context)
    first = Events(live, job_id, other)
    live.eventually(lambda: first.seen, lambda seen: any(kind == "progress" for _, kind, _ in seen))
    assert first.states == ["RUNNING"]
    last = first.seen[-1][0]
    resumed = Events(live, job_id, owner, last)
    live.value(showing, "showing:go", context, {"name": "events"})
    assert resumed.ended.wait(60)
    assert first.ended.wait(60)
    for stream in (first, resumed):
        assert stream.states[-1] == "FINISHED"
        ids = [tuple(map(int, seen[0].split("."))) for seen in stream.seen]
        assert ids == sorted(set(ids)), "every event once, in order"
    assert resumed.states == ["FINISHED"]
    assert any(data["message"] == "counting" for _, kind, data in resumed.seen if kind == "progress")
    again = Events(live, job_id, owner)
    assert again.ended.wait(60)
    assert again.states == ["RUNNING", "FINISHED"]
    assert live.ask("GET", f"/jobs/{job_id}/events?lastEventId=x").status == 400
    assert live.ask("GET", "/jobs/nothing/events").status == 404


def test_what_a_job_writes_is_its_own_output_on_every_server(live: Live, context: str, showing: str) -> None:
    jobs = {
        name: live.start(showing, "showing:talks", context, {"name": name, "lines": 50})
        for name in ("one", "two")
    }
    for name, job_id in jobs.items():
        assert live.ended(job_id)["status"] == "FINISHED"
        for server in live.ids:
            text = output(live, job_id, server).body.decode()
            lines = text.splitlines()
            assert [line for line in lines if line.startswith(name)] == [
                *(f"{name} {number}" for number in range(50)), f"{name} from a thread"]  # fmt: skip
            assert "to stderr" in lines
            assert f"WARNING mine: a line of the log: {name}" in text
            assert ("two" if name == "one" else "one") not in text


def test_the_output_of_a_running_job_is_served_in_ranges(live: Live, context: str, showing: str) -> None:
    job_id = live.start(showing, "showing:reports", context, {"name": "ranges", "task": 0})
    for server in owner_and_other(live, context):
        live.eventually(lambda s=server: output(live, job_id, s).body, lambda body: body == b"before\n")
    live.value(showing, "showing:go", context, {"name": "ranges"})
    live.ended(job_id)
    assert output(live, job_id).body == b"before\nafter\n"
    part = output(live, job_id, Range="bytes=7-9")
    assert (part.status, part.body) == (206, b"aft")
    assert output(live, job_id, Range="bytes=-6").body == b"after\n"
    assert output(live, job_id, Range="bytes=13-").status == 416
    assert output(live, job_id, query="?offset=3&limit=5").body == b"ore\na"
    assert output(live, job_id, query="?offset=-6").body == b"after\n"
    assert output(live, job_id, Range="bytes=x-y").status == 400
    assert live.ask("GET", "/jobs/nothing/log").status == 404


def test_a_failed_job_ends_its_output_with_its_stack(live: Live, context: str, showing: str) -> None:
    job_id = live.start(showing, "showing:talks", context, {"name": "bad", "lines": 1, "fails": True})
    assert live.ended(job_id)["status"] == "ERROR"
    text = output(live, job_id).body.decode()
    assert text.startswith("bad 0\n")
    assert text.rstrip().endswith("ValueError: and then it failed")


def test_output_beyond_the_limit_is_dropped_and_says_so(live: Live, context: str, showing: str) -> None:
    job_id = live.start(showing, "showing:floods", context)
    assert live.ended(job_id)["status"] == "FINISHED"
    body = output(live, job_id).body
    assert 4 * 2**20 < len(body) < 4 * 2**20 + 200
    assert body.endswith(b"is over the limit of 4194304 bytes\n")


LARGE = """
import time

def large(spark, env, config):
    return "x" * config["size"]

def long_tasks(spark, env, config):
    spark.sparkContext.parallelize(range(10_000), 10_000).map(lambda x: time.sleep(0.02)).count()

def nothing(spark, env, config):
    return None

def sleeps(spark, env, config):
    while True:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def large(live: Live, context: str) -> str:
    return live.upload(LARGE, name="large")


def peak_memory(live: Live) -> dict[str, int]:
    """Bytes that each server has had resident at most."""
    found = {}
    for name, child in live.cluster.servers.items():
        status = Path(f"/proc/{child.handle.pid}/status").read_text()
        found[name] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return found


def test_a_result_of_100_mb_passes_through_servers_without_growing_them(
    live: Live, context: str, large: str
) -> None:
    size = 100 * 10**6
    live.value(large, "large:large", context, {"size": 5 * 2**20})
    before = peak_memory(live)
    job_id = live.start(large, "large:large", context, {"size": size})
    assert (
        live.eventually(lambda: live.get(f"/jobs/{job_id}/progress"), lambda job: job["status"] != "RUNNING")[
            "status"
        ]
        == "FINISHED"
    )
    for server in live.ids:
        whole = live.ask("GET", f"/jobs/{job_id}/result", server=server)
        assert (whole.status, len(whole.body), whole.body[:3], whole.body[-2:]) == (
            200,
            size + 2,
            b'"xx',
            b'x"',
        )
        part = live.ask("GET", f"/jobs/{job_id}/result", server=server, headers={"Range": "bytes=99999999-"})
        assert (part.status, part.body) == (206, b'xx"')
        shown = live.ask("GET", f"/jobs/{job_id}", server=server)
        assert shown.body.endswith(b'xxx"}')
        assert len(shown.body) > size
    grown = {name: peak - before[name] for name, peak in peak_memory(live).items()}
    assert max(grown.values()) < 48 * 2**20, f"grown by {grown}"


def test_a_sync_job_answers_a_large_result_and_one_beyond_the_limit_is_its_error(
    live: Live, context: str, large: str
) -> None:
    assert len(live.value(large, "large:large", context, {"size": 3 * 2**20})) == 3 * 2**20
    reply = live.submit(large, "large:large", context, {"size": 130 * 2**20})
    assert (reply.json["status"], reply.json["result"]["errorClass"]) == ("ERROR", "ResultTooLarge"), str(
        reply
    )
    assert live.ask("GET", "/jobs/nothing/result").status == 404


def test_a_job_ends_when_its_time_limit_is_over(live: Live, context: str, large: str) -> None:
    reply = live.submit(large, "large:sleeps", context, timeoutRun=1)
    assert (reply.status, reply.json["status"]) == (200, "KILLED"), str(reply)
    assert "ran longer than its time limit of 1 s" in reply.json["result"]["message"]
    assert live.value(large, "large:nothing", context, timeoutRun=60) is None


def test_a_quick_query_is_not_delayed_by_long_jobs_of_another_pool(
    live: Live, context: str, large: str
) -> None:
    def quickest(count: int = 7) -> float:
        """The median of some quick queries over shared data, seconds."""
        taken = []
        for _ in range(count):
            begun = time.monotonic()
            assert sql(live, context, "select count(*) from amounts where part = 1").json["result"][
                "rows"
            ] == [[25]]
            taken.append(time.monotonic() - begun)
        return sorted(taken)[count // 2]

    def quick_job(count: int = 7) -> float:
        """The median of some jobs that need no Spark."""
        taken = []
        for _ in range(count):
            begun = time.monotonic()
            assert live.value(large, "large:nothing", context) is None
            taken.append(time.monotonic() - begun)
        return sorted(taken)[count // 2]

    quickest(2)
    alone, job_alone = quickest(), quick_job()
    jobs = [live.start(large, "large:long_tasks", context, pool="batch") for _ in range(3)]
    live.eventually(
        lambda: live.get(f"/jobs/{jobs[0]}/progress"),
        lambda seen: seen["tasks"]["active"] and seen["tasks"]["done"],
    )
    beside, job_beside = quickest(), quick_job()
    assert all(live.job(job)["status"] == "RUNNING" for job in jobs)
    for job in jobs:
        live.ask("DELETE", f"/jobs/{job}")
    print(f"quick query: {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside three long jobs")
    # without fair pools it would wait for all three, which take minutes; other work on this machine costs seconds at most
    assert beside < 5 * alone + 5.0, f"{alone:.3f} s alone, {beside:.3f} s beside long jobs"
    assert job_beside < 10 * job_alone + 5.0, f"{job_alone:.4f} s alone, {job_beside:.4f} s beside long jobs"


def test_output_and_events_outlive_the_driver_and_its_server(live: Live, context: str, showing: str) -> None:
    config = {"name": "outlive", "task": 0}
    job_id = live.start(showing, "showing:reports", context, config)
    owner, other = owner_and_other(live, context)
    watching = Events(live, job_id, other)
    live.eventually(lambda: output(live, job_id, other).body, lambda body: body == b"before\n")
    stored = live.cluster.layout.root
    live.eventually(lambda: list(stored.rglob(f"logs/{job_id}/*/*")), len)
    live.cluster.servers[owner].handle.kill()
    live.eventually(lambda: live.running(context)["owner"], lambda now: now == other)
    os.kill(live.driver(context).pid, signal.SIGKILL)
    live.eventually(
        lambda: output(live, job_id, other).body, lambda body: body.startswith(b"before\nbefore\n")
    )
    live.value(showing, "showing:go", context, config)
    assert watching.ended.wait(90)
    assert watching.states == ["RUNNING", "RESTARTING", "RUNNING", "FINISHED"]
    assert output(live, job_id, other).body == b"before\nbefore\nafter\n"
