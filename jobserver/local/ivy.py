"""Fetches a jar from Maven Central by its coordinate, with the Ivy that pyspark carries."""

from __future__ import annotations

import subprocess
from pathlib import Path

from jobserver.errors import LocalPartFailed
from jobserver.local.java import spark_jars

FETCH_TIMEOUT = 300.0


def fetch(java: Path, organisation: str, name: str, version: str, folder: Path) -> Path:
    """The jar of this coordinate alone (no dependencies) in `folder`; fetched only once. Raises LocalPartFailed."""
    jar = folder / f"{name}-{version}.jar"
    if jar.exists():
        return jar
    folder.mkdir(parents=True, exist_ok=True)
    coordinate = f"{organisation}:{name}:{version}"
    try:
        done = subprocess.run(
            _command(java, organisation, name, version, folder),
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalPartFailed(f"{coordinate} could not be fetched: {error}.") from error
    if done.returncode != 0 or not jar.exists():
        words = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise LocalPartFailed(f"{coordinate} could not be fetched: {' '.join(words)}")
    return jar


def _command(java: Path, organisation: str, name: str, version: str, folder: Path) -> list[str | Path]:
    return [
        java,
        "-cp",
        f"{spark_jars()}/*",
        "org.apache.ivy.Main",
        "-cache",
        folder / "cache",
        "-dependency",
        organisation,
        name,
        version,
        "-notransitive",
        "-confs",
        "default",
        "-types",
        "jar",
        "-retrieve",
        f"{folder}/[artifact]-[revision].[ext]",
    ]
