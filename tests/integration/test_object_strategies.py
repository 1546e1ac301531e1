"""Strategies of named objects on real Spark: what comes back in the next driver, and what orders from outside do."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver_client import DriverClient, DriverProcess, Uploads, eventually

from checkpoint import binaries
from checkpoint.epoch import begin_epoch
from checkpoint.local import LocalFiles

CONTEXT = {"id": "ctx-1", "name": "shared", "settings": {}}
SECRET = b"cluster secret"
CODE = """
import shutil
from sparkjobserver.api import SparkJob

def write(spark, env, config):
    spark.range(config["rows"]).selectExpr("id", "id % 3 as k").write.mode("overwrite").parquet(config["path"])

def make(spark, env, config):
    names = env.named_objects
    files = names.update("files", lambda: spark.read.parquet(config["path"]), strategy="source")
    csv = names.update("local", lambda: spark.read.parquet(config["path"]))
    changed = names.update("changed", lambda: files.filter("k = 1"))
    noise = names.update("noise", lambda: spark.range(100).selectExpr("id", "rand() as r"), strategy="recipe")
    late = names.update("late", lambda: {"late": 1}, durability="async")
    names.update("dear", lambda: spark.range(5), strategy="none")
    return [files.count(), csv.count(), changed.count(), noise.count()]

class Words(SparkJob):
    def validate(self, context, runtime, config):
        return config["words"]
    def run_job(self, context, runtime, data):
        made = runtime.named_objects.get_or_create(
            "words", lambda: context.sparkContext.parallelize(data, 2).map(str.upper), strategy="recipe")
        runtime.named_objects.get_or_create("factor", lambda: context.sparkContext.broadcast(3), strategy="recipe")
        return made.count()

def refuse(spark, env, config):
    refused = []
    for build in (lambda: spark.range(3), lambda: 7, lambda: spark.read.parquet(config["path"]).limit(1)):
        try:
            env.named_objects.update("refused", build, strategy="source")
        except ValueError as error:
            refused.append("plain read" in str(error))
    return [refused, env.named_objects.names().count("refused")]

def replaced(spark, env, config):
    names, path, seen = env.named_objects, config["path"], []
    for rows in (10, 20, 30):
        spark.range(rows).coalesce(1).write.parquet(f"{path}-{rows}")
        shutil.rmtree(path, ignore_errors=True)  # not by Spark, which would forget what it has cached of the path
        shutil.copytree(f"{path}-{rows}", path)
        made = names.update(config["name"], lambda: spark.read.parquet(path), **config["options"])
        now = names.get(config["name"])
        seen.append([made.count(), now.count(), now.storageLevel.useMemory])
    return seen

def replaced_last(spark, env, config):
    made = env.named_objects.get(config["name"])
    return [made.count(), made.storageLevel.useMemory]

def total(spark, env, config):
    return spark.sql("select count(*) c, cast(sum(r) * 1e6 as long) s from noise").first().asDict()

def save(spark, env, config):
    env.progress.save(spark.range(7).selectExpr("id", "id * 2 as twice"))
    return env.progress.load().count()

def load(spark, env, config):
    saved = env.progress.load()
    saved.createOrReplaceTempView("saved")
    return [spark.sql("select sum(twice) from saved").first()[0], saved.columns]

def read(spark, env, config):
    names = env.named_objects
    return [names.get("files").count(), spark.table("changed").count(), spark.table("local").count(),
            names.get("late"), names.get("dear"), sorted(names.get("words").collect()), names.get("factor").value]
