"""A real cluster with a context in which bad and good jobs meet, and what must be so after a bad one.

After every bad job the context must answer a job of its own, and the named data of before must be there, equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from live_cluster import Live

CODE = '''
import json, os, sys, threading, time

def build(spark, env, config):
    frame = spark.range(1000).selectExpr("id", "cast(rand() * 1000 as int) as amount")
    env.named_objects.update("rows", lambda: frame)
    env.named_objects.update("plain", lambda: {"kept": [1, 2, 3]})
    return witness(spark, env, config)

def witness(spark, env, config):
    """What must never change, whatever others do."""
    total = spark.sql("select sum(amount) from rows").first()[0]
    spread = spark.sparkContext.parallelize(range(4), 2).map(lambda x: x * x).sum()
    return [total, env.named_objects.get("plain"), spread, spark.conf.get("spark.sql.shuffle.partitions")]

def patient(spark, env, config):
    """An innocent job that is there while a bad one does its thing."""
    env.named_objects.update("patient-" + config["name"], lambda: env.attempt)
    ends = time.monotonic() + 10
    while env.named_objects.get("release-" + config["name"]) is None and time.monotonic() < ends:
        assert spark.sql("select count(*) from rows").first()[0] == 1000
    return spark.sql("select sum(amount) from rows").first()[0]

def started(spark, env, config):
    return env.named_objects.get("patient-" + config["name"])

def release(spark, env, config):
    env.named_objects.update("release-" + config["name"], lambda: True)

class NeedsWords:
    def validate(self, context, runtime, config):
        from sparkjobserver.api import build_problems
        return build_problems(["config words not found", "and no letters either"])
    def run_job(self, context, runtime, data):
        return "never"

class ValidateRaises:
    def validate(self, context, runtime, config):
        raise RuntimeError("validate broke")
    def run_job(self, context, runtime, data):
        return "never"

class CannotBeMade:
    def __init__(self):
        raise OSError("no such thing")
    def run_job(self, context, runtime, data):
        return "never"

class NoJob:
    pass

class Unprintable(Exception):
    def __str__(self):
        raise ValueError("this error has no text")

class Opaque:
    def __str__(self):
        return "an opaque thing"
    __repr__ = __str__

class Silent:
    def __str__(self):
        raise ValueError("no text")
    __repr__ = __str__

def raise_it(spark, env, config):
    raise {"key": KeyError("k"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "base": BaseException("b"),
           "unprintable": Unprintable(), "stop": StopIteration(1), "group": ExceptionGroup("two", [ValueError("v")]),
           "long": RuntimeError("x" * 300_000_000), "surrogate": RuntimeError("\\ud800 and \\x00"),
           "generator": GeneratorExit()}[config["what"]]

def spark_error(spark, env, config):
    spark.sparkContext.parallelize([1], 1).map(lambda x: 1 / 0).collect()

def exit_on_executor(spark, env, config):
    spark.sparkContext.parallelize([1], 1).map(lambda x: os._exit(3)).collect()

def recurse(spark, env, config):
    return recurse(spark, env, config)

def deep_recursion(spark, env, config):
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(300_000)
    def down(n):
        return 0 if n == 0 else 1 + down(n - 1)
    try:
        return down(200_000)
    finally:
        sys.setrecursionlimit(old)

def returns(spark, env, config):
    cycle = []
    cycle.append(cycle)
    deep = []
    for _ in range(5000):
        deep = [deep]
    return {"cycle": cycle, "deep": deep, "huge": "x" * 140_000_000 if config["what"] == "huge" else None,
            "nan": [float("nan"), float("inf"), 1.5],
            "object": [Opaque(), {1, 2} and Opaque, b"\\xff\\x00", {(1, 2): Opaque()}], "silent": Silent(),
            "number": 10 ** 5000, "frame": [spark.range(3)], "surrogate": "\\ud800", "nul": "a\\x00b",
            "generator": None}[config["what"]]

def rubbish(spark, env, config):
    rubbish = bytes(range(256)) * 100
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.buffer.write(rubbish)
        stream.flush()
        os.write(number, rubbish)
    print("\\ud800")
    return "printed"

def close_output(spark, env, config):
    for stream in (sys.stdout, sys.stderr):
        stream.buffer.close()
        stream.close()
    return "closed"

def prints(spark, env, config):
    print("this must not fail")
    print("nor this", file=sys.stderr)
    return "printed"

def die(spark, env, config):
    os._exit(1)

def die_by_signal(spark, env, config):
    os.kill(os.getpid(), config["signal"])
    time.sleep(60)

def stop_spark(spark, env, config):
    {"session": spark.stop, "context": spark.sparkContext.stop,
     "active": lambda: type(spark).getActiveSession().stop(),
     "java": lambda: spark.sparkContext._jsc.stop(),
     "gateway": lambda: spark.sparkContext._gateway.shutdown(),
     "jvm": lambda: spark.sparkContext._jvm.java.lang.System.exit(3)}[config["what"]]()
    return spark.range(3).count()

def change_settings(spark, env, config):
    from pyspark.sql import SparkSession
    spark.conf.set("spark.sql.shuffle.partitions", "77")
    SparkSession.builder.config("spark.sql.shuffle.partitions", "78").getOrCreate()
    SparkSession.getActiveSession().conf.set("spark.sql.ansi.enabled", "false")
    spark.sql("set spark.sql.shuffle.partitions=79")
    spark.sql("create or replace temp view rows as select 1 as amount")
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", "nobody's")
    return spark.conf.get("spark.sql.shuffle.partitions")

def fork(spark, env, config):
    """Both return: the child's answer must not be taken, nor may it stay."""
    child = os.fork()
    if child == 0:
        return "child"
    env.named_objects.update("child", lambda: child)
    return "parent"

