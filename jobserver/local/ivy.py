"""Fetches a jar from Maven Central by its coordinate, with the Ivy that pyspark carries."""

from __future__ import annotations

import fcntl
import re
import subprocess
import tempfile
from pathlib import Path

from jobserver.errors import LocalPartFailed
from jobserver.local.java import spark_jars

FETCH_TIMEOUT = 300.0


def fetch(java: Path, organisation: str, name: str, version: str, folder: Path) -> Path:
    """The jar of this coordinate alone (no dependencies) in `folder`; fetched only once. Raises LocalPartFailed.

    Of several processes that want it, one fetches it and the others wait for it; its name is given to a whole jar only.
    """
    jar = folder / f"{name}-{version}.jar"
    if jar.exists():
        return jar
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{jar.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jar.exists():
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as place:
                _retrieve(java, organisation, name, version, Path(place)).replace(jar)
    return jar


def _retrieve(java: Path, organisation: str, name: str, version: str, folder: Path) -> Path:
    """Fetches the jar into an empty folder."""
    coordinate, jar = f"{organisation}:{name}:{version}", folder / f"{name}-{version}.jar"
    try:
        done = subprocess.run(
            _command(java, organisation, name, version, folder),
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalPartFailed(f"{coordinate} could not be fetched from Maven Central: {error}.") from error
    if done.returncode != 0 or not jar.exists():
        raise LocalPartFailed(
            f"{coordinate} could not be fetched from Maven Central ({_why(done.stdout + done.stderr)}); "
            f"it is needed once, then it is kept in {folder.parent}."
        )
    return jar


def _why(words: str) -> str:
    """What Ivy says of the server, else its last line."""
    lines = [line.strip(" \t:") for line in words.splitlines() if line.strip(" \t:")]
    telling = [line for line in lines if re.search(r"UnknownHost|timed? ?out|refused|not found", line, re.I)]
    return (telling or lines or ["Ivy said nothing"])[0 if telling else -1]


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
