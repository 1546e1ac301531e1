"""A cluster whose checkpoints lie in HDFS: what is named is there after a failover, and each trouble of HDFS is borne.

One cluster with its own HDFS serves all tests; each leaves HDFS as it found it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_cluster import Live

from jobserver.local.processes import end_all, session_of

JOBS = """
import os
def make(spark, env, config):
    frame = env.named_objects.update(config["name"], lambda: spark.range(config["n"]).selectExpr("id", "id * 2 as twice"))
    env.named_objects.update(config["name"] + " value", lambda: {"rows": config["n"], "big": "x" * 100_000})
    return frame.count()

def read(spark, env, config):
    frame = env.named_objects.get(config["name"])
    value = env.named_objects.get(config["name"] + " value")
    return [frame.agg({"twice": "sum"}).first()[0], value["rows"], len(value["big"])]
"""


@pytest.fixture(scope="module")
def live(start_cluster, tmp_path_factory) -> Iterator[Live]:
    with start_cluster(
        tmp_path_factory.mktemp("on-hdfs"), servers=2, hdfs=True, ha={"standby": "cold"}
    ) as cluster:
        yield Live(cluster)


@pytest.fixture(scope="module")
def jobs(live: Live) -> str:
    return live.upload(JOBS)


@pytest.fixture(scope="module")
def context(live: Live) -> str:
    return live.context("on-hdfs")


def test_named_data_in_hdfs_survives_its_server_and_its_driver(live: Live, jobs: str, context: str) -> None:
    assert live.cluster.picture.checkpoint_root.startswith("hdfs://127.0.0.1:")
    assert live.value(jobs, "job:make", context, {"name": "kept", "n": 1000}) == 1000
    before = live.running(context)
    driver = live.driver(context)
    server = live.cluster.servers[before["owner"]].id
    assert not end_all([server, *session_of(driver)], grace=0)
    other = next(name for name in live.ids if name != before["owner"])
    assert live.value(jobs, "job:read", context, {"name": "kept"}, server=other) == [999_000, 1000, 100_000]
    assert live.running(context)["epoch"] > before["epoch"]
    live.cluster.start_server(before["owner"])
    assert not (live.cluster.layout.root / "checkpoints").exists()