def is_alive(spark, env, config):
    try:
        os.kill(env.named_objects.get("child"), 0)
    except ProcessLookupError:
        return False
    return open("/proc/%d/stat" % env.named_objects.get("child")).read().rpartition(")")[2].split()[0] != "Z"

def other_processes(spark, env, config):
    """Work in processes of the job's own. Not forked ones: a child of a process with many threads may hang (CPython)."""
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(abs, [-1, -2])

def eat(spark, env, config):
    return len(bytearray(config["bytes"]))

def eat_in_jvm(spark, env, config):
    kept = [spark.sparkContext._gateway.new_array(spark.sparkContext._jvm.long, 2**27) for _ in range(8)]
    return len(kept)

def many_threads(spark, env, config):
    threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(300)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return len(threads)

def thread_raises(spark, env, config):
    def broken(): raise RuntimeError("in a thread")
    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()
    return "fine"

def monkey(spark, env, config):
    env.named_objects.update("x" * 100_000, lambda: 1)
'''


@pytest.fixture(scope="package")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with start_cluster(tmp_path_factory.mktemp("bad"), ha={"standby": "cold"}) as running:
        yield Live(running)


@pytest.fixture(scope="package")
def code(live: Live) -> str:
    return live.upload(CODE, name="bad")


@pytest.fixture(scope="package")
def place(live: Live) -> str:
    """The context in which bad and good jobs meet."""
    return live.context("place", **{"max-jobs": 4})


@pytest.fixture(scope="package")
def truth(live: Live, code: str, place: str) -> Any:
    """What every witness must say; the amounts are random, so only the same rows give it."""
    return live.value(code, "bad:build", place)


@pytest.fixture
def unharmed(live: Live, code: str, place: str, truth: Any) -> Iterator[None]:
    """Afterwards the context is the same one, runs on the same driver, and has its data."""
    before = live.running(place)
    yield
    assert live.value(code, "bad:witness", place) == truth
    after = live.running(place)
    for same in ("id", "epoch", "driver"):
        assert after[same] == before[same]


@pytest.fixture
def survives(live: Live, code: str, place: str, truth: Any) -> Iterator[None]:
    """Afterwards the context is the same one and has its data, on whatever driver; an innocent job has ended well."""
    before = live.running(place)["id"]
    name = f"n{live.get('/jobs?limit=1')[0]['jobId'][:8]}"
    innocent = live.start(code, "bad:patient", place, {"name": name})
    live.eventually(lambda: live.value(code, "bad:started", place, {"name": name}), lambda seen: seen == 1)
    yield
    assert live.value(code, "bad:witness", place) == truth
    live.value(code, "bad:release", place, {"name": name})
    job = live.ended(innocent)
    assert (job["status"], job["result"]) == ("FINISHED", truth[0]), job
    assert live.running(place)["id"] == before
