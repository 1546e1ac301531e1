"""Class-data archives: used, marked as used, and removed when nobody uses them any more."""

import os
from pathlib import Path

from jobserver.driver import archive

NOW = 1_800_000_000.0


def an_archive(folder: Path, key: str, *, used: float) -> Path:
    path = folder / f"spark-{key}.jsa"
    for part in (path, path.with_suffix(".base.jsa"), path.with_suffix(".lock")):
        part.touch()
        os.utime(part, (used, used))
    return path


def test_archives_that_nobody_has_used_for_long_go_with_what_belongs_to_them(tmp_path):
    old = an_archive(tmp_path, "old", used=NOW - archive.UNUSED - 1)
    kept = an_archive(tmp_path, "kept", used=NOW - archive.UNUSED + 1)
    other = tmp_path / "rehearsal.lock"
    other.touch()
    os.utime(other, (0, 0))
    os.utime(kept.with_suffix(".base.jsa"), (0, 0))
    assert archive.remove_unused(tmp_path, NOW) == [old]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"spark-kept.jsa", "spark-kept.base.jsa", "spark-kept.lock", "rehearsal.lock"}


def test_a_use_marks_the_archive(tmp_path):
    path = an_archive(tmp_path, "a", used=0)
    assert archive.using(path) == (f"-XX:SharedArchiveFile={path.with_suffix('.base.jsa')}:{path}",)
    assert archive.remove_unused(tmp_path, path.stat().st_mtime + 1) == []


def test_without_an_archive_there_are_no_options(tmp_path):
    assert archive.using(None) == archive.using(tmp_path / "spark-b.jsa") == ()
