"""Class-data archives: made once for each Spark and Java, they more than halve the start of a driver.

Making one takes a whole start of a driver's JVM, so it is done beside a driver that is up already, at the lowest
priority, by a process that ends with its driver. A file lock leaves one maker; a rename makes the archive appear whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jobserver.driver.config import DriverConfig
from jobserver.driver.java import Java, archive_key, flags_of

_BASE = ".base.jsa"

DUMP_PATIENCE = 120.0
"""Seconds for the JVM to write the archive at its exit."""
UNUSED = 30 * 86400.0
"""Seconds after its last use when an archive goes: a later Spark, Java or set of flags has one of its own."""


def path_for(config: DriverConfig, java: Java) -> Path | None:
    """Where the archive that fits lies, or would lie; None if archives are not wanted."""
    if config.archive_dir is None:
        return None
    return config.archive_dir / f"spark-{archive_key(java, flags_of(config))}.jsa"


def using(path: Path | None) -> tuple[str, ...]:
    """JVM options to use the archive, none if it does not exist. Its times tell when it was used last."""
    if path is None or not path.exists():
        return ()
    with contextlib.suppress(
        OSError
    ):  # another user's, or on a disk that takes nothing: it serves all the same
        os.utime(path)
    base = path.with_suffix(_BASE)
    return (f"-XX:SharedArchiveFile={base}:{path}",) if base.exists() else (f"-XX:SharedArchiveFile={path}",)


def making(path: Path, java: Java) -> tuple[Path, tuple[str, ...]]:
    """A temporary path, and the JVM options that write an archive there when it ends normally."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    base = () if java.base_archive else (f"-XX:SharedArchiveFile={_make_base(path, java)}",)
    return unfinished, (*base, f"-XX:ArchiveClassesAtExit={unfinished}")


def _make_base(path: Path, java: Java) -> Path:
    """For runtimes without an archive of their own, which silently make none on top of nothing."""
    base = path.with_suffix(_BASE)
    if not base.exists():
        unfinished = base.with_name(f".{base.name}.{os.getpid()}")
        dump = [str(java.executable), "-Xshare:dump", f"-XX:SharedArchiveFile={unfinished}"]
        subprocess.run(dump, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)
        unfinished.rename(base)
    return base


@contextlib.contextmanager
def only_maker(path: Path) -> Iterator[bool]:
    """Whether the caller alone may make the archive now; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield not path.exists()


def remove_unused(folder: Path, now: float) -> list[Path]:
    """Remove the archives that nobody has used for `UNUSED` seconds, and return them; a running JVM keeps what it has mapped."""
    removed = []
    for path in folder.glob("spark-*.jsa"):
        with contextlib.suppress(FileNotFoundError):  # gone already, by another maker
            if not path.name.endswith(_BASE) and now - path.stat().st_mtime > UNUSED:
                for part in (path.with_suffix(".lock"), path.with_suffix(_BASE), path):
                    part.unlink(missing_ok=True)
                removed.append(path)
    return removed


def start_maker(config_file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process that makes the archive. It ends when its stdin, a pipe that we hold, is closed."""
    with (folder / "archive.log").open("ab") as out:
        return subprocess.Popen(
            [
                "nice",
                "-n",
                "19",
                sys.executable,
                "-m",
                "jobserver.driver.make_archive",
                "--config",
                str(config_file),
            ],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            process_group=0,  # its niceness stays its own (courtesy.py)
        )
