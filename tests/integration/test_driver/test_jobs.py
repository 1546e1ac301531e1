"""What a job gets, what it shares with others, and what it cannot do to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver_client import Running, eventually, numbers

from test_driver.making import MAKE

CLASS_JOB = """
from sparkjobserver.api import SparkJob, build_problems
class Count(SparkJob):
    def validate(self, context, runtime, config):
        if config.get("input.words", None) is None:
            return build_problems(["config input.words not found"])
        return config.get("input.words")
    def run_job(self, context, runtime, data):
        counts = context.sparkContext.parallelize(data, 2).map(lambda w: (w, 1)).reduceByKey(lambda a, b: a + b)
        return dict(counts.collect())
"""


def test_a_class_is_validated_and_run_with_a_tree_as_configuration(running: Running) -> None:
    assert running.value(CLASS_JOB, "word_count.Count", input={"words": ["a", "b", "a"]}) == {"a": 2, "b": 1}


def test_problems_of_validate_make_the_outcome_invalid_and_are_told(running: Running) -> None:
    event = running.run(CLASS_JOB, "word_count.Count")
    assert (event["kind"], event["error"]["message"]) == ("invalid", "config input.words not found")


def test_the_driver_tells_the_address_at_which_others_reach_it_not_the_one_it_listens_on(
    running: Running,
) -> None:
    assert running.process.facts["host"] == "localhost"
    assert (
        running.value('def run(spark, env, config): return spark.conf.get("spark.driver.host")')
        == "localhost"
    )


def test_a_function_gets_session_environment_and_configuration(running: Running) -> None:
    source = """
def run(spark, env, config):
    return [spark.range(config["n"]).count(), env.attempt, env.epoch > 0, env.context_config.get("team.name")]
"""
    assert running.value(source, n=7) == [7, 1, True, "blue"]


SESSION = """
def run(spark, env, config):
    spark.range(1).collect()
    session = spark._jvm.java.lang.System.identityHashCode(spark._jsparkSession)
    exec(config["before"], {"spark": spark})
    return session
"""


def test_python_workers_import_the_pyspark_that_is_installed_which_is_compiled(running: Running) -> None:
    job = """
def run(spark, env, config):
    import pyspark
    theirs = spark.sparkContext.parallelize([0], 1).map(lambda _: __import__("pyspark").__file__).first()
    return [theirs == pyspark.__file__, ".zip" in theirs]
"""
    assert running.value(job) == [True, False]


def test_a_session_serves_later_jobs_as_long_as_none_leaves_anything_in_it(running: Running) -> None:
    seen: list[int] = []

    def comes_back() -> bool:
        session = running.value(SESSION, before="")
        seen.append(session)
        return session in seen[:-1]

    assert eventually(comes_back)


@pytest.mark.parametrize(
    "before",
    [
        "spark.conf.set('spark.sql.shuffle.partitions', '3')",
        "spark.range(1).createOrReplaceTempView('mine')",
        "spark.udf.register('mine', lambda x: x)",
        "spark.sql('create temporary view another as select 1')",
        "spark.sql('set spark.sql.ansi.enabled = false')",
        "spark.readStream",
        "import threading; threading.Thread(target=lambda: __import__('time').sleep(3)).start()",
    ],
)
def test_a_session_in_which_a_job_left_something_serves_no_other(running: Running, before: str) -> None:
    used = running.value(SESSION, before=before)
    assert used not in [running.value(SESSION, before="") for _ in range(8)]


def test_code_that_spark_made_for_one_jobs_query_serves_the_same_query_of_the_next(running: Running) -> None:
    source = """
def run(spark, env, config):
    spark.sql("set spark.sql.optimizer.maxIterations = 99")  # so the next job gets another session
    spark.range(20).selectExpr("id % 7 as left_over", "id").groupBy("left_over").sum("id").collect()
    return spark._jvm.org.apache.spark.metrics.source.CodegenMetrics.METRIC_COMPILATION_TIME().getCount()
