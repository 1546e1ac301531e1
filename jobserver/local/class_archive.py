"""Makes the class archive of drivers ahead of time, so that already the first driver of a local cluster starts quickly.

A driver that finds none makes it beside its work, at the lowest priority; on a machine that has just been set up that is
the slowest moment for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jobserver.driver.archive import path_for
from jobserver.driver.config import DriverConfig
from jobserver.driver.java import find_java

LIMIT = 180.0
"""Seconds after which drivers are left to make it themselves."""


def prepare(java: Path, folder: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Makes the archive of drivers with a small heap below `folder` unless it is there. Never fails: it only saves time."""
    config = DriverConfig("archive", "-", folder, "-", "-", java_executable=str(java), archive_dir=folder)
    archive = path_for(config, find_java(config))
    if archive is None or archive.exists():
        return
    say("Making the class archive with which drivers start quickly (once for this Spark and Java) …")
    with tempfile.TemporaryDirectory(prefix="jobserver-archive-") as work:
        file = Path(work) / "config.json"
        file.write_text(json.dumps(_plain(replace(config, dir=Path(work)))))
        words = _run(
            [sys.executable, "-m", "jobserver.driver.make_archive", "--config", str(file)],
            Path(work),
            environ,
        )
    if not archive.exists():
        say(f"No class archive was made ({words}); drivers start more slowly.")


def _run(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> str:
    """The maker's last words. It ends when its stdin does, which we hold: it goes with us, whatever ends us."""
    log = folder / "log"
    with log.open("wb") as out:
        maker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=dict(environ), cwd=folder
        )
        try:
            maker.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"it was not done within {LIMIT:g} s"
        finally:
            maker.kill()
            maker.communicate()
    return " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])


def _plain(config: DriverConfig) -> dict[str, object]:
    return {
        "driver_id": config.driver_id,
        "secret": config.secret,
        "dir": str(config.dir),
        "cluster": config.cluster,
        "cluster_secret": config.cluster_secret,
        "java": {"executable": config.java_executable},
        "archive_dir": str(config.archive_dir),
    }
