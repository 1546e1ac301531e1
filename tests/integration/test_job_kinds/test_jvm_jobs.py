"""Jobs in jars: configuration and results, versions side by side, errors, kills."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jars_by_hand import jar
from live_cluster import Live, Reply

from jobserver.driver.spark import MAJOR
from test_job_kinds.asking import sql

JAR = "application/java-archive"
KILL_LIMIT = 2.0
"""Seconds from the request to kill until it is answered, and who waited is told."""


EXAMPLES = Path(__file__).parents[3] / "examples"


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
        if (what.equals("compiled")) {
            spark.range(20).selectExpr("mod(id, 7) as left_over", "id").groupBy("left_over").sum("id").collect();
            return Long.valueOf(org.apache.spark.metrics.source.CodegenMetrics.METRIC_COMPILATION_TIME().getCount());
        }
        if (what.equals("collected")) { System.gc(); Thread.sleep(200L); return null; }
        if (what.equals("cached")) {
            Dataset rows = spark.range(5).cache();
            long count = rows.count();
            rows.unpersist();
            return Long.valueOf(count);
        }
        if (what.equals("adds")) try {
            java.net.URI more = java.net.URI.create(String.valueOf(config.get("path")));
            java.lang.reflect.Method add = SparkSession.class.getMethod("addArtifact", new Class[] {java.net.URI.class});
            return add.invoke(spark, new Object[] {more});
        } catch (java.lang.reflect.InvocationTargetException error) {
            throw (Exception) error.getCause();
        }
        if (what.equals("alone")) return spark.newSession().range(2).map(
            (MapFunction) new Add(), Encoders.LONG()).collectAsList();
        if (what.equals("named")) return ((Row) spark.sql(
            "select sum(id) from global_temp.amounts").first()).get(0);
        if (what.equals("throw")) throw new IllegalArgumentException("the job broke", new RuntimeException("deeper"));
        if (what.equals("dataset")) return spark.range(3);
        if (what.equals("sleep")) { Thread.sleep(600000L); return "overslept"; }
        if (what.equals("loop")) { while (!Thread.currentThread().isInterrupted()) { } return "interrupted"; }
        if (what.equals("tasks")) return Long.valueOf(spark.range(0, 100000000000L).filter("id < 0").count());
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
        live.value(jvm, "demo.Job", context, {"what": "collected"})


def test_code_that_spark_made_for_one_jobs_query_serves_the_same_query_of_the_next(
    live: Live, context: str, jvm: str
) -> None:
    first, second = (live.value(jvm, "demo.Job", context, {"what": "compiled"}) for _ in range(2))
    assert first == second > 0


EVERYBODYS_JARS = """
def run(spark, env, config):
    spark._jvm.System.gc()
    return str(spark.sparkContext._jsc.sc().addedJars().get("default"))
"""


def test_what_a_jvm_job_caches_makes_its_jars_nobody_elses(live: Live, context: str, jvm: str) -> None:
    code = live.upload(EVERYBODYS_JARS, name="jars_code")
    before = live.value(code, "jars_code:run", context)
    assert live.value(jvm, "demo.Job", context, {"what": "cached"}) == 5
    assert live.value(code, "jars_code:run", context) == before


@pytest.mark.skipif(MAJOR < 4, reason="sessions of Spark 3.5 have no artifacts")
def test_a_jvm_job_cannot_add_artifacts_to_those_that_it_shares(
    live: Live, context: str, jvm: str, tmp_path: Path
) -> None:
    more = tmp_path / "more.jar"
    more.write_bytes(b"PK")
    reply = live.submit(jvm, "demo.Job", context, {"what": "adds", "path": more.as_uri()})
    assert "Name further jars in `cp` of the job" in reply.json["result"]["message"], str(reply)


def test_tasks_of_a_session_that_a_jvm_job_makes_by_itself_find_its_own_jars_or_none(
    live: Live, context: str, jvm: str
) -> None:
    reply = live.submit(jvm, "demo.Job", context, {"what": "alone"})
    assert reply.json.get("status") == "ERROR" or reply.json["result"] == [1, 2], str(reply)


RDD_JOB = "def run(spark, env, config): return spark.sparkContext.parallelize(range(8), 8).sum()"


def test_tasks_that_waited_behind_a_jvm_job_do_not_miss_its_jars_when_it_has_ended(
    live: Live, context: str, jvm: str
) -> None:
    def begun(job_id: str) -> None:
        live.eventually(lambda: live.get(f"/jobs/{job_id}/progress"), lambda seen: seen["tasks"]["total"])

    code = live.upload(RDD_JOB, name="rdd_code")
    busy = live.start(jvm, "demo.Job", context, {"what": "tasks"})
    begun(busy)
    waiting = live.start(code, "rdd_code:run", context)
    begun(waiting)
    live.ask("DELETE", f"/jobs/{busy}")
    assert live.ended(waiting)["status"] == "FINISHED"


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
