"""The driver's configuration, its Spark settings and the JVM's command line."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from jobserver.driver.config import (
    BrokenConfig,
    is_small,
    memory_bytes,
    parse,
    pools_xml,
    properties_text,
    slots_of,
    spark_settings,
)
from jobserver.driver.java import Java, archive_key, command, environment

NEEDED = {"driver_id": "d", "secret": "s", "dir": "/tmp/d", "cluster": "c", "cluster_secret": "cs"}


def test_the_documented_keys_are_taken_and_settings_become_texts():
    config = parse(
        {**NEEDED, "java": {"home": "/opt/java"}, "spark_conf": {"a": True, "b": 3}, "archive_dir": None}
    )
    assert (config.java_executable, config.spark_conf) == ("/opt/java/bin/java", {"a": "true", "b": "3"})


@pytest.mark.parametrize("wrong", [{"colour": "red"}, {"driver_memory": "lots"}, {"driver_memory": "0g"}])
def test_a_configuration_that_cannot_be_used_is_refused(wrong):
    with pytest.raises(BrokenConfig):
        parse({**NEEDED, **wrong})


def test_a_missing_key_is_named():
    with pytest.raises(BrokenConfig, match="secret"):
        parse({"driver_id": "d"})


@pytest.mark.parametrize(
    ("text", "expected"), [("1024k", 2**20), ("512m", 2**29), ("2g", 2**31), ("7", 7 * 2**20)]
)
def test_memory_is_read_as_spark_reads_it(text, expected):
    assert memory_bytes(text) == expected


def test_small_drivers_start_quickly_and_big_ones_optimize():
    assert is_small(parse({**NEEDED, "driver_memory": "2g"}))
    assert not is_small(parse({**NEEDED, "driver_memory": "3g"}))


def test_given_settings_win_over_ours():
    config = parse({**NEEDED, "spark_conf": {"spark.ui.enabled": True}})
    settings = spark_settings(config, Path("/tmp/pools.xml"))
    assert settings["spark.ui.enabled"] == "true"
    assert settings["spark.sql.shuffleExchange.maxThreadThreshold"] == "16"
    assert settings["spark.scheduler.mode"] == "FAIR"


@pytest.mark.parametrize(
    ("master", "slots"),
    [("local", 1), ("local[3]", 3), ("local[*]", 8), ("local[2,4]", 2), ("spark://h:7077", 2)],
)
def test_the_interactive_pool_is_sure_of_every_slot(master, slots):
    assert slots_of({"spark.master": master}, 8) == slots
    pools = {pool.get("name"): pool for pool in ElementTree.fromstring(pools_xml(slots))}
    assert set(pools) == {"interactive", "batch", "background"}
    assert pools["interactive"].findtext("minShare") == str(slots)
    assert pools["batch"].findtext("minShare") == "0"


def test_settings_survive_the_properties_format():
    text = properties_text({"a b=c": "x\\y\nü 😀 #!:", "plain.key": "plain value"})
    lines = text.splitlines()
    assert lines[1] == "plain.key=plain\\u0020value"
    key, _, value = lines[0].partition("=")
    assert _read(key) == "a b=c"
    assert _read(value) == "x\\y\nü 😀 #!:"


def _read(text: str) -> str:
    return text.encode("ascii").decode("unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16")


def test_no_setting_shows_on_the_command_line(tmp_path):
    config = parse({**NEEDED, "spark_conf": {"spark.secret": "hidden"}, "driver_memory": "1g"})
    java = Java(Path("/java/bin/java"), Path("/java"), Path("/spark"))
    line = command(java, config, ("-XX:SharedArchiveFile=a",), tmp_path / "p")
    assert "hidden" not in " ".join(line)
    assert line[0] == "/java/bin/java"
    assert line.index("-XX:SharedArchiveFile=a") < line.index("-cp")
    assert line[-1] == "pyspark-shell"


def test_an_archive_belongs_to_its_jars_java_and_flags(tmp_path):
    (tmp_path / "jars").mkdir()
    jar = tmp_path / "jars" / "spark.jar"
    jar.write_bytes(b"1")
    java = Java(Path("/java/bin/java"), tmp_path, tmp_path)
    first = archive_key(java, ("-XX:+UseSerialGC",))
    assert first == archive_key(java, ("-XX:+UseSerialGC",))
    assert first != archive_key(java, ())
    jar.write_bytes(b"22")
    assert first != archive_key(java, ("-XX:+UseSerialGC",))


@pytest.mark.parametrize(
    ("master", "settings", "inherited", "sources"),
    [
        ("local[2]", {}, {}, False),
        ("local", {}, {"SPARK_HOME": "/another/spark"}, False),
        ("local[2]", {"spark.pyspark.python": "/other/python"}, {}, True),
        ("local[2]", {}, {"PYSPARK_PYTHON": "/other/python"}, True),
        ("local-cluster[1,2,512]", {}, {"SPARK_HOME": "/another/spark"}, True),
        ("spark://master:7077", {}, {}, True),
    ],
)
def test_only_python_workers_of_another_machine_or_python_import_sparks_zip_of_sources(
    master, settings, inherited, sources
):
    java = Java(Path("/java"), Path("/jdk"), Path("/spark"))
    made = environment(inherited, java, "127.0.0.1", "/our/python", {"spark.master": master, **settings})
    assert made.get("SPARK_HOME") == ("/spark" if sources else None)
