"""A cluster whose checkpoints lie in HDFS: what is named is there after a failover, and each trouble of HDFS is borne.

One cluster, which is an ordinary user there, with its own HDFS serves all tests; each leaves HDFS as it found it.
"""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hdfs import InsecureClient
from live_cluster import Live
from test_hdfs_store import corrupt_block, refusal_in_the_end

from checkpoint import catalog, layout
from checkpoint.errors import Corrupt
from checkpoint.files import FileStore
from checkpoint.stores import HdfsAccess, open_store
from jobserver.local.hdfs import LocalHdfs
from jobserver.local.java import spark_jars
from jobserver.local.processes import end_all, session_of

USER = "jobs"
"""Who the cluster is in HDFS. The superuser is who started it: the tests themselves."""

JOBS = """
def make(spark, env, config):
    frame = env.named_objects.update(config["name"], lambda: spark.range(config["n"]).selectExpr("id", "id * 2 as twice"))
    env.named_objects.update(config["name"] + " value", lambda: {"rows": config["n"], "big": "x" * 100_000})
    return frame.count()

def put(spark, env, config):
    return env.named_objects.update(config["name"], lambda: config["value"], durability=config.get("durability", "sync"))

def get(spark, env, config):
    return env.named_objects.get(config["name"])

def frame(spark, env, config):
    env.named_objects.update(config["name"], lambda: spark.range(config["n"]))
    return env.named_objects.get(config["name"]).count()

def count(spark, env, config):
    return spark.range(config["n"]).count()

def read(spark, env, config):
    frame = env.named_objects.get(config["name"])
    value = env.named_objects.get(config["name"] + " value")
    return [frame.agg({"twice": "sum"}).first()[0], value["rows"], len(value["big"])]
"""


@pytest.fixture(scope="module")
def live(start_cluster, tmp_path_factory) -> Iterator[Live]:
    with start_cluster(
        tmp_path_factory.mktemp("on-hdfs"),
        servers=2,
        hdfs=True,
        ha={"standby": "cold"},
        webhdfs={"user": USER},
        access={"proxy_users": "named"},
    ) as cluster:
        yield Live(cluster)


@pytest.fixture(scope="module")
def jobs(live: Live) -> str:
    return live.upload(JOBS)


@pytest.fixture(scope="module")
def context(live: Live) -> str:
    return live.context("on-hdfs")


@contextmanager
def unwritable(live: Live, folder: str) -> Iterator[None]:
    """The superuser takes the right to write from all folders below one, and gives it back."""
    superuser = InsecureClient(live.cluster.hdfs.web_url, user=getpass.getuser())

    def permit(mode: str) -> None:
        for path, _, _ in list(superuser.walk(folder)):
            superuser.set_permission(path, mode)

    permit("555")
    try:
        yield
    finally:
        permit("755")


def stored(live: Live, name: str) -> tuple[FileStore, str]:
    """The store, and the path in it of the first data file of a named object."""
    access = HdfsAccess((live.cluster.hdfs.web_url,))
    files = open_store(live.cluster.picture.checkpoint_root, "default", access)
    (context_id,) = catalog.contexts(files)
    item = catalog.find(
        files, context_id, live.cluster.layout.secret.read_text().strip().encode()
    ).base.objects[name]
    part = next(entry.name for entry in item.files if entry.name.startswith(("part-", "value")))
    return files, layout.in_context(context_id, f"{item.path}/{part}")


def delete_one_file(live: Live, name: str) -> None:
    """As an operator's mistake would: a data file of an object is gone from HDFS."""
    files, path = stored(live, name)
    files.remove(path)


def corrupt_one_file(live: Live, name: str) -> None:
    """As a bad disk would, once the NameNode has been told."""
    files, path = stored(live, name)
    corrupt_block(live.cluster.hdfs, files.read(path))
    assert isinstance(refusal_in_the_end(files, path), Corrupt)


def test_named_data_in_hdfs_survives_its_server_and_its_driver(live: Live, jobs: str, context: str) -> None:
    assert live.cluster.picture.checkpoint_root.startswith("hdfs://127.0.0.1:")
    assert live.value(jobs, "job:make", context, {"name": "kept", "n": 1000}) == 1000
    assert live.value(jobs, "job:make", context, {"name": "spoilt", "n": 10}) == 10
    assert live.value(jobs, "job:put", context, {"name": "rotten", "value": "y" * 100_000}) is not None
    delete_one_file(live, "spoilt")
    corrupt_one_file(live, "rotten")
    before = live.running(context)
    driver = live.driver(context)
    server = live.cluster.servers[before["owner"]].id
    assert not end_all([server, *session_of(driver)], grace=0)
    other = next(name for name in live.ids if name != before["owner"])
    assert live.value(jobs, "job:read", context, {"name": "kept"}, server=other) == [999_000, 1000, 100_000]
    assert live.running(context)["epoch"] > before["epoch"]
    for name, function in (("spoilt", "job:read"), ("rotten", "job:get")):
        damaged = live.ended(live.start(jobs, function, context, {"name": name}, server=other))
        assert damaged["status"] == "ERROR"
        assert "is damaged" in damaged["result"]["message"], damaged["result"]
    states = {item["name"]: item["state"] for item in live.get(f"/contexts/{context}/objects", other)}
    assert (states["spoilt"], states["rotten"], states["kept"]) == ("damaged", "damaged", "live")
    live.eventually(lambda: metric(live, "damaged_objects"), lambda count: count == 2)
    live.cluster.start_server(before["owner"])
    assert not (live.cluster.layout.root / "checkpoints").exists()


