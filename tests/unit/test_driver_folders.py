"""Folders of ended drivers: the old and the surplus go, those of living processes never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobserver.driver_folders import STARTING, expired, names_in_use, remove_ended

NOW = 1_000_000.0
DAY = 86_400.0


@pytest.mark.parametrize(
    ("age", "most", "gone"),
    [
        (None, None, []),
        (2 * DAY, None, ["older", "oldest"]),
        (None, 2, ["older", "oldest"]),
        (None, 0, ["old", "older", "oldest"]),
        (3.5 * DAY, 3, ["oldest"]),
        (0.0, 0, ["old", "older", "oldest"]),
    ],
)
def test_what_is_too_old_or_too_many_goes_and_what_just_starts_stays(age, most, gone):
    ended = {
        "starting": NOW - STARTING,
        "old": NOW - DAY,
        "older": NOW - 3 * DAY,
        "oldest": NOW - 4 * DAY,
    }
    assert expired(ended, NOW, age, most) == gone


def folder(root: Path, name: str, changed: float) -> Path:
    made = root / name
    (made / "bundles").mkdir(parents=True)
    (made / "stdout").write_text("x")
    for path in (made / "stdout", made / "bundles", made):
        os.utime(path, (changed, changed))
    return made


def test_the_folder_of_a_living_process_stays_however_old(tmp_path):
    root = tmp_path / "drivers"
    living, ended, young = (
        folder(root, name, NOW - days * DAY) for name, days in (("living", 9), ("ended", 9), ("young", 1))
    )
    (root / "a file").write_text("x")
    waits = [sys.executable, "-c", "print(flush=True); input()", str(living / "config.json")]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # a process that is just being started has no arguments yet
        assert names_in_use(root) == {"living"}
        assert remove_ended(root, NOW, age=7 * DAY, most=None) == 1
        assert (living.exists(), ended.exists(), young.exists()) == (True, False, True)
        process.communicate(b"\n", timeout=30)
    assert remove_ended(root, NOW, age=7 * DAY, most=None) == 1
    assert not living.exists()


def test_a_folder_in_which_something_was_written_lately_is_young(tmp_path):
    made = folder(tmp_path, "driver", NOW - 9 * DAY)
    os.utime(made / "stdout", (NOW - 60, NOW - 60))
    assert remove_ended(tmp_path, NOW, age=7 * DAY, most=0) == 0


def test_a_server_without_drivers_has_no_folders(tmp_path):
    assert remove_ended(tmp_path / "none", NOW, age=1.0, most=0) == 0


def test_a_folder_that_cannot_be_looked_into_keeps_no_other_from_going(tmp_path, monkeypatch, caplog):
    closed, old = (folder(tmp_path, name, NOW - 9 * DAY) for name in ("closed", "old"))
    look = Path.iterdir

    def refused(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert remove_ended(tmp_path, NOW, age=7 * DAY, most=None) == 1
    assert (closed.exists(), old.exists()) == (True, False)
    assert "Permission denied" in caplog.text
