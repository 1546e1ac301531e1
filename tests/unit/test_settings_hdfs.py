"""Checkpoints in HDFS: which settings lead there, and which are refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint.hdfs import HdfsFiles
from checkpoint.stores import HdfsAccess, UnknownStore, access_of, open_store
from jobserver.context_settings import checkpoint_files, checkpoint_root, hdfs_access
from jobserver.driver import config as driver_config
from jobserver.errors import SettingsRefused
from jobserver.local.hdfs import HdfsPorts, site_values, site_xml
from jobserver.local.layout import HdfsPlace, with_hdfs
from jobserver.settings import settings_of


def test_a_root_in_hdfs_is_enough_and_leads_to_its_namenode() -> None:
    settings = settings_of({"checkpoint": {"root": "hdfs://nn.example:8020/jobs/"}})
    assert checkpoint_root(settings) == "hdfs://nn.example:8020/jobs"
    assert hdfs_access(settings) == HdfsAccess(("http://nn.example:9870",))
    assert checkpoint_files(settings).url("c/x") == "hdfs://nn.example:8020/jobs/default/c/x"


def test_all_that_is_chosen_reaches_the_driver() -> None:
    webhdfs = {"namenodes": ["http://a:9870", "https://b:9871"], "user": "jobs", "timeout": "5s"}
    settings = settings_of({"checkpoint": {"root": "hdfs://ns/jobs"}, "webhdfs": webhdfs})
    access = hdfs_access(settings)
    assert access == HdfsAccess(("http://a:9870", "https://b:9871"), "jobs", "simple", None, 5.0)
    plain = {"driver_id": "d", "secret": "s", "dir": "/d", "cluster": "c", "cluster_secret": "s"}
    assert driver_config.parse({**plain, "hdfs": access.plain()}).hdfs == access
    with pytest.raises(driver_config.BrokenConfig):
        driver_config.parse({**plain, "hdfs": {"namenodes": [], "auth": "guess"}})


def test_a_token_file_is_found_from_any_directory() -> None:
    webhdfs = {"auth": "token", "token_file": "secrets/token"}
    access = hdfs_access(settings_of({"checkpoint": {"root": "hdfs://nn/jobs"}, "webhdfs": webhdfs}))
    assert access is not None
    assert HdfsAccess.of_plain(access.plain()).token_file == Path("secrets/token").absolute()


def test_a_directory_needs_none_of_it() -> None:
    assert hdfs_access(settings_of({})) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"checkpoint": {"root": "s3://bucket/x"}}, "a directory or hdfs://host:port/path"),
        ({"checkpoint": {"root": "hdfs://nn:8020"}}, "must name a folder of HDFS"),
        ({"checkpoint": {"root": "hdfs://nn:8020/"}}, "must name a folder of HDFS"),
        ({"checkpoint": {"root": "hdfs://nn:8020/a#LATEST"}}, "without any of"),
        ({"checkpoint": {"root": "hdfs:///jobs"}}, "Set webhdfs.namenodes"),
        ({"webhdfs": {"namenodes": ["http://nn:9870"]}}, "is a directory"),
        ({"webhdfs": {"namenodes": ["nn:9870"]}}, "webhdfs.namenodes"),
        ({"checkpoint": {"root": "hdfs://nn/j"}, "webhdfs": {"auth": "token"}}, "webhdfs.token_file is not set"),
        ({"checkpoint": {"root": "hdfs://nn/j"}, "webhdfs": {"token_file": "t"}}, "belongs to 'token'"),
        ({"checkpoint": {"root": "hdfs://nn/j"}, "webhdfs": {"auth": "kerberos", "user": "u"}}, "leave webhdfs.user out"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_a_sentence(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        settings_of(values)
    assert words in refused.value.message


def test_a_store_of_no_known_kind_is_refused() -> None:
    for root in ("s3://bucket/x", "viewfs://x/y"):
        with pytest.raises(UnknownStore, match="give a directory or hdfs"):
            open_store(root, "c")
    with pytest.raises(UnknownStore, match="names no NameNode"):
        access_of("hdfs:///x")


def test_a_root_with_blanks_and_signs_is_the_same_for_spark_and_webhdfs() -> None:
    files = HdfsFiles("hdfs://nn:8020/a b/~c", HdfsAccess(("http://nn:9870",)))
    assert files.url("x/y") == "hdfs://nn:8020/a b/~c/x/y"


def test_a_local_hdfs_is_where_the_servers_of_up_keep_checkpoints() -> None:
    place = HdfsPlace("hdfs://127.0.0.1:9000", "http://127.0.0.1:9870")
    values = with_hdfs({"driver": {"spark_conf": {"a": "b"}}}, place)
    assert values["checkpoint"]["root"] == "hdfs://127.0.0.1:9000/jobserver"
    assert values["webhdfs"] == {"namenodes": ["http://127.0.0.1:9870"]}
    assert values["driver"]["spark_conf"] == {"spark.hadoop.dfs.replication": "1", "a": "b"}
    assert with_hdfs({"checkpoint": {"root": "/elsewhere"}}, place)["checkpoint"]["root"] == "/elsewhere"
    named = with_hdfs({"webhdfs": {"user": "jobs", "namenodes": ["http://elsewhere:9870"]}}, place)
    assert named["webhdfs"] == {"user": "jobs", "namenodes": ["http://127.0.0.1:9870"]}


def test_every_address_of_a_local_hdfs_is_the_loopback_one() -> None:
    values = site_values(Path("/d"), HdfsPorts(1, 2, 3, 4, 5))
    assert {text.split(":")[0] for key, text in values.items() if key.endswith("address")} == {"127.0.0.1"}
    assert "<name>a</name><value>b</value>" in site_xml({"a": "b"})
