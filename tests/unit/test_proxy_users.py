"""For whom Spark works: rules, names of contexts, and what reaches the driver's JVM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver import context_settings
from jobserver.contexts.launch_spec import launch_spec
from jobserver.driver import config as driver_config
from jobserver.driver.java import Java, command, environment
from jobserver.driver.journal import ContextFolder
from jobserver.driver.jvm import JvmFailed
from jobserver.driver.spark import check_user
from jobserver.errors import BadRequest, SettingsRefused
from jobserver.proxy_users import (
    ProxyUsers,
    asked_in,
    belonging_to,
    proxy_user,
    shown_name,
    stored_name,
    with_proxy_user,
)
from jobserver.service import Submission
from jobserver.settings import settings_of
from jobserver.users import Caller
from tests.fakes.files import FaultyFiles

JOE, ROOT = Caller("joe"), Caller("root", unrestricted=True)
PLAIN = {"driver_id": "d", "secret": "s", "dir": "/d", "cluster": "c", "cluster_secret": "s"}


@pytest.mark.parametrize(
    ("rule", "caller", "asked", "user"),
    [
        (ProxyUsers.NONE, ROOT, None, None),
        (ProxyUsers.NAMED, JOE, None, None),
        (ProxyUsers.NAMED, JOE, "joe", "joe"),
        (ProxyUsers.NAMED, ROOT, "joe", "joe"),
        (ProxyUsers.CALLER, JOE, None, "joe"),
        (ProxyUsers.CALLER, JOE, "root", "joe"),
        (ProxyUsers.CALLER, ROOT, "joe", "root"),
    ],
)
def test_whom_spark_works_for(rule: ProxyUsers, caller: Caller, asked: str | None, user: str | None) -> None:
    assert proxy_user(rule, caller, asked) == user


@pytest.mark.parametrize(
    ("rule", "caller", "asked", "words"),
    [
        (ProxyUsers.NONE, ROOT, "joe", "access.proxy_users"),
        (ProxyUsers.NAMED, JOE, "root", "only users with the permission"),
        (ProxyUsers.NAMED, ROOT, "a b", "plain user name"),
        (ProxyUsers.CALLER, Caller("a b"), None, "plain user name"),
    ],
)
def test_whom_it_does_not_work_for(rule: ProxyUsers, caller: Caller, asked: str | None, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        proxy_user(rule, caller, asked)


def test_a_name_is_stored_behind_its_caller_s_and_tells_no_two_callers_for_one() -> None:
    assert belonging_to("joe", "c") == "joe~c"
    assert belonging_to("a~b", "c") == "a~~b~c"
    assert shown_name(ProxyUsers.CALLER, Caller("a"), "a~~b~c") is None
    assert shown_name(ProxyUsers.CALLER, Caller("a~b"), "a~~b~c") == "c"
    assert shown_name(ProxyUsers.CALLER, Caller("a"), "a~b~c") == "b~c"
    assert shown_name(ProxyUsers.NAMED, Caller("a"), "b~c") == "b~c"


USERS = st.text("ab~", min_size=1, max_size=5)
NAMES = st.builds("{}{}".format, st.sampled_from("ab1"), st.text("ab~", max_size=5))


@given(USERS, NAMES, USERS)
def test_a_stored_name_is_its_caller_s_alone(user: str, name: str, other: str) -> None:
    stored = stored_name(ProxyUsers.CALLER, Caller(user), name)
    assert shown_name(ProxyUsers.CALLER, Caller(user), stored) == name
    assert (shown_name(ProxyUsers.CALLER, Caller(other), stored) is None) == (user != other)


@pytest.mark.parametrize(
    "settings",
    [
        {"spark.proxy.user": "joe", "x": 1},
        {"spark": {"proxy": {"user": "joe"}}, "x": 1},
        {"spark": {"proxy.user": "joe"}, '"spark.proxy.user"': "joe", "x": 1},
    ],
)
def test_the_user_in_settings_is_found_and_replaced_in_every_form(settings: dict[str, object]) -> None:
    assert asked_in(settings) == "joe"
    assert asked_in(with_proxy_user(settings, "ann")) == "ann"
    without = with_proxy_user(settings, None)
    assert asked_in(without) is None
    assert without["x"] == 1


def test_a_job_s_own_context_is_called_after_its_user_and_fits_its_column() -> None:
    job = Submission("a.B", (), {"spark": {"context-settings": {"x": 1}}}, None, True, 1.0, proxy_user="joe")
    assert job.own_context("id") == "joe~id-a.B"
    assert job.own_settings == {"x": 1, "spark.proxy.user": "joe"}
    assert replace(job, proxy_user=None).own_context("id") == "id-a.B"
    assert len(replace(job, main_class="m" * 255).own_context("id")) == 255


def spec(settings: dict[str, object]):
    return launch_spec(settings, master="local[1]", driver_memory="1024m", python="", conf={})


def test_a_warm_driver_is_never_another_user_s() -> None:
    ours, joes, anns = spec({}), spec({"spark.proxy.user": "joe"}), spec({"spark.proxy.user": "ann"})
    assert len({ours, joes, anns}) == len({ours.digest, joes.digest, anns.digest}) == 3
    assert joes.proxy_user == "joe"
    assert joes.spark_conf == ours.spark_conf
    assert spec({"spark.proxy.user": ""}) == ours
    with pytest.raises(BadRequest, match="plain user name"):
        spec({"spark.proxy.user": "-x"})


def test_the_jvm_is_started_for_the_user_and_believes_no_other_word_of_it() -> None:
    java = Java(Path("/java"), Path("/home"), Path("/spark"))
    config = driver_config.parse({**PLAIN, "proxy_user": "joe"})
    line = command(java, config, (), Path("/p"))
    assert line[line.index("--proxy-user") + 1] == "joe"
    assert line[-1] == "pyspark-shell"
    assert "--proxy-user" not in command(java, driver_config.parse(PLAIN), (), Path("/p"))
    assert "SPARK_USER" not in environment({"SPARK_USER": "root"}, java, "127.0.0.1", "python", {})


@pytest.mark.parametrize("wanted", ["joe", None])
def test_a_driver_whose_spark_works_for_whom_it_should_starts(wanted: str | None) -> None:
    check_user(spark_of(wanted or "service"), wanted)


def test_a_driver_whose_java_forgets_the_user_does_not_start() -> None:
    """As Java 25 does: threads that begin in the user's name go on in the service's."""
    with pytest.raises(JvmFailed, match=r"Spark would work for service instead of joe: .*use Java 17 or 21"):
        check_user(spark_of("service"), "joe")


def spark_of(user: str) -> Any:
    spark = MagicMock()
    hadoop = spark.context._jvm.org.apache.hadoop.security.UserGroupInformation
    hadoop.getCurrentUser().getShortUserName.return_value = user
    return spark


class SharedFiles(FaultyFiles):
    """Notes who was let in where."""

    def __init__(self) -> None:
        super().__init__()
        self.shared: list[tuple[str, str]] = []

    def share(self, folder: str, user: str) -> None:
        self.shared.append((folder, user))


def test_the_user_is_let_into_a_folder_before_spark_first_writes_there() -> None:
    files = SharedFiles()
    folder = ContextFolder(files, "ctx", "joe")
    url = folder.url_to_write("objects/a/1")
    folder.url_to_write("objects/a/2")
    folder.url_to_write("objects/b/1")
    folder.url("objects/c/1")
    assert url == folder.url("objects/a/1")
    assert files.shared == [("ctx/objects/a", "joe"), ("ctx/objects/b", "joe")]
    ContextFolder(files, "ctx").url_to_write("objects/d/1")
    assert len(files.shared) == 2


HDFS = {"checkpoint": {"root": "hdfs://nn/j"}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"access": {"proxy_users": "caller"}}, "access.users_file is not set"),
        ({"access": {"proxy_users": "yes"}}, "access.proxy_users"),
        (
            {**HDFS, "access": {"proxy_users": "named"}, "webhdfs": {"auth": "token", "token_file": "t"}},
            "HDFS lets nobody act for others by a token",
        ),
        ({"contexts": {"defaults": {"spark.proxy.user": "joe"}}}, "contexts.defaults names spark.proxy.user"),
        ({"driver": {"spark_conf": {"spark.proxy.user": "joe"}}}, "driver.spark_conf names spark.proxy.user"),
        ({"contexts": {"predefined": {"c": {"spark.proxy.user": "joe"}}}}, "access.proxy_users is 'none'"),
        (
            {
                "access": {"proxy_users": "named"},
                "contexts": {"predefined": {"c": {"spark": {"proxy": {"user": "a b"}}}}},
            },
            "contexts.predefined.c: context setting spark.proxy.user is 'a b'",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_sentence(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        settings_of(values)
    assert words in refused.value.message


def test_a_stored_context_keeps_its_user_whatever_is_taken_now() -> None:
    """Its driver after a failover must not become the service's user because the setting was changed meanwhile."""
    assert context_settings.spec(settings_of({}), {"spark.proxy.user": "joe"}).proxy_user == "joe"
