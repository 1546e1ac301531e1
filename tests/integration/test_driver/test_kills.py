"""A kill ends whatever a job does, and what Spark does for it."""

from __future__ import annotations

import json
import time

import pytest
from driver_client import Running, eventually

from checkpoint import layout


@pytest.mark.parametrize(
    "body",
    [
        "spark.sparkContext.parallelize(range(2), 2).map(lambda _: time.sleep(600)).collect()",
        "spark.sql('select count(*) from range(100000000000) where rand() < 2').collect()",
        "time.sleep(600)",
        "threading.Event().wait()",
        "threading.Lock().acquire() and (lock := threading.Lock()).acquire() and lock.acquire()",
        "[None for _ in iter(int, 1)]",
        "spark.sparkContext._jvm.java.lang.Thread.sleep(600000)",
        "retry_for_ever(spark)",
    ],
)
def test_a_kill_ends_whatever_a_job_does_and_spares_the_driver(running: Running, body: str) -> None:
    source = f"""
import threading, time
def retry_for_ever(spark):
    while True:
        try:
            spark.range(1000).selectExpr("sum(id)").collect()
        except Exception:
            pass
def run(spark, env, config):
    env.progress.report(0.5, "started")
    {body}
"""
    job = running.start(source)
    assert running.client.event("progress", job)["fraction"] == 0.5
    begun = time.monotonic()
    assert running.client.ask("kill", job_id=job, attempt=1)["running"]
    event = running.outcome(job, 10)
    assert event["kind"] == "killed"
    assert time.monotonic() - begun < 3
    assert running.client.ask("ping")["abandoned"] == 0
    assert running.value("def run(s, e, c): return s.range(10).count()") == 10


def test_a_streaming_query_that_keeps_no_state_of_ours_is_stopped_with_the_job_that_was_killed(
    running: Running,
) -> None:
    source = """
import json
import time
def run(spark, env, config):
    query = spark.readStream.format("rate").load().writeStream.format("noop").start()
    env.progress.report(0.5, str(query.id))
    query.awaitTermination()
"""
    threads = """
def run(spark, env, config):
    names = [thread.getName() for thread in spark.sparkContext._jvm.java.lang.Thread.getAllStackTraces().keySet()]
    return sum(config["query"] in name for name in names)
"""
    job = running.start(source)
    query = running.client.event("progress", job)["message"]
    assert running.value(threads, query=query) == 1
    assert running.client.ask("kill", job_id=job, attempt=1)["running"]
    assert running.outcome(job)["kind"] == "killed"
    deadline = time.monotonic() + 20
    while running.value(threads, query=query) and time.monotonic() < deadline:
        pass
    assert running.value(threads, query=query) == 0


BATCHES = """
import json
import time
def run(spark, env, config):
    rate = spark.readStream.format("rate").option("rowsPerSecond", 100).load()
    seen = []

    def each(batch, number):
        print("batch", number)
        rows = batch.count()
        seen.append(rows)
        env.named_objects.update(config["name"], lambda: rows, durability="async")
        if config["stay"]:
            env.progress.report(0.5, str(number))
            exec(config["stay"])

    query = rate.writeStream.foreachBatch(each).start()
    if config["stay"]:
        query.awaitTermination()
    while sum(seen) < 10:
        time.sleep(0.05)
    query.stop()
    return [sum(seen) >= 10, env.named_objects.get(config["name"]) in seen]
"""


@pytest.mark.parametrize(
    "stay",
    ["time.sleep(600)", "while True: pass", "batch.sparkSession._jvm.java.lang.Thread.sleep(600000)"],
)
def test_a_kill_ends_the_function_for_each_batch_and_no_later_job_misses_its_batches(
    running: Running, stay: str
) -> None:
    job = running.start(BATCHES, name="killed", stay=stay)
    running.client.event("progress", job)
    assert running.client.ask("kill", job_id=job, attempt=1)["running"]
    assert running.outcome(job, 10)["kind"] == "killed"
    assert running.client.ask("ping")["abandoned"] == 0
    assert running.value(BATCHES, name="later", stay="") == [True, True]


def test_a_function_for_each_batch_of_a_stream_works_for_its_job(running: Running) -> None:
    job = running.start(BATCHES, name="batches", stay="")
    assert json.loads(running.outcome(job)["result"]) == [True, True]
    folder = layout.log_folder(job, 1)
    assert eventually(
        lambda: any(
            b"batch 0" in running.files.read(f"{folder}/{name}") for name in running.files.names(folder)
        )
    )


LISTENER = """
import time
from pyspark.sql.streaming import StreamingQueryListener
def run(spark, env, config):
    heard = []

    class Hears(StreamingQueryListener):
        def onQueryStarted(self, event):
            pass
        def onQueryProgress(self, event):
            heard.append(event.progress.batchId)
            env.progress.report(0.5)
            exec(config["stay"])
        def onQueryIdle(self, event):
            pass
        def onQueryTerminated(self, event):
            pass

    listener = Hears()
    spark.streams.addListener(listener)
    query = spark.readStream.format("rate").load().writeStream.format("noop").start()
    while not heard or config["stay"]:
        time.sleep(0.05)
    query.stop()
    spark.streams.removeListener(listener)
    return len(heard) > 0
"""


def test_a_kill_while_a_listener_of_streams_works_harms_no_other_listener(running: Running) -> None:
    job = running.start(LISTENER, stay="while True: pass")
    running.client.event("progress", job)
    assert running.client.ask("kill", job_id=job, attempt=1)["running"]
    assert running.outcome(job, 10)["kind"] == "killed"
    assert running.value(LISTENER, stay="") is True
    assert running.value("def run(s, e, c): return s.range(10).count()") == 10
