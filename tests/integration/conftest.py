"""Real parts for integration tests: Java, ZooKeeper, and whole clusters of server processes.

Everything listens on the loopback address, lives below pytest's temporary directories and ends with its fixture.
"""

import contextlib
import os
from pathlib import Path

import pytest

from jobserver.cli.db import upgrade_url
from jobserver.local import zookeeper as zk
from jobserver.local.hdfs import LocalHdfs, fetch_jar
from jobserver.local.java import find_java
from jobserver.local.ports import busy_ports, free_ports
from jobserver.local.up import LocalCluster, Plan

SHORT_LIVED = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
"""Spark's settings for drivers that end within minutes: the optimizing compiler would take more than it gives."""


@pytest.fixture(scope="session")
def java() -> Path:
    """The java command."""
    return find_java().command


@pytest.fixture(scope="session")
def zookeeper(java, tmp_path_factory):
    """One ZooKeeper node for all tests that only need one to talk to; `.address` is its host:port."""
    node = zk.single(tmp_path_factory.mktemp("zookeeper"), free_ports(1)[0])
    zk.start_all([node], java)
    yield node
    node.stop(grace=0)


@pytest.fixture
def own_zookeeper(java, tmp_path):
    """A ZooKeeper node that a test may stop and start again (`stop()`, `launch(java)`, `wait_serving()`)."""
    node = zk.single(tmp_path / "zookeeper", free_ports(1)[0])
    zk.start_all([node], java)
    yield node
    node.stop(grace=0)


@pytest.fixture
def zookeeper_ensemble(java, tmp_path):
    """Three nodes that make one ensemble; a test may stop any of them."""
    nodes = zk.ensemble(tmp_path / "ensemble", 3)
    zk.start_all(nodes, java)
    yield nodes
    for node in nodes:
        node.stop(grace=0)


@pytest.fixture(scope="session")
def hdfs_jar(java) -> Path:
    """The jar that holds NameNode and DataNode; fetched once per user."""
    return fetch_jar(java)


@pytest.fixture(scope="session")
def hdfs(java, hdfs_jar, tmp_path_factory):
    """One HDFS for all tests that leave it as they found it; each writes below a folder of its own."""
    running = LocalHdfs(tmp_path_factory.mktemp("hdfs"))
    running.start(java, hdfs_jar)
    yield running
    running.stop(grace=0)


@pytest.fixture(scope="session")
def start_cluster():
    """`with start_cluster(folder, servers=3, ha={...}) as cluster`: a local cluster; sections are its settings."""

    @contextlib.contextmanager
    def start(folder: Path, servers: int = 3, hdfs: bool = False, **sections):
        driver = sections.get("driver", {})
        driver = {**driver, "spark_conf": {**SHORT_LIVED, **driver.get("spark_conf", {})}}
        plan = Plan(folder, servers, _row_of_ports(servers), {**sections, "driver": driver}, hdfs=hdfs)
        with LocalCluster(plan, prepare_database=upgrade_url) as cluster:
            yield cluster

    return start


@pytest.fixture(scope="module")
def cluster(start_cluster, tmp_path_factory):
    """Three servers for the tests of one module, without warm drivers (memory)."""
    with start_cluster(tmp_path_factory.mktemp("cluster"), ha={"standby": "cold"}) as running:
        yield running


@pytest.fixture(scope="session")
def row_of_ports():
    """`row_of_ports(3)`: the first of free ports in a row, below the range from which connections get theirs."""
    return _row_of_ports


def _row_of_ports(count: int) -> int:
    # Each process of a parallel run has a range of its own: a port is free until its server listens.
    mine = 18000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return next(
        first for first in range(mine, mine + 1000, 20) if not busy_ports(range(first, first + count))
    )
