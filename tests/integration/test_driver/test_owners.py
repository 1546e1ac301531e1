"""Attempts, saved progress, adoption, and the next driver of the context: the last test ends the shared one."""

from __future__ import annotations

import json
from pathlib import Path

from driver_client import CONTEXT, DriverProcess, Running, eventually, is_running

from checkpoint import binaries
from checkpoint.epoch import begin_epoch
from test_driver.making import MAKE


def test_the_same_attempt_runs_once_and_an_older_one_never(running: Running) -> None:
    source = "def run(s, e, c): return 1"
    job = running.start(source, attempt=2)
    running.outcome(job)
    for attempt, code in ((2, "duplicate"), (1, "stale-attempt")):
        binary = running.uploads.python(source)
        answer = running.client.ask(
            "run", job_id=job, attempt=attempt, main_class="job:run", binaries=[binary], config="{}"
        )
        assert answer["refused"] == code


def test_a_saved_progress_is_found_by_the_next_attempt_and_the_older_saves_no_more(running: Running) -> None:
    save = """
def run(spark, env, config):
    env.commit({"done": 3}, {"part": lambda: "three"})
    env.progress.save({"done": 4})
    raise OSError
"""
    load = "def run(s, env, c): return [env.progress.load(), env.named_objects.get('part')]"
    job = running.start(save)
    assert running.client.event("finished", job)["kind"] == "failed"
    running.start(load, job=job, attempt=2)
    assert json.loads(running.outcome(job)["result"]) == [{"done": 4}, "three"]


def test_an_adopted_driver_keeps_its_jobs_and_lists_what_was_not_acknowledged(running: Running) -> None:
    done = running.start("def run(s, e, c): return 'done'")
    assert running.client.event("finished", done)["result"] == '"done"'  # and no ack
    slow = running.start(
        "import time\ndef run(s, e, c):\n e.progress.report(None)\n time.sleep(1)\n return 'slow'"
    )
    running.client.event("progress", slow)
    stale = running.process.connect()
    assert stale.ask("adopt", epoch=99, token="x", nonce="never given")["refused"] == "stale-nonce"
    newer = running.adopt()
    listed = {item["job_id"]: item["outcome"] for item in newer.adopted}
    assert listed[done]["result"] == '"done"'
    assert listed[slow] is None
    assert running.outcome(slow)["result"] == '"slow"'
    nonce = stale.ask("hello")["nonce"]
    assert stale.ask("adopt", epoch=1, token="x", nonce=nonce)["refused"] == "stale-epoch"
    assert stale.ask("kill", job_id=slow, attempt=1)["refused"] == "not-owner"
    assert stale.ask("shutdown", reason="no right")["refused"] == "not-owner"
    assert running.value(MAKE, name="after adoption", n=3) == [3, 1]
    stale.close()


def test_the_driver_tells_anybody_who_has_its_secret_whether_its_owner_is_gone(running: Running) -> None:
    witness = running.process.connect()
    told = witness.ask("ping")
    assert (told["epoch"], told["owner_lost"]) == (running.epoch, False)
    running.client.close()
    assert eventually(lambda: witness.ask("ping")["owner_lost"])
    running.adopt()
    told = witness.ask("ping")
    assert (told["epoch"], told["owner_lost"]) == (running.epoch, False)
    witness.close()


OWN_CLASS = """
class Point:
    def __init__(self, x):
        self.x = x
def make(spark, env, config):
    return env.named_objects.update("own class", lambda: Point(7)).x
"""
READ_OWN_CLASS = """
def run(spark, env, config):
    return [env.named_objects.get("own class").x, type(env.named_objects.get("own class")).__name__]
"""


def test_named_objects_are_restored_equal_in_the_next_driver(running: Running, tmp_path: Path) -> None:
    running.value(MAKE, name="kept", n=4)
    binary = running.uploads.python(OWN_CLASS)
    binaries.put(running.files, Path(binary["path"]).read_bytes())
    assert running.value(OWN_CLASS, "job:make") == 7
    root = str(running.files.url("x")).removeprefix("file://").removesuffix("/test/x")
    base = begin_epoch(running.files, "ctx-1", 50, "t50", b"cluster secret")
    process = DriverProcess(tmp_path, checkpoint_root=root)
    try:
        client = process.connect()
        assert client.ask("bind", context=CONTEXT)["ok"]
        assert client.ask("fill")["ok"]
        assert client.ask("activate", context=CONTEXT, epoch=50, token="t50", base=base.name)["ok"]
        older, running.client = running.client, client
        read = """
def run(spark, env, config):
    names = env.named_objects
    total = spark.sql("select sum(twice) s from kept").first().s
    cached = names.get("kept").storageLevel.useMemory
    return [total, cached, names.get("v"), names.get("r").count(), names.get("b").value]
"""
        assert running.value(read) == [12, True, {"a": [1, 2]}, 10, [1, 2, 3]]
        assert running.value(READ_OWN_CLASS) == [7, "Point"]
        running.client = older
        held = running.start("def run(s, e, c): e.named_objects.update('late', lambda: 1)")
        assert older.event("superseded", None)["epoch"] == 50
        assert running.client.ask("kill", job_id=held, attempt=1)["ok"]
        assert running.outcome(held)["kind"] == "killed"
        older.close()
        assert eventually(
            lambda: running.process.process.poll() is not None
        )  # another has taken over for good
        running.client = client
        running.start("import os\ndef run(s, e, c): os._exit(3)")
        assert process.process.wait(10) == 3  # a job may end the driver, but never leave its JVM behind
        assert eventually(lambda: not is_running(process.facts["jvm_pid"]), 5)
    finally:
        process.stop()
