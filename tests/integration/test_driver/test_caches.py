"""The cache of a DataFrame that is filled beside the queries on it."""

from __future__ import annotations

from pathlib import Path

from driver_client import Running

FILL = '''
import os, threading, time
from pyspark import StorageLevel
from jobserver.driver.aside_cache import fill_aside

def run(spark, env, config):
    begun, go, reads = (os.path.join(config["folder"], name) for name in ("begun", "go", "reads"))

    def read(row):
        """What reads first waits in the middle of it; each read leaves a mark."""
        with open(reads, "a") as marks:
            marks.write(".")
        try:
            os.close(os.open(begun, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return row
        while not os.path.exists(go):
            time.sleep(0.01)
        return row

    root = spark._spark.root
    frame = root.createDataFrame(spark.sparkContext.parallelize([(1, "a"), (2, "b")], 1).map(read), "n int, text string")
    rows = []
    fill = threading.Thread(target=lambda: rows.append(fill_aside(spark._spark, frame, StorageLevel.MEMORY_ONLY)))
    fill.start()
    while not os.path.exists(begun):
        time.sleep(0.01)
    meanwhile = [[row.n for row in frame.collect()], frame.storageLevel.useMemory]
    open(go, "w").close()
    fill.join()
    read_before = os.path.getsize(reads)
    after = [frame.groupBy().sum("n").first()[0], spark.adopt_frame(frame).where("n = 2").first().text]
    answer = {"meanwhile": meanwhile, "rows": rows, "cached": frame.storageLevel.useMemory, "after": after,
              "read again": os.path.getsize(reads) - read_before}
    frame.unpersist(True)
    return {**answer, "freed": [frame.storageLevel.useMemory, spark.sparkContext._jsc.getPersistentRDDs().size()]}
'''


def test_queries_do_not_wait_for_a_cache_that_is_being_filled_and_read_it_once_it_is_full(
    running: Running, tmp_path: Path
) -> None:
    kept = running.value(
        "def run(spark, env, config): return spark.sparkContext._jsc.getPersistentRDDs().size()"
    )
    assert running.value(FILL, folder=str(tmp_path)) == {
        "meanwhile": [[1, 2], False],
        "rows": [2],
        "cached": True,
        "after": [3, "b"],
        "read again": 0,
        "freed": [False, kept],
    }


FAIL = """
from pyspark import StorageLevel
from jobserver.driver.aside_cache import fill_aside

def run(spark, env, config):
    frame = spark._spark.root.createDataFrame(spark.sparkContext.parallelize([1, 0], 2).map(lambda n: (1 // n,)), "n int")
    try:
        fill_aside(spark._spark, frame, StorageLevel.MEMORY_ONLY)
    except Exception as error:
        return ["ZeroDivisionError" in str(error), frame.storageLevel.useMemory,
                spark.sparkContext._jsc.getPersistentRDDs().size()]
"""


def test_a_cache_that_cannot_be_filled_leaves_nothing(running: Running) -> None:
    kept = running.value(
        "def run(spark, env, config): return spark.sparkContext._jsc.getPersistentRDDs().size()"
    )
    assert running.value(FAIL) == [True, False, kept]


CACHED = """
from pyspark import StorageLevel
from jobserver.driver.aside_cache import fill_aside

def run(spark, env, config):
    frame = spark._spark.root.range(7).where("id > 0")
    frame.persist()
    before = spark.sparkContext._jsc.getPersistentRDDs().size()
    answer = [fill_aside(spark._spark, frame, StorageLevel.MEMORY_ONLY), frame.storageLevel.useDisk]
    grown = spark.sparkContext._jsc.getPersistentRDDs().size() - before
    frame.unpersist(True)
    return [*answer, grown]
"""


def test_what_a_job_has_cached_itself_is_filled_and_not_cached_twice(running: Running) -> None:
    assert running.value(CACHED) == [6, True, 1]
