"""Executors in processes of their own, as on a cluster: what jobs bring must get there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest
from driver_client import DriverProcess, Running

SETTINGS = {
    "spark.master": "local-cluster[1,2,512]",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "2",
}
WORKER = {
    "SPARK_HOME": str(Path(pyspark.__file__).parent),
    "SPARK_SCALA_VERSION": "2.13" if pyspark.__version__ >= "4" else "2.12",
    "SPARK_LOCAL_IP": "127.0.0.1",
}
"""What a Spark Worker finds in its environment."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("driver")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WORKER.items():
            patch.setenv(name, value)
        process = DriverProcess(folder, spark_conf=SETTINGS)
    try:
        assert "error" not in process.facts, process.facts
        yield Running(process, folder)
    finally:
        process.stop()


JOB = """
import os
from pyspark.sql.functions import udf
from pkg.core import add

def run(spark, env, config):
    def added(value):
        from pkg import core
        return add(value) + core.add(value)
    rows = [row[0] for row in spark.range(2).select(udf(added, "long")("id")).collect()]
    numbers = spark.sparkContext.parallelize([0, 1], 2)
    return [rows, numbers.map(added).collect(), numbers.map(lambda _: os.getppid()).first() != os.getpid()]
"""


def test_functions_of_dataframes_and_of_rdds_find_their_own_version_of_a_module(running: Running) -> None:
    def version(number: int) -> dict[str, str]:
        core = f"def add(x):\n    return x + {number}\n"
        return running.uploads.wheel({"pkg/__init__.py": "", "pkg/core.py": core, "job.py": JOB})

    for _ in range(2):
        assert running.value(version(1)) == [[2, 4], [2, 4], True]
        assert running.value(version(10)) == [[20, 22], [20, 22], True]
