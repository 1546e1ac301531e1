"""The directory of a local cluster: settings of its servers, and the small files it is known by."""

import stat
from pathlib import Path

import pytest
import yaml

from jobserver.errors import LocalPartFailed, SettingsRefused
from jobserver.local import layout as files
from jobserver.local.layout import ClusterPicture, Layout, ServerPicture
from jobserver.local.processes import ProcessId
from jobserver.local.up import LocalCluster, Plan
from jobserver.local.zookeeper import Peer, zoo_cfg
from jobserver.settings import load, settings_of
from jobserver.settings.document import default_file

JAVA = Path("/opt/java/bin/java")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def values_of(layout, base, server_id="s2"):
    return files.server_values(base, layout, server_id, 8091, "127.0.0.1:2181", JAVA)


def test_a_server_gets_its_own_name_port_and_directory(layout):
    settings = settings_of(values_of(layout, {}))
    assert (settings.server.id, settings.server.port) == ("s2", 8091)
    assert settings.server.url == "http://127.0.0.1:8091"
    assert settings.server.dir == layout.root / "s2"


def test_all_servers_share_database_checkpoints_secret_and_zookeeper(layout):
    one, two = (settings_of(values_of(layout, {}, name)) for name in ("s1", "s2"))
    assert one.database.url == two.database.url == f"sqlite:///{layout.root}/jobserver.db"
    assert one.checkpoint.root == two.checkpoint.root == str(layout.root / "checkpoints")
    assert one.cluster == two.cluster
    assert one.zookeeper.hosts == "127.0.0.1:2181"


def test_what_the_given_settings_name_is_kept(layout):
    base = {
        "ha": {"standby": "cold"},
        "database": {"url": "mysql://somewhere/db"},
        "checkpoint": {"root": "/somewhere/checkpoints"},
        "driver": {"java": "/other/java"},
        "server": {"log_level": "debug"},
    }
    settings = settings_of(values_of(layout, base))
    assert settings.ha.standby == "cold"
    assert settings.database.url == "mysql://somewhere/db"
    assert settings.checkpoint.root == "/somewhere/checkpoints"
    assert settings.driver.java == Path("/other/java")
    assert settings.server.log_level == "debug"


def test_the_commented_default_file_can_be_the_base(layout):
    base = yaml.safe_load(default_file())
    assert settings_of(values_of(layout, base)) == settings_of(values_of(layout, {}))


def test_the_base_itself_is_not_changed(layout):
    base = {"server": {"log_level": "debug"}}
    values_of(layout, base)
    assert base == {"server": {"log_level": "debug"}}


def test_a_written_settings_file_reads_back_as_the_same_settings(layout):
    written = files.write_settings(layout, "s2", values_of(layout, {"cluster": {"name": "c1"}}))
    assert load(layout.settings_file("s2")) == written


def test_bad_settings_are_refused_before_a_file_is_written(layout):
    with pytest.raises(SettingsRefused):
        files.write_settings(layout, "s1", values_of(layout, {"ha": {"standby": "x"}}))
    assert not layout.settings_file("s1").exists()


def test_the_secret_is_made_once_and_readable_by_its_owner_only(layout):
    files.ensure_secret(layout)
    first = layout.secret.read_text()
    files.ensure_secret(layout)
    assert layout.secret.read_text() == first
    assert len(first.strip()) == 64
    assert stat.S_IMODE(layout.secret.stat().st_mode) == 0o600


def test_the_picture_reads_back_and_leaves_no_draft(layout):
    picture = ClusterPicture(
        (ServerPicture("s1", "http://127.0.0.1:1", 7),), "127.0.0.1:2", "sqlite:///x", "/c"
    )
    files.write_picture(layout, picture)
    assert files.read_picture(layout) == picture
    assert [file.name for file in layout.root.iterdir()] == ["cluster.json"]


def test_leftovers_read_back_and_are_none_after_an_orderly_end(layout):
    assert files.read_leftovers(layout) == []
    files.write_leftovers(layout, [ProcessId(1, 2)])
    assert files.read_leftovers(layout) == [ProcessId(1, 2)]


@pytest.mark.parametrize("text", ["", '{"pid": 3', "[]", '{"pid": 3}', '{"pid": "x", "pid_started": 1}'])
def test_a_torn_note_of_a_driver_is_no_process(layout, text):
    file = layout.root / "driver.json"
    file.write_text(text)
    assert files.read_driver(file) is None


def test_the_notes_of_all_servers_drivers_are_found(layout):
    file = layout.drivers("s3") / "d1" / "driver.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"pid": 3, "pid_started": 4, "jvm_pid": 5}')
    assert layout.driver_files() == [file]
    assert files.read_driver(file) == ProcessId(3, 4)


def test_class_archives_are_kept_in_the_users_cache():
    assert files.archive_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/ha-spark-job-server")
    assert files.archive_cache({"HOME": "/h"}) == Path("/h/.cache/ha-spark-job-server")


def test_a_lone_zookeeper_is_configured_without_peers():
    text = zoo_cfg(Path("/d"), 2181)
    assert "clientPort=2181\n" in text
    assert "server." not in text


def test_an_ensemble_names_every_peer():
    text = zoo_cfg(Path("/d"), 2181, [Peer(1, 10, 11), Peer(2, 20, 21)])
    assert "server.1=127.0.0.1:10:11\nserver.2=127.0.0.1:20:21\n" in text


def cluster_in(folder, **plan):
    return LocalCluster(Plan(folder, **plan), prepare_database=lambda url: None)


def test_a_directory_in_use_by_a_living_up_is_refused_by_name(tmp_path):
    first, second = cluster_in(tmp_path), cluster_in(tmp_path)
    first._take_directory()
    with pytest.raises(LocalPartFailed, match=rf"^{tmp_path} is in use by another `jobserver up`"):
        second.start()
    first.stop()
    second._take_directory()
    second.stop()


def test_busy_ports_are_refused_by_number_and_nothing_is_left_started(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cluster = cluster_in(tmp_path, servers=1, port=port)
        with pytest.raises(
            LocalPartFailed, match=rf"in use on 127\.0\.0\.1: {port}\. Choose others with --port"
        ):
            cluster.start()
    assert [file.name for file in tmp_path.iterdir()] == ["up.lock"]