@pytest.fixture
def hdfs(live: Live, context: str) -> LocalHdfs:
    live.running(context)
    return live.cluster.hdfs


def put(live: Live, jobs: str, context: str, value: Any, **more: str) -> dict[str, Any]:
    """The outcome of a job that updates `x`."""
    return live.ended(live.start(jobs, "job:put", context, {"name": "x", "value": value, **more}))


def get(live: Live, jobs: str, context: str) -> Any:
    return live.value(jobs, "job:get", context, {"name": "x"})


def trouble_of(live: Live, kind: str) -> float:
    """How often that kind of trouble was met."""
    return metric(live, f"trouble_{kind}")


def metric(live: Live, what: str) -> float:
    """What all servers' metrics tell of the checkpoint store."""
    told = [live.ask("GET", "/metrics", server=server).body.decode() for server in live.ids]
    name = f"jobserver_checkpoint_{what} "
    lines = [line for text in told for line in text.splitlines() if line.startswith(name)]
    assert len(lines) == len(live.ids)
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def sealed(live: Live, context: str, name: str) -> bool:
    """Whether the newest version of an object is in the checkpoint."""
    found = [item for item in live.get(f"/contexts/{context}/objects") if item["name"] == name]
    return bool(found) and found[0]["checkpointed"]


def borne(live: Live, jobs: str, context: str, words: str, kind: str) -> None:
    """While HDFS takes no writes: reading goes on, `sync` fails with a sentence, `async` goes on and is not sealed yet."""
    before = trouble_of(live, kind)
    old = get(live, jobs, context)
    failed = put(live, jobs, context, "too late")
    assert failed["status"] == "ERROR", failed
    assert words in failed["result"]["message"], failed["result"]["message"]
    assert get(live, jobs, context) == old
    assert put(live, jobs, context, "caught up", durability="async")["status"] == "FINISHED"
    assert get(live, jobs, context) == "caught up"
    assert not sealed(live, context, "x")
    live.eventually(lambda: trouble_of(live, kind), lambda count: count > before)


def healed(live: Live, jobs: str, context: str) -> None:
    """After the trouble: what was async is sealed by itself, and `sync` works."""
    live.eventually(lambda: sealed(live, context, "x"), bool)
    assert get(live, jobs, context) == "caught up"
    assert put(live, jobs, context, "good again")["status"] == "FINISHED"
    assert get(live, jobs, context) == "good again"


def behind(live: Live, context: str) -> int:
    """Objects that wait to be sealed, as the driver told with its last answer to a ping."""
    return int(live.get(f"/contexts/{context}")["data"]["behind"]["objects"])


