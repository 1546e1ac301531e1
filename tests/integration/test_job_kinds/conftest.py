"""A cluster of two servers with one context and its data, for all kinds of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from live_cluster import Live

CODE = """
def build(spark, env, config):
    frame = spark.range(100).selectExpr("id", "id % 4 as part", "cast(id as string) as name")
    env.named_objects.update("Rows Of All", lambda: frame)
    env.named_objects.update("amounts", lambda: frame)
    return frame.count()
"""


LARGE = """
import time

def large(spark, env, config):
    return "x" * config["size"]

def long_tasks(spark, env, config):
    spark.sparkContext.parallelize(range(10_000), 10_000).map(lambda x: time.sleep(0.02)).count()

def nothing(spark, env, config):
    return None

def sleeps(spark, env, config):
    while True:
        time.sleep(0.1)
"""


@pytest.fixture(scope="package")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with start_cluster(tmp_path_factory.mktemp("kinds"), servers=2, ha={"standby": "cold"}) as running:
        yield Live(running)


@pytest.fixture(scope="package")
def context(live: Live) -> str:
    name = live.context("kinds")
    code = live.upload(CODE, name="kinds_code")
    assert live.value(code, "kinds_code:build", name) == 100
    return name


@pytest.fixture(scope="package")
def large(live: Live, context: str) -> str:
    return live.upload(LARGE, name="large")
