"""The cache of a DataFrame that is filled beside the queries on it."""

from __future__ import annotations

from pathlib import Path

from driver_client import Running

FILLING = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor
from pyspark import StorageLevel
from jobserver.driver.aside_cache import fill_aside

def kept(spark):
    return set(spark.sparkContext._jsc.getPersistentRDDs().keySet())

def fill(spark, frame):
    return fill_aside(spark._spark, frame, StorageLevel.MEMORY_ONLY)

class Held:
    \"\"\"A DataFrame whose first reader waits in the middle of it until `meanwhile` is over; each row read leaves a mark.\"\"\"

    def __init__(self, spark, folder):
        self.begun, self.go, self.reads = (os.path.join(folder, name) for name in ("begun", "go", "reads"))
        begun, go, reads = self.begun, self.go, self.reads

        def read(row):
            with open(reads, "a") as marks:
                marks.write(".")
            try:
                os.close(os.open(begun, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return row
            while not os.path.exists(go):  # it runs in a process of Spark's, which shares only files with the job
                time.sleep(0.01)
            return row

        rows = spark.sparkContext.parallelize([(1, "a"), (2, "b")], 1).map(read)
        self.frame = spark._spark.root.createDataFrame(rows, "n int, text string")

    def filled(self, spark, meanwhile):
        with ThreadPoolExecutor(1) as pool:
            filling = pool.submit(fill, spark, self.frame)
            try:
                while not os.path.exists(self.begun):  # made by that process; a fill that fails before it ends this
                    assert not filling.done(), filling.result()
                    time.sleep(0.01)
                seen = meanwhile()
            finally:
                open(self.go, "w").close()
            return seen, filling.result()

def beside_a_query(spark, env, config):
    before, held = kept(spark), Held(spark, config["folder"])
    frame = held.frame
    seen, rows = held.filled(
        spark, lambda: [[row.n for row in frame.collect()], frame.storageLevel.useMemory])
    read = os.path.getsize(held.reads)
    after = [frame.groupBy().sum("n").first()[0], spark.adopt_frame(frame).where("n = 2").first().text]
    answer = {"meanwhile": seen, "rows": rows, "cached": frame.storageLevel.useMemory, "after": after,
              "read again": os.path.getsize(held.reads) - read}
    frame.unpersist(True)
    return {**answer, "left": len(kept(spark) - before), "still cached": frame.storageLevel.useMemory}

def beside_a_cache(spark, env, config):
    before, held = kept(spark), Held(spark, config["folder"])
    seen, rows = held.filled(spark, lambda: held.frame.persist().count())
    theirs = held.frame.storageLevel.useDisk
    there = len(kept(spark) - before)
    held.frame.unpersist(True)
    return [seen, rows, theirs, there]

def failing(spark, env, config):
    before = kept(spark)
    rows = spark.sparkContext.parallelize([1, 0], 2).map(lambda n: (1 // n,))
    frame = spark._spark.root.createDataFrame(rows, "n int")
    try:
        fill(spark, frame)
    except Exception as error:
        return ["ZeroDivisionError" in str(error), frame.storageLevel.useMemory, len(kept(spark) - before)]

def cached_before(spark, env, config):
    frame = spark._spark.root.range(7).where("id > 0").persist()
    before = kept(spark)
    rows, theirs = fill(spark, frame), frame.storageLevel.useDisk
    there = len(kept(spark) - before)
    frame.unpersist(True)
    return [rows, theirs, there]

def settings(spark, env, config):
    root = spark._spark.root
    with open(config["path"], "w") as file:
        file.write("2020-1-5\\n")
    root.conf.set("spark.sql.legacy.timeParserPolicy", "LEGACY")
    try:
        frame = root.read.schema("day date").option("dateFormat", "yyyy-MM-dd").csv(config["path"])
        seen = [str(frame.first().day)]
        fill(spark, frame)
        seen += [str(frame.first().day), frame.storageLevel.useMemory]
        frame.unpersist(True)
        return seen
    finally:
        root.conf.unset("spark.sql.legacy.timeParserPolicy")
"""


def test_queries_do_not_wait_for_a_cache_that_is_being_filled_and_read_it_once_it_is_full(
    running: Running, tmp_path: Path
) -> None:
    assert running.value(FILLING, "job:beside_a_query", folder=str(tmp_path)) == {
        "meanwhile": [[1, 2], False],
        "rows": 2,
        "cached": True,
        "after": [3, "b"],
        "read again": 0,
        "left": 0,
        "still cached": False,
    }


def test_what_a_job_caches_itself_meanwhile_stays_and_is_there_once(running: Running, tmp_path: Path) -> None:
    assert running.value(FILLING, "job:beside_a_cache", folder=str(tmp_path)) == [2, 2, True, 1]


def test_a_cache_that_cannot_be_filled_leaves_nothing(running: Running) -> None:
    assert running.value(FILLING, "job:failing") == [True, False, 0]


def test_what_a_job_has_cached_before_is_filled_and_not_cached_twice(running: Running) -> None:
    assert running.value(FILLING, "job:cached_before") == [6, True, 1]


def test_what_is_cached_is_what_queries_read_under_the_same_settings(
    running: Running, tmp_path: Path
) -> None:
    seen = running.value(FILLING, "job:settings", path=str(tmp_path / "days.csv"))
    assert seen == ["2020-01-05", "2020-01-05", True]