"""


class Epoch:
    """A driver that is active for one epoch of the context, and its owner's connection."""

    numbers = itertools.count(1)

    def __init__(self, process: DriverProcess, root: Path, uploads: Uploads) -> None:
        self.process, self.uploads = process, uploads
        self.files = LocalFiles(root / "test")
        number = next(self.numbers)
        base = begin_epoch(self.files, "ctx-1", number, f"t{number}", SECRET)
        self.client: DriverClient = process.connect()
        answer = self.client.ask(
            "activate", context=CONTEXT, epoch=number, token=f"t{number}", base=base.name
        )
        assert answer["ok"], answer

    def value(self, main: str, job: str = "", attempt: int = 1, **config: Any) -> Any:
        binary = self.uploads.python(CODE)
        binaries.put(self.files, CODE.encode())
        job = job or f"job-{next(self.numbers)}"
        fields = {"job_id": job, "attempt": attempt, "main_class": main, "config": json.dumps(config)}
        answer = self.client.ask("run", binaries=[binary], **fields)
        assert answer["ok"], answer
        event = self.client.event("finished", job)
        assert event["kind"] == "finished", event["error"]
        return json.loads(event["result"])

    def order(self, name: str, do: str = "show", seconds: float = 60.0, version: str = "") -> dict[str, Any]:
        return self.client.ask("object", name=name, do=do, seconds=seconds, version=version)

    def shown(self, name: str) -> dict[str, Any]:
        answer = self.order(name)
        assert answer["ok"], answer
        return dict(answer["object"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def epochs(root: Path) -> Iterator[tuple[Epoch, Epoch, Any]]:
    """Two drivers after one another, and what the first saw of its random object."""
    checkpoints, uploads = root / "checkpoints", Uploads(root / "uploads")
    settings = {"checkpoint_root": str(checkpoints), "async_interval": 0.2}
    first = DriverProcess(root / "first", **settings)
    second = None
    try:
        one = Epoch(first, checkpoints, uploads)
        one.value("job:write", path=str(root / "data"), rows=30)
        for _ in range(2):
            assert one.value("job:make", path=str(root / "data")) == [30, 30, 10, 100]
        assert one.value("job.Words", words=["a", "b"]) == 2
        assert one.value("job:refuse", path=str(root / "data")) == [[True, True, True], 0]
        seen = one.value("job:total")
        assert one.value("job:save", job="saver") == 7
        second = DriverProcess(root / "second", **settings)
        assert eventually(lambda: one.shown("late")["checkpointed"])
        yield one, Epoch(second, checkpoints, uploads), seen
    finally:
        for process in (first, second):
            if process is not None:
                process.stop()


def test_damage_of_one_object_is_told_and_an_older_version_is_offered_and_taken(
    epochs: tuple[Epoch, Epoch, Any], root: Path
) -> None:
    _, two, _ = epochs
    newest = two.shown("changed")["version"]
    data = root / "checkpoints" / "test" / "ctx-1" / "objects" / "changed" / newest
    next(data.glob("part-*.parquet")).unlink()
    with pytest.raises(AssertionError, match=f"'changed' .*{newest}.* is damaged"):
        two.value("job:read")
    shown = two.shown("changed")
    assert (shown["state"], shown["recipe"]) == ("damaged", True)
    assert {each["state"] for each in two.client.ask("objects")["objects"] if each["name"] != "changed"} <= {
        "live",
        "stored",
    }
    (older,) = [each["version"] for each in shown["older_versions"]]
    answer = two.order("changed", "revert", version=older)
    assert answer["ok"], answer
    assert (answer["object"]["version"], answer["object"]["state"]) == (older, "live")


def test_what_each_strategy_brings_back(epochs: tuple[Epoch, Epoch, Any], root: Path) -> None:
    _, two, seen = epochs
    strategies = {item["name"]: item["strategy"] for item in two.client.ask("objects")["objects"]}
    assert strategies == {
        "files": "source", "local": "materialize", "changed": "materialize", "noise": "recipe",
        "late": "materialize", "words": "recipe", "factor": "recipe",
    }  # fmt: skip
    assert two.value("job:read") == [30, 10, 30, {"late": 1}, None, ["A", "B"], 3]
    again = two.value("job:total")
    assert (again["c"], again["s"] != seen["s"]) == (100, True)
    assert two.value("job:total") == again, "what was made again is made once"
    rebuilt = {name: two.shown(name)["rebuilt"] for name in ("files", "local", "noise", "words")}
    assert rebuilt == {"files": False, "local": False, "noise": True, "words": True}
    assert [field["name"] for field in two.shown("files")["schema"]] == ["id", "k"]


@pytest.mark.parametrize("name", ["local", "files"])
def test_what_was_cached_is_cached_again_a_little_after_the_failover(
    epochs: tuple[Epoch, Epoch, Any], name: str
) -> None:
    _, two, _ = epochs
    assert eventually(lambda: two.value("job:replaced_last", name=name) == [30, True])
    assert two.shown(name)["rows"] == 30


def test_a_source_is_read_again_when_it_is_asked_for_and_shows_that_its_files_changed(
    epochs: tuple[Epoch, Epoch, Any], root: Path
) -> None:
    _, two, _ = epochs
    two.value("job:write", path=str(root / "data"), rows=60)
    before = two.shown("files")["version"]
    answer = two.order("files", "refresh")
    assert answer["ok"], answer
    assert (answer["object"]["refreshing"], answer["object"]["version"] > before) == (False, True)
    assert two.value("job:read")[0] == 60
    two.value("job:write", path=str(root / "newer"), rows=90)
    shutil.rmtree(root / "data")
    (root / "newer").rename(root / "data")  # not by Spark, which would forget what it has cached of the path
    assert two.order("files", "refresh")["ok"]
    assert two.value("job:read")[0] == 90
    refused = two.order("local", "refresh")
    assert (refused["refused"], "can be refreshed" in refused["message"]) == ("cannot", True)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "source"},
        {"strategy": "recipe"},
        {"strategy": "none"},
        {"strategy": "materialize", "durability": "async"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_each_version_has_rows_and_a_cache_of_its_own(
    epochs: tuple[Epoch, Epoch, Any], root: Path, options: dict[str, str]
) -> None:
    _, two, _ = epochs
    name = "replaced-" + "-".join(options.values())
    answers = two.value("job:replaced", path=str(root / name), name=name, options=options)
    assert answers == [[rows, rows, True] for rows in (10, 20, 30)]
    assert two.value("job:replaced_last", name=name) == [30, True], "its predecessors were freed, it was not"


def test_a_dataframe_that_a_job_saved_of_itself_is_there_for_its_next_attempt(
    epochs: tuple[Epoch, Epoch, Any],
) -> None:
    assert epochs[1].value("job:load", job="saver", attempt=2) == [42, ["id", "twice"]]
