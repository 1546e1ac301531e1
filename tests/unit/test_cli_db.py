"""`jobserver db`: what it tells, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobserver.cli import db
from jobserver.errors import BadRequest, LocalPartFailed, WrongSchema


def settings(folder: Path, name: str) -> Path:
    """A settings file whose database has its tables."""
    file = folder / f"{name}.yaml"
    (folder / "checkpoints").mkdir(exist_ok=True)
    file.write_text(
        f"database: {{url: 'sqlite:///{folder}/{name}.db'}}\ncheckpoint: {{root: '{folder}/checkpoints'}}\n"
    )
    db.upgrade(file)
    return file


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return settings(tmp_path, "one"), settings(tmp_path, "two")


def test_a_database_is_pruned_exported_and_imported(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = pair
    assert db.prune(one, dry_run=True).startswith("Would remove 0 jobs, 0 results")
    assert db.prune(one, dry_run=False).startswith("Removed 0 jobs, 0 results")
    file = tmp_path / "all.jsonl"
    assert db.export(one, file) == f"Exported 1 audit to {file}."
    assert db.take_in(two, file) == "Imported 1 audit."
    assert db.export(two, tmp_path / "again.jsonl").startswith("Exported 2 audit"), "the import is in it, too"


def test_an_export_is_for_the_eyes_of_its_user_and_replaces_nothing(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    db.export(pair[0], file)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LocalPartFailed, match="exists: name a new file"):
        db.export(pair[0], file)
    with pytest.raises(LocalPartFailed, match="cannot be written"):
        db.export(pair[0], tmp_path / "nowhere" / "all.jsonl")
    assert [path.name for path in tmp_path.glob("*unfinished")] == []


def test_only_an_empty_database_takes_an_export_and_only_a_file_that_is_one(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = pair
    file = tmp_path / "all.jsonl"
    db.prune(one, dry_run=False)
    db.export(one, file)
    with pytest.raises(BadRequest, match="not empty"):
        db.take_in(one, file)
    with pytest.raises(LocalPartFailed, match="cannot be read"):
        db.take_in(two, tmp_path / "none.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\x00\n")
    with pytest.raises(BadRequest, match="no JSON object"):
        db.take_in(two, tmp_path / "binary")


def test_a_database_without_tables_is_neither_exported_nor_pruned(tmp_path: Path) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text(
        f"database: {{url: 'sqlite:///{tmp_path}/bare.db'}}\ncheckpoint: {{root: '{tmp_path}'}}\n"
    )
    for work in (lambda: db.export(bare, tmp_path / "x"), lambda: db.prune(bare, dry_run=True)):
        with pytest.raises(WrongSchema, match="jobserver db upgrade"):
            work()
    assert list(tmp_path.glob("x*")) == []