def dfsadmin(live: Live, hdfs: LocalHdfs, *words: str) -> None:
    """What `hdfs dfsadmin` does."""
    jar, java = hdfs_jar_of(live)
    subprocess.run(
        [
            java, "-cp", f"{hdfs.directory / 'conf'}:{spark_jars()}/*:{jar}",
            "org.apache.hadoop.hdfs.tools.DFSAdmin", *words,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip


def hdfs_jar_of(live: Live) -> tuple[Path, Path]:
    from jobserver.local.hdfs import fetch_jar
    from jobserver.local.java import find_java

    java = find_java().command
    return fetch_jar(java), java


def root_of(live: Live) -> str:
    """The context's data below the root of HDFS."""
    return "/jobserver/default"


class TestTroubleOfHdfs:
    @pytest.fixture(autouse=True)
    def good(self, live: Live, jobs: str, context: str) -> None:
        live.running(context)
        assert put(live, jobs, context, "good")["status"] == "FINISHED"

    def test_a_namenode_that_is_down_and_comes_back(
        self, live: Live, hdfs: LocalHdfs, jobs: str, context: str
    ) -> None:
        jar, java = hdfs_jar_of(live)
        assert hdfs.namenode is not None
        assert not end_all([hdfs.namenode.id], grace=0)
        borne(live, jobs, context, "no answer from HDFS", "away")
        hdfs.start_namenode(java, jar)
        hdfs.wait_serving()
        healed(live, jobs, context)

    def test_a_datanode_that_was_killed_and_started_again(
        self, live: Live, hdfs: LocalHdfs, jobs: str, context: str
    ) -> None:
        jar, java = hdfs_jar_of(live)
        assert hdfs.datanode is not None
        assert not end_all([hdfs.datanode.id], grace=0)
        borne(live, jobs, context, "HDFS", "away")
        hdfs.start_datanode(java, jar)
        hdfs.wait_serving()
        healed(live, jobs, context)

    def test_safe_mode(self, live: Live, hdfs: LocalHdfs, jobs: str, context: str) -> None:
        dfsadmin(live, hdfs, "-safemode", "enter")
        try:
            borne(live, jobs, context, "HDFS is in safe mode and takes no writes", "safe_mode")
        finally:
            dfsadmin(live, hdfs, "-safemode", "leave")
        healed(live, jobs, context)

    def test_a_full_quota(self, live: Live, hdfs: LocalHdfs, jobs: str, context: str) -> None:
        dfsadmin(live, hdfs, "-setQuota", "1", root_of(live))
        try:
            borne(live, jobs, context, "HDFS has no room left", "full")
        finally:
            dfsadmin(live, hdfs, "-clrQuota", root_of(live))
        healed(live, jobs, context)

    def test_a_folder_that_the_user_may_not_write(self, live: Live, jobs: str, context: str) -> None:
        rows = {"name": "rows", "n": 10}
        assert live.value(jobs, "job:frame", context, rows) == 10
        folder = f"{root_of(live)}/{live.seen(context)['id']}"
        denied = f'HDFS refuses this user: Permission denied: user={USER}, access=WRITE, inode="{folder}'
        with unwritable(live, folder):
            borne(live, jobs, context, denied, "refused")
            failed = live.ended(live.start(jobs, "job:frame", context, rows | {"n": 20}))
            assert failed["status"] == "ERROR"
            assert denied in failed["result"]["message"], failed
            live.eventually(lambda: behind(live, context), lambda objects: objects == 1)
            assert live.value(jobs, "job:count", context, {"n": 30}) == 30
        healed(live, jobs, context)
        assert live.value(jobs, "job:frame", context, rows | {"n": 20}) == 20
        live.eventually(lambda: behind(live, context), lambda objects: objects == 0)


JOES = """
def make(spark, env, config):
    for number in range(2):
        env.named_objects.update("rows", lambda: spark.range(config["n"] + number))
    env.named_objects.update("pickled", lambda: spark.sparkContext.parallelize(range(5), 2))
    return spark.sparkContext.sparkUser()

def age(spark, env, config):
    for number in range(32):
        env.named_objects.update("young", lambda: number)
    return env.named_objects.get("rows").count()

def read(spark, env, config):
    objects = env.named_objects
    return [spark.sparkContext.sparkUser(), objects.get("rows").count(), objects.get("pickled").sum()]

def write(spark, env, config):
    spark.range(3).write.mode("overwrite").parquet(config["url"])
"""


@pytest.fixture(scope="module")
def code(live: Live) -> str:
    return live.upload(JOES)


@pytest.fixture(scope="module")
def joes(live: Live) -> str:
    return live.context("joes", **{"spark.proxy.user": "joe"})


class TestForAnotherUser:
    """A context whose Spark is joe in HDFS, where the servers are an ordinary user, too."""

    def versions(self, live: Live, joes: str) -> dict[str, str]:
        """The folders of the versions of `rows`, and whose they are."""
        superuser = InsecureClient(live.cluster.hdfs.web_url, user=getpass.getuser())
        folder = f"/jobserver/default/{live.seen(joes)['id']}/objects/rows"
        return {name: status["owner"] for name, status in superuser.list(folder, status=True)}

    def test_spark_s_files_are_his_the_sweep_removes_them_and_a_new_driver_restores_them(
        self, live: Live, code: str, joes: str
    ) -> None:
        assert live.value(code, "job:make", joes, {"n": 100}) == "joe"
        written = self.versions(live, joes)
        assert list(written.values()) == ["joe"] * 2
        assert live.value(code, "job:age", joes) == 101
        swept = live.eventually(lambda: self.versions(live, joes), lambda left: len(left) == 1)
        assert swept.keys() < written.keys()
        before = live.running(joes)
        assert not end_all(session_of(live.driver(joes)), grace=0)
        assert live.value(code, "job:read", joes) == ["joe", 101, 10]
        assert live.running(joes)["epoch"] > before["epoch"]

    def test_he_may_write_what_is_his_and_not_what_is_the_servers(
        self, live: Live, code: str, joes: str
    ) -> None:
        hdfs = live.cluster.hdfs
        hdfs.give("/home/joe", "joe")
        live.value(code, "job:write", joes, {"url": f"{hdfs.url}/home/joe/out"})
        superuser = InsecureClient(hdfs.web_url, user=getpass.getuser())
        made = superuser.status("/home/joe/out")
        assert (made["owner"], made["permission"]) == ("joe", "755")
        refused = live.ended(live.start(code, "job:write", joes, {"url": f"{hdfs.url}/jobserver/default/x"}))
        assert "Permission denied: user=joe, access=WRITE" in refused["result"]["message"]

    def test_its_checkpoint_is_the_servers_to_remove(self, live: Live, joes: str) -> None:
        """As the leader does some time after the context's end, or does at the same time."""
        folder = live.seen(joes)["id"]
        assert live.ask("DELETE", f"/contexts/{joes}").status == 200
        access = HdfsAccess((live.cluster.hdfs.web_url,), USER)
        files = open_store(live.cluster.picture.checkpoint_root, "default", access)
        files.remove(folder)
        assert folder not in files.top()