"""
    first = running.value(source)
    assert first > 0
    assert running.value(source) == first


ADD = """
def run(spark, env, config):
    path = config["path"]
    exec(config["how"])
    return spark.range(2).count()
"""


@pytest.mark.parametrize("how", ["spark.sql(f'add file {path}')", "spark.sparkContext.addFile(path)"])
def test_a_file_whose_name_another_job_has_taken_is_refused_and_harms_nobody(
    running: Running, tmp_path: Path, how: str
) -> None:
    for content in ("one", "two"):
        file = tmp_path / content / f"numbers-{abs(hash(how))}.txt"
        file.parent.mkdir()
        file.write_text(content)
        event = running.run(ADD, path=str(file), how=how)
        assert event["kind"] == ("finished" if content == "one" else "failed")
    assert "was added to this context before" in event["error"]["message"]
    assert running.value(ADD, path="", how="") == 2


def test_two_versions_of_a_module_run_side_by_side_also_on_executors(running: Running) -> None:
    def version(number: int) -> dict[str, str]:
        job = """
from pkg.core import add
import importlib
def f(x):
    import pkg.core as c
    return c.add(x)
def run(spark, env, config):
    by_name = importlib.import_module('pkg.core').VERSION
    return [by_name] + spark.sparkContext.parallelize([1, 10], 2).map(f).collect()
"""
        core = f"VERSION = {number}\ndef add(x):\n    return x + VERSION\n"
        return running.uploads.wheel({"pkg/__init__.py": "", "pkg/core.py": core, "job.py": job})

    for _ in range(2):
        assert running.value(version(100)) == [100, 101, 110]
        assert running.value(version(200)) == [200, 201, 210]


@pytest.mark.parametrize(
    ("source", "main", "kind", "text"),
    [
        ("x = 1", "job.Missing", "not_found", "there is no Missing"),
        ("import nowhere_to_be_found", "job.Any", "loading_failed", "nowhere_to_be_found"),
        ("class A:\n def __init__(self): 1/0\n def run_job(self, c, r, d): pass", "job.A", "loading_failed", "ZeroDivisionError"),
        ("def run(s, e, c): raise SystemExit(3)", "job:run", "failed", "SystemExit"),
        ("def run(s, e, c): raise KeyboardInterrupt", "job:run", "failed", "KeyboardInterrupt"),
        ("def run(s, e, c): return [s.range(3)]", "job:run", "failed", "collect()"),
        ("def run(s, e, c): s.sql('select * from nothing_there')", "job:run", "failed", "nothing_there"),
        ("def run(s, e, c): return 'x' * 140_000_000", "job:run", "failed", "the limit is"),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_a_job_is_its_outcome(
    running: Running, source: str, main: str, kind: str, text: str
) -> None:
    event = running.run(source, main)
    assert event["kind"] == kind
    assert text in event["error"]["message"]


def test_two_packages_and_jars_are_refused_with_a_sentence(running: Running) -> None:
    binary = running.uploads.python("x = 1")
    for packages, kind, text in (
        ([binary, binary], "loading_failed", "Python should have exactly one package file! Found: 2"),
        ([binary, {**binary, "type": "Jar"}], "wrong_type", "jars and Python packages"),
    ):
        job = f"job-{next(numbers)}"
        fields = {"job_id": job, "attempt": 1, "main_class": "a.B", "config": "{}"}
        assert running.client.ask("run", binaries=packages, **fields)["ok"]
        event = running.outcome(job)
        assert event["kind"] == kind
        assert text in event["error"]["message"]


def test_a_job_sees_neither_the_views_nor_the_settings_nor_the_properties_of_another(
    running: Running,
) -> None:
    first = """
