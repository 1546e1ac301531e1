"""Settings: what a file may say, and the sentences for what it may not."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobserver.context_settings import driver_hosts
from jobserver.errors import SettingsRefused
from jobserver.settings import Settings, defaults, load, secret_of, settings_of
from jobserver.settings.document import default_file, schema
from jobserver.settings.loading import known_keys
from jobserver.settings.units import bytes_of, duration_text, seconds_of, size_text

CONFIG = Path(__file__).parents[2] / "config"


def refusal(values):
    with pytest.raises(SettingsRefused) as refused:
        settings_of(values)
    return refused.value.message


def file_with(folder, text):
    file = folder / "server.yaml"
    file.write_text(text)
    return file


def test_the_default_file_means_the_defaults():
    assert load(CONFIG / "jobserver.yaml") == defaults()


def test_the_default_file_is_the_one_made_from_the_model():
    assert (CONFIG / "jobserver.yaml").read_text() == default_file()


def test_the_schema_is_the_one_made_from_the_model():
    assert (CONFIG / "schema.json").read_text() == schema()


def test_the_default_file_shows_every_key():
    sections = yaml.safe_load(default_file())
    shown = [*sections, *(f"{name}.{key}" for name, keys in sections.items() for key in keys)]
    assert sorted(shown) == sorted(known_keys())


def test_every_key_is_described():
    bare = [
        f"{name}.{key}"
        for name in Settings.model_fields
        for key, field in type(getattr(defaults(), name)).model_fields.items()
        if not field.description
    ]
    assert bare == []


def test_an_empty_file_and_an_empty_section_mean_the_defaults(tmp_path):
    assert load(file_with(tmp_path, "")) == defaults()
    assert load(file_with(tmp_path, "ha:\n  # nothing set\nserver: {}\n")) == defaults()


def test_values_of_a_file_are_taken(tmp_path):
    settings = load(file_with(tmp_path, "ha: {claim_stagger: 50ms}\ndriver: {memory: 512MiB}\n"))
    assert settings.ha.claim_stagger == 0.05
    assert settings.driver.memory == 512 * 2**20


def test_settings_cannot_be_changed_after_loading():
    with pytest.raises(ValidationError):
        defaults().ha.claim_stagger = 1.0


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("ha.claim_stager", "ha.claim_stagger"),
        ("zookeeper.sesion_timeout", "zookeeper.session_timeout"),
        ("databse", "database"),
        ("ha.session_timeout", "zookeeper.session_timeout"),
        ("orphan_timeout", "driver.orphan_timeout"),
    ],
)
def test_an_unknown_key_is_refused_by_its_full_name_with_the_near_one(key, near):
    section, _, name = key.partition(".")
    message = refusal({section: {name: "1s"} if name else {}})
    assert message == f"{key} is not a setting; did you mean {near}?"


def test_an_unknown_key_unlike_any_other_gets_no_suggestion():
    assert refusal({"server": {"qqqqq": 1}}) == "server.qqqqq is not a setting."


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("server", "port", "8090", "server.port: '8090' is not a whole number."),
        ("server", "port", 70000, "server.port: 70000 is not at most 65535."),
        ("server", "host", 7, "server.host: 7 is not a text."),
        ("contexts", "max_jobs", 0, "contexts.max_jobs: 0 is not at least 1."),
        ("contexts", "max_jobs", True, "contexts.max_jobs: True is not a whole number."),
        ("ha", "standby", "hott", "ha.standby: 'hott' is not one of 'cold', 'warm' or 'hot'."),
        ("driver", "driver_timeout", "1s", "driver.driver_timeout: '1s' is not at least 3."),
        ("zookeeper", "hosts", "zk1", "zookeeper.hosts: 'zk1' is not of the form"),
        ("driver", "spark_conf", [1], "driver.spark_conf: [1] is not a mapping of keys to values."),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_was_expected(section, key, value, expected):
    assert refusal({section: {key: value}}).startswith(expected)


@pytest.mark.parametrize("value", [4, 4.5, "4", "4 s", "-4s", "4S", "s", "", None, True])
def test_a_duration_without_a_good_unit_is_refused(value):
    message = refusal({"zookeeper": {"session_timeout": value}})
    assert message.startswith(f"zookeeper.session_timeout: {value!r} is not a duration with its unit")


@pytest.mark.parametrize("value", [30, "30", "30MB", "1.5GiB", "-1MiB", None])
def test_a_size_without_a_good_unit_is_refused(value):
    message = refusal({"api": {"max_body": value}})
    assert message.startswith(f"api.max_body: {value!r} is not a size with its unit")


@given(st.integers(min_value=0, max_value=10**11))
def test_a_duration_reads_back_as_it_was_written(milliseconds):
    seconds = milliseconds / 1000
    assert round(seconds_of(duration_text(seconds)) * 1000) == milliseconds


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_reads_back_as_it_was_written(size):
    assert bytes_of(size_text(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("4s", 4), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("3d", 259200)]
)
def test_durations_mean_what_they_say(text, seconds):
    assert seconds_of(text) == seconds


def test_a_section_that_is_no_mapping_is_refused():
    assert refusal({"server": [1]}) == "server: [1] is not a section (a mapping of keys to values)."


def test_all_faults_are_told_at_once():
    lines = refusal({"server": {"port": "x"}, "ha": {"standby": "x", "y": 1}}).splitlines()
    assert [line.split(":")[0].split(" ")[0] for line in lines] == ["server.port", "ha.standby", "ha.y"]


@pytest.mark.parametrize(
    ("values", "keys", "why"),
    [
        (
            {"checkpoint": {"async_interval": "10m"}},
            ["checkpoint.async_max_lag", "checkpoint.async_interval"],
            "refused although",
        ),
        (
            {"driver": {"adopt_timeout": "30s"}, "ha": {"takeover_timeout": "30s"}},
            ["driver.adopt_timeout", "ha.takeover_timeout"],
            "given up before it stops waiting for the old driver",
        ),
        (
            {"driver": {"start_timeout": "50s"}, "ha": {"takeover_timeout": "40s"}},
            ["driver.start_timeout", "ha.takeover_timeout"],
            "a slow but good start",
        ),
        (
            {"contexts": {"creation_timeout": "30s"}},
            ["driver.start_timeout", "contexts.creation_timeout"],
            "still allowed to start",
        ),
        (
            {"driver": {"orphan_timeout": "11s"}, "zookeeper": {"session_timeout": "8s"}},
            ["driver.orphan_timeout", "zookeeper.session_timeout", "driver.adopt_timeout"],
            "end before another server can adopt them",
        ),
        (
            {"driver": {"orphan_timeout": "20s", "driver_timeout": "20s"}},
            ["driver.orphan_timeout", "driver.driver_timeout"],
            "before the owner may count it as dead",
        ),
        (
            {"ha": {"incumbent_grace": "58s", "takeover_timeout": "58s"}, "driver": {"start_timeout": "5s"}},
            ["ha.incumbent_grace", "ha.takeover_timeout"],
            "waits before a takeover",
        ),
        (
            {"zookeeper": {"session_timeout": "2s"}},
            ["zookeeper.call_timeout", "zookeeper.session_timeout"],
            "a session that has already ended",
        ),
        (
            {"driver": {"warm_drivers": 0}},
            ["ha.standby", "driver.warm_drivers"],
            "none would ever be ready",
        ),
        (
            {"cluster": {"secret": "a", "secret_file": "b"}},
            ["cluster.secret", "cluster.secret_file"],
            "only one of them",
        ),
        (
            {"server": {"host": "10.0.0.1"}},
            ["server.host", "cluster.secret"],
            "anybody could speak as a server",
        ),
        (
            {"server": {"host": "0.0.0.0"}, "cluster": {"secret": "a"}},
            ["server.host", "server.advertise"],
            "cannot connect to that address",
        ),
        (
            {"server": {"host": "0.0.0.0", "advertise": "http://0.0.0.0:8090"}, "cluster": {"secret": "a"}},
            ["server.advertise"],
            "each server would reach itself",
        ),
        (
            {"server": {"advertise": "a.example:8090"}},
            ["server.advertise"],
            "no URL such as http://host:8090",
        ),
        (
            {"server": {"advertise": "http://127.0.0.1:8090/path"}},
            ["server.advertise"],
            "must end after its port",
        ),
        (
            {"server": {"advertise": "http://a.example:8090"}},
            ["server.advertise", "server.host", "driver.host"],
            "none could adopt a driver",
        ),
        (
            {"driver": {"host": "0.0.0.0"}},
            ["driver.host"],
            "every machine's own address",
        ),
    ],
)
def test_values_that_are_unsafe_together_are_refused_with_both_keys_and_the_reason(values, keys, why):
    message = refusal(values)
    assert all(key in message for key in keys), message
    assert why in message


def test_an_address_of_all_interfaces_is_taken_with_a_secret_and_an_address_to_advertise():
    values = {
        "server": {"host": "0.0.0.0", "advertise": "http://a.example:8090"},
        "cluster": {"secret": "x"},
    }
    assert settings_of(values).server.url == "http://a.example:8090"


@pytest.mark.parametrize(
    ("server", "driver", "hosts"),
    [
        ({}, None, ("127.0.0.1", "127.0.0.1")),
        ({"host": "10.0.0.1"}, None, ("10.0.0.1", "10.0.0.1")),
        ({"host": "0.0.0.0", "advertise": "http://a.example:8090"}, None, ("0.0.0.0", "a.example")),
        ({"host": "0.0.0.0", "advertise": "http://a.example:8090"}, "10.0.0.2", ("0.0.0.0", "10.0.0.2")),
        ({"host": "10.0.0.1"}, "10.0.0.2", ("10.0.0.2", "10.0.0.2")),
    ],
)
def test_drivers_tell_an_address_that_other_machines_reach(server, driver, hosts):
    values = {"server": server, "driver": {"host": driver}, "cluster": {"secret": "x"}}
    assert driver_hosts(settings_of(values)) == hosts


def test_the_address_to_advertise_is_host_and_port_unless_it_is_set():
    assert settings_of({"server": {"port": 9000}}).server.url == "http://127.0.0.1:9000"


def test_spark_settings_may_be_numbers_and_booleans():
    conf = settings_of({"driver": {"spark_conf": {"a": True, "b": 2, "c": "x"}}}).driver.spark_conf
    assert conf == {"a": "true", "b": "2", "c": "x"}


def test_a_key_written_twice_is_refused_with_its_line(tmp_path):
    file = file_with(tmp_path, "server:\n  port: 1\n  port: 2\n")
    with pytest.raises(SettingsRefused, match=r"the key 'port' is written twice \(line 3, column 3\)"):
        load(file)


@pytest.mark.parametrize("text", ["server: [", "- a\n- b\n", "just text"])
def test_a_file_that_holds_no_sections_is_refused_by_name(tmp_path, text):
    file = file_with(tmp_path, text)
    with pytest.raises(SettingsRefused, match=str(file)):
        load(file)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(SettingsRefused, match=r"nothing\.yaml cannot be read"):
        load(tmp_path / "nothing.yaml")


def test_the_secret_is_shown_neither_in_a_picture_of_the_settings_nor_in_a_refusal():
    assert "hush" not in repr(settings_of({"cluster": {"secret": "hush"}}))
    assert "['hush']" not in refusal({"cluster": {"secret": ["hush"]}})
    assert "hush" not in refusal({"cluster": {"secret": "hush", "name": "no good"}})


def test_the_secret_comes_from_its_key_or_the_first_line_of_its_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("from file \nmore\n")
    assert secret_of(settings_of({"cluster": {"secret": "from key"}}).cluster) == "from key"
    assert secret_of(settings_of({"cluster": {"secret_file": str(file)}}).cluster) == "from file"
    assert secret_of(defaults().cluster) == ""


@pytest.mark.parametrize("text", ["", "\nsecond line"])
def test_an_empty_secret_file_is_refused(tmp_path, text):
    file = tmp_path / "secret"
    file.write_text(text)
    with pytest.raises(SettingsRefused, match="holds no secret"):
        secret_of(settings_of({"cluster": {"secret_file": str(file)}}).cluster)


def test_a_missing_secret_file_is_refused(tmp_path):
    with pytest.raises(SettingsRefused, match=r"cluster\.secret_file cannot be read"):
        secret_of(settings_of({"cluster": {"secret_file": str(tmp_path / "none")}}).cluster)
