"""SQL, JVM and Python jobs on two real servers with real Spark, submitted and watched through either of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jars_by_hand import jar
from live_cluster import Live, Reply

JAR = "application/java-archive"
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


def test_views_of_a_query_are_its_own(live: Live, context: str) -> None:
    assert sql(live, context, "create temporary view mine as select 1").json["result"]["rows"] == []
    assert sql(live, context, "select * from mine").json["status"] == "VALIDATION FAILED"


def test_a_query_is_listed_with_its_text_in_its_configuration(live: Live, context: str) -> None:
    job_id = sql(live, context, "select 1", a=1).json["jobId"]
    assert live.job(job_id)["classPath"] == "sql"
    assert live.get(f"/jobs/{job_id}/config")["a"] == 1


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
    assert live.ask("DELETE", f"/jobs/{job_id}").json == {"status": "KILLED"}
    assert live.value(jvm, "demo.Job", context, {"what": "named"}) == 4950


def test_the_example_in_java_counts_lengths(live: Live, context: str, java: Path) -> None:
    name = live.upload(jar(java, (EXAMPLES / "WordLengths.java").read_text()), JAR)
    words = {"input": {"words": ["to", "be", "or", "not", "a"], "at-least": 2}}
    assert live.value(name, "examples.WordLengths", context, words) == {"2": 3, "3": 1}
    refused = live.submit(name, "examples.WordLengths", context, {"input": {"at-least": "two"}})
    assert "input.words must be a list of words; config input.at-least" in refused.json["result"]["message"]