def run(spark, env, config):
    from pyspark.sql import SparkSession
    spark.range(3).createOrReplaceTempView("mine")
    mine = SparkSession.builder.config("spark.sql.shuffle.partitions", "9").getOrCreate()
    spark.sparkContext.setLocalProperty("left.over", "yes")
    spark.stop()
    return [mine is spark, SparkSession.getActiveSession() is spark, spark.conf.get("spark.sql.shuffle.partitions")]
"""
    second = """
def run(spark, env, config):
    return [spark.catalog.tableExists("mine"), spark.conf.get("spark.sql.shuffle.partitions"),
            spark.sparkContext.getLocalProperty("left.over"),
            spark.sparkContext.getLocalProperty("spark.scheduler.pool")]
"""
    assert running.value(first) == [True, True, "9"]
    for _ in range(3):
        assert running.value(second) == [False, "2", None, "interactive"]


def test_a_named_dataframe_is_there_for_other_jobs_by_name_and_in_sql(running: Running) -> None:
    assert running.value(MAKE, name="numbers", n=5) == [5, 1]
    read = """
def run(spark, env, config):
    joined = spark.sql("select sum(a.twice) as s from numbers a join numbers b on a.id = b.id").first().s
    return [joined, spark.table("numbers").count(), env.namedObjects.get("numbers").filter("id > 3").count(),
            env.named_objects.get("nobody made it")]
"""
    assert running.value(read) == [20, 5, 1, None]
    assert running.value(MAKE, name="numbers", n=6) == [6, 1]
    assert running.value(read) == [30, 6, 2, None]


def test_a_job_has_a_named_dataframe_in_its_session_after_two_calls_of_the_jvm(running: Running) -> None:
    """One prepares thread and session, one makes the frame. The first jobs of a driver need more (session_pool.py)."""
    source = """
import threading
from py4j.clientserver import ClientServerConnection

def run(spark, env, config):
    plain, asked = ClientServerConnection.send_command, []
    def counted(connection, command, *args):
        asked.append(threading.current_thread().name)
        return plain(connection, command, *args)
    ClientServerConnection.send_command = counted
    try:
        frame = env.named_objects.get("counted")
    finally:
        ClientServerConnection.send_command = plain
    return [asked.count(threading.current_thread().name), frame.count(), spark.sparkContext.getLocalProperty("left.over"),
            spark.sparkContext.getLocalProperty("spark.jobGroup.id").count("job-")]
"""
    leaves = """
def run(spark, env, config):
    spark.sparkContext.setLocalProperty("left.over", "yes")
"""
    assert running.value(MAKE, name="counted", n=5) == [5, 1]
    for _ in range(6):  # each takes a session that serves one job, as long as there are any
        running.value(source)
    running.value(leaves)
    assert [running.value(source) for _ in range(3)] == [[2, 5, None, 1]] * 3


def test_plain_values_broadcasts_and_rdds_can_be_named(running: Running) -> None:
    source = """
def run(spark, env, config):
    sc, names = spark.sparkContext, env.named_objects
    value = names.get_or_create("v", lambda: {"a": [1, 2]})
    big = names.get_or_create("big", lambda: "x" * 100_000)
    shared = names.get_or_create("b", lambda: sc.broadcast([1, 2, 3]))
    rdd = names.get_or_create("r", lambda: sc.parallelize(range(10), 2).map(lambda x: (x, str(x))))
    again = names.get_or_create("r", lambda: 1 / 0)
    return [value, len(big), sc.parallelize([0, 1], 2).map(lambda i: shared.value[i]).collect(), again.count()]
"""
    assert running.value(source) == [{"a": [1, 2]}, 100_000, [1, 2], 10]
    shown = {item["name"]: item for item in running.client.ask("objects")["objects"]}
    assert {name: shown[name]["kind"] for name in ("v", "b", "r")} == {
        "v": "value",
        "b": "broadcast",
        "r": "rdd",
    }
    assert all(shown[name]["checkpointed"] for name in ("v", "big", "b", "r"))
