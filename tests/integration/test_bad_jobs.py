"""Bad requests and bad jobs on a real cluster: each gets the answer of the contract, and harms nobody else.

After every bad job the context must answer a job of its own, and the named data of before must be there, equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from live_cluster import Live, Reply

NO_ROUTE = "The requested resource could not be found."

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


@pytest.fixture(scope="module")
def live(cluster: Any) -> Live:
    return Live(cluster)


@pytest.fixture(scope="module")
def code(live: Live) -> str:
    return live.upload(CODE, name="bad")


@pytest.fixture(scope="module")
def place(live: Live) -> str:
    """The context in which bad and good jobs meet."""
    return live.context("place", **{"max-jobs": 4})


@pytest.fixture(scope="module")
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


def error_of(reply: Reply) -> dict[str, Any]:
    """The error in a sync answer of a job that failed."""
    assert reply.status == 200, str(reply)[:3000]
    assert reply.json["status"] == "ERROR"
    assert set(reply.json["result"]) == {"message", "errorClass", "stack"}
    return dict(reply.json["result"])


# requests


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/nothing", b"", 404, NO_ROUTE),
        ("POST", "/binaries", b"x", 404, NO_ROUTE),
        ("PUT", "/binaries/x", b"", 405, "HTTP method not allowed, supported methods: GET, POST, DELETE"),
        ("GET", "/jobs?limit=many", b"", 400, "'many' is not a valid 32-bit signed integer value"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&sync=maybe", b"", 400, "'maybe' is not a valid Boolean value"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&timeout=-1", b"", 400, "timeout must be from 1 to 2147483647, not -1"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&priority=1e3", b"", 400, "priority"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&onFailover=pray", b"", 400, "rerun or fail"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&maxAttempts=0", b"", 400, "maxAttempts"),
        ("POST", "/jobs?cp=bad", b"", 400, "mainClass parameter is missing!"),
        ("POST", "/jobs", b"", 400, "appName or cp parameters should be configured!"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"{ a = ", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"\xff\xfe", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"a = ${b}", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=place", b"[1, 2]", 400, "Cannot parse config: "),
        ("POST", "/jobs?cp=nobody&mainClass=a:b&context=place", b"", 404, "appName nobody not found"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&context=nowhere", b"", 404, "context nowhere not found"),
        ("POST", "/jobs?cp=bad&mainClass=bad:prints&_method=BREW", b"", 501, "recognize the request method"),
        ("POST", "/contexts/9lives", b"", 400, "context name must start with letters"),
        ("POST", "/contexts/broken?num-cpu-cores=many", b"", 400, "num-cpu-cores"),
        ("POST", "/contexts/broken?memory-per-node=much", b"", 400, "memory-per-node"),
        ("POST", "/contexts/broken?max-jobs=0", b"", 400, "max-jobs"),
        ("POST", "/contexts/broken", b"spark.context-settings { a = ", 400, "Cannot parse config: "),
        ("DELETE", "/contexts/nowhere", b"", 404, "context nowhere not found"),
        ("GET", "/contexts/nowhere/objects", b"", 404, "nowhere"),
        ("GET", "/jobs/no-such-job", b"", 404, "No such job ID no-such-job"),
        ("DELETE", "/jobs/no-such-job", b"", 404, "No such job ID no-such-job"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_on_every_server_with_its_fault(
    live: Live, code: str, place: str, method: str, path: str, body: bytes, status: int, text: str
) -> None:
    for server in live.ids:
        reply = live.ask(method, path, body, server=server)
        assert reply.status == status, str(reply)
        assert text in reply.body.decode()
        assert b"Traceback" not in reply.body


@pytest.mark.parametrize(
    ("kind", "data", "status", "text"),
    [
        ("text/x-python", b"def f(:\n", 400, "Binary is not of the right format"),
        ("text/x-python", b"x = '\xff'", 400, "Binary is not of the right format"),
        ("application/python-wheel", b"no zip", 400, "Binary is not of the right format"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "Unsupported binary type"),
    ],
)
def test_an_upload_that_cannot_be_code_is_refused(
    live: Live, kind: str, data: bytes, status: int, text: str
) -> None:
    reply = live.ask("POST", "/binaries/bad_upload", data, headers={"Content-Type": kind})
    assert (reply.status, text in reply.json["result"]) == (status, True), str(reply)
    assert live.ask("GET", "/binaries/bad_upload").status == 404


# loading


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("main", "status", "text"),
    [
        ("bad:nothing", 404, "classPath bad:nothing not found"),
        ("bad.Nothing", 404, "classPath bad.Nothing not found"),
        ("other.module.Job", 404, "classPath other.module.Job not found"),
        ("no main class", 404, "classPath no main class not found"),
        ("bad:json", 404, "classPath bad:json not found"),
        ("bad.NoJob", 400, "JOB LOADING FAILED"),
        ("bad.CannotBeMade", 400, "no such thing"),
        ("bad.NeedsWords", 400, "config words not found; and no letters either"),
    ],
)
def test_code_that_is_no_job_is_refused_in_both_ways_of_asking(
    live: Live, code: str, place: str, unharmed: None, main: str, status: int, text: str, sync: bool
) -> None:
    reply = live.submit(code, main, place, sync=sync)
    assert reply.status == status, str(reply)
    assert text in reply.body.decode()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("raise ValueError('at import')", "at import"),
        ("import sys\nsys.exit(4)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(): return g(\n", None),
        ("from __future__ import braces", "not a chance"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_400_that_tells_why(
    live: Live, place: str, unharmed: None, source: str, text: str | None
) -> None:
    reply = live.ask("POST", "/binaries/unloadable", source, headers={"Content-Type": "text/x-python"})
    if text is None:
        assert reply.status == 400
        return
    assert reply.status == 201, str(reply)
    reply = live.submit("unloadable", "unloadable:run", place)
    assert (reply.status, reply.json["status"]) == (400, "JOB LOADING FAILED"), str(reply)
    assert text in reply.json["result"]["message"]


# jobs that end badly


@pytest.mark.parametrize(
    ("what", "error_class", "text"),
    [
        ("key", "KeyError", "'k'"),
        ("exit", "SystemExit", "3"),
        ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("base", "BaseException", "b"),
        ("unprintable", "bad.Unprintable", "Unprintable"),
        ("stop", "StopIteration", "1"),
        ("group", "ExceptionGroup", "two"),
        ("long", "RuntimeError", "xxx"),
        ("surrogate", "RuntimeError", " and "),
        ("generator", "GeneratorExit", ""),
    ],
)
def test_whatever_a_job_raises_is_its_error(
    live: Live, code: str, place: str, unharmed: None, what: str, error_class: str, text: str
) -> None:
    reply = live.submit(code, "bad:raise_it", place, {"what": what}, timeout=20)
    error = error_of(reply)
    assert error["errorClass"] == error_class
    assert text in error["message"]
    assert len(reply.body) < 1_000_000
    assert live.job(reply.json["jobId"])["result"] == error


@pytest.mark.parametrize(
    ("main", "text"),
    [
        ("bad.ValidateRaises", "validate broke"),
        ("bad:spark_error", "ZeroDivisionError"),
        ("bad:exit_on_executor", "Python worker exited unexpectedly"),
        ("bad:recurse", "maximum recursion depth exceeded"),
    ],
)
def test_a_job_that_breaks_at_its_work_says_so(
    live: Live, code: str, place: str, unharmed: None, main: str, text: str
) -> None:
    assert text in error_of(live.submit(code, main, place))["message"]


# results


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("nan", [None, None, 1.5]),
        ("object", ["an opaque thing", "<class 'bad.Opaque'>", "/wA=", {"(1, 2)": "an opaque thing"}]),
        ("nul", "a\x00b"),
        ("surrogate", "\ud800"),
    ],
)
def test_what_json_does_not_know_has_a_plain_stand_in(
    live: Live, code: str, place: str, unharmed: None, what: str, result: Any
) -> None:
    reply = live.submit(code, "bad:returns", place, {"what": what})
    assert (reply.status, reply.json.get("result")) == (200, result), str(reply)
    assert live.job(reply.json["jobId"])["result"] == result


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("cycle", "the result contains itself"),
        ("deep", "nested deeper than"),
        ("huge", "the limit is"),
        ("silent", "str() of a Silent in the result failed"),
        ("number", "cannot be written as JSON"),
        ("frame", "collect()"),
    ],
)
def test_a_result_that_cannot_be_given_is_a_clear_error(
    live: Live, code: str, place: str, unharmed: None, what: str, text: str
) -> None:
    assert text in error_of(live.submit(code, "bad:returns", place, {"what": what}))["message"]


# jobs that harm the process they run in


@pytest.mark.parametrize(
    ("main", "result"),
    [
        ("rubbish", "printed"),
        ("deep_recursion", 200_000),
        ("change_settings", "79"),
        ("other_processes", [1, 2]),
        ("many_threads", 300),
        ("thread_raises", "fine"),
    ],
)
def test_a_job_that_behaves_oddly_harms_nobody(
    live: Live, code: str, place: str, unharmed: None, main: str, result: Any
) -> None:
    assert live.value(code, f"bad:{main}", place) == result


def test_others_can_print_after_a_job_closed_the_output(
    live: Live, code: str, place: str, unharmed: None
) -> None:
    assert live.value(code, "bad:close_output", place) == "closed"
    assert live.value(code, "bad:prints", place) == "printed"


def test_the_child_of_a_job_that_forks_neither_answers_nor_stays_nor_cuts_others_off(
    live: Live, code: str, place: str, unharmed: None, survives: None
) -> None:
    assert live.value(code, "bad:fork", place) == "parent"
    assert (
        live.eventually(lambda: live.value(code, "bad:is_alive", place), lambda alive: not alive, 10) is False
    )


@pytest.mark.parametrize("what", ["session", "context", "active"])
def test_a_stop_of_spark_by_a_job_is_ignored(
    live: Live, code: str, place: str, unharmed: None, what: str
) -> None:
    assert live.value(code, "bad:stop_spark", place, {"what": what}) == 3


@pytest.mark.parametrize(
    ("main", "config"),
    [
        ("die", {}),
        ("die_by_signal", {"signal": 15}),
        ("die_by_signal", {"signal": 11}),
        ("stop_spark", {"what": "java"}),
        ("stop_spark", {"what": "gateway"}),
        ("stop_spark", {"what": "jvm"}),
    ],
    ids=["exit", "SIGTERM", "SIGSEGV", "java-stop", "gateway", "jvm-exit"],
)
def test_a_job_that_ends_its_driver_fails_and_the_context_comes_back(
    live: Live, code: str, place: str, survives: None, main: str, config: dict[str, Any]
) -> None:
    begun = live.running(place)
    error = error_of(live.submit(code, f"bad:{main}", place, config, maxAttempts=1, timeout=90))
    assert error["message"]
    assert live.running(place)["epoch"] > begun["epoch"]


def test_memory_that_a_job_eats_is_given_back_or_refused(
    live: Live, code: str, place: str, unharmed: None
) -> None:
    assert live.value(code, "bad:eat", place, {"bytes": 300_000_000}) == 300_000_000
    assert "MemoryError" in error_of(live.submit(code, "bad:eat", place, {"bytes": 10**15}))["errorClass"]


def test_memory_that_a_job_eats_in_the_jvm_ends_the_job_at_most_the_driver(
    live: Live, code: str, place: str, survives: None
) -> None:
    error = error_of(live.submit(code, "bad:eat_in_jvm", place, maxAttempts=1, timeout=90))
    assert json.dumps(error)


def test_a_job_that_kills_every_driver_is_given_up_and_spares_the_others(
    live: Live, code: str, place: str, survives: None
) -> None:
    error = error_of(live.submit(code, "bad:die", place, timeout=200))
    assert "died in each of the 3 attempts" in error["message"]
