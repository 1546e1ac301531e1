"""`jobserver checkpoint`: what lies in a store, is it whole, and what may go; without any server."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from checkpoint import removal
from checkpoint.local import LocalFiles
from jobserver.cli import checkpoint as tool
from jobserver.cli.db import upgrade_url
from jobserver.errors import StoreUnavailable
from jobserver.model import ContextRecord, ContextState
from jobserver.store.metadata import Metadata
from tests.unit.test_checkpoint_ends import lived

LIVING, ENDED, KEPT, UNKNOWN = "living-1", "ended-1", "kept-1", "unknown-1"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A settings file, with a database and a store that four contexts have used."""
    url = f"sqlite:///{tmp_path}/jobserver.db"
    values = {
        "cluster": {"secret": "secret"},
        "database": {"url": url},
        "checkpoint": {"root": str(tmp_path / "checkpoints")},
    }
    file = tmp_path / "server.yaml"
    file.write_text(yaml.safe_dump(values))
    upgrade_url(url)
    asyncio.run(_contexts(url))
    files = LocalFiles(tmp_path / "checkpoints" / "default")
    for context in (LIVING, ENDED, KEPT, UNKNOWN):
        lived(files, context)  # type: ignore[arg-type]
    removal.keep(files, KEPT)
    return file


async def _contexts(url: str) -> None:
    store = await Metadata.open(url, timeout=5)
    now = datetime.now(UTC)
    for context in (LIVING, ENDED, KEPT):
        state = ContextState.RUNNING if context == LIVING else ContextState.FINISHED
        record = ContextRecord(context, context.upper(), {}, state, adhoc=False, started_at=now)
        await store.create_context(record)
    await store.close()


def told(capsys: pytest.CaptureFixture[str]) -> object:
    return json.loads(capsys.readouterr().out)


def test_ls_tells_each_context_with_what_sql_knows_of_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.ls(config, as_json=True)
    rows = {row["context"]: row for row in told(capsys)}  # type: ignore[attr-defined]
    assert {name: (row["name"], row["state"], row["kept"]) for name, row in rows.items()} == {
        LIVING: ("LIVING-1", "RUNNING", False),
        ENDED: ("ENDED-1", "FINISHED", False),
        KEPT: ("KEPT-1", "FINISHED", True),
        UNKNOWN: (None, None, False),
    }
    assert {row["objects"] for row in rows.values()} == {3}
    tool.ls(config, as_json=False)
    out = capsys.readouterr().out
    assert all(context in out for context in (LIVING, ENDED, KEPT, UNKNOWN))


def test_ls_goes_without_sql(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jobserver.db").write_bytes(b"no database" * 100)
    tool.ls(config, as_json=True)
    seen = capsys.readouterr()
    assert len(json.loads(seen.out)) == 4
    assert "SQL cannot be asked" in seen.err
    with pytest.raises(StoreUnavailable):
        tool.prune(config, [], yes=True, as_json=False)


def test_show_tells_the_objects_of_a_manifest(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.show(config, ENDED, None, as_json=True)
    shown = told(capsys)
    assert [item["name"] for item in shown["objects"]] == ["a", "b", "v"]  # type: ignore[index]
    first = shown["manifests"][0]  # type: ignore[index]
    tool.show(config, ENDED, first, as_json=True)
    assert told(capsys)["objects"] == []  # type: ignore[index]
    tool.show(config, ENDED, None, as_json=False)
    assert "manifest 000000000001-000000000004 of 5" in capsys.readouterr().out
    with pytest.raises(tool.CheckpointToolFailed, match="no checkpoint of nobody"):
        tool.show(config, "nobody", None, as_json=False)


def test_verify_finds_what_is_damaged_and_says_so_by_its_exit_code(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.verify(config, [], as_json=False) == 0
    capsys.readouterr()
    victim = next((tmp_path / "checkpoints/default" / ENDED / "objects/b").rglob("part-0"))
    victim.write_bytes(b"bea")
    assert tool.verify(config, [], as_json=True) == 1
    faults = told(capsys)
    assert [name for name, found in faults.items() if found] == [ENDED]  # type: ignore[attr-defined]
    assert tool.verify(config, [KEPT], as_json=False) == 0


def test_prune_only_tells_until_it_is_told_to_and_never_touches_what_lives_or_was_kept(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "checkpoints/default"
    tool.prune(config, [], yes=False, as_json=True)
    assert told(capsys) == {"would_remove": [ENDED]}
    assert len(list(place.iterdir())) == 4
    tool.prune(config, [], yes=True, as_json=False)
    assert sorted(entry.name for entry in place.iterdir()) == sorted([LIVING, KEPT, UNKNOWN])
    with pytest.raises(tool.CheckpointToolFailed, match="is RUNNING: its checkpoint is in use"):
        tool.prune(config, [LIVING, KEPT], yes=True, as_json=False)
    assert sorted(entry.name for entry in place.iterdir()) == sorted([LIVING, KEPT, UNKNOWN])
    tool.prune(config, [KEPT, UNKNOWN], yes=True, as_json=False)
    assert [entry.name for entry in place.iterdir()] == [LIVING]


def test_without_the_secret_nothing_is_judged(config: Path) -> None:
    values = yaml.safe_load(config.read_text())
    del values["cluster"]
    config.write_text(yaml.safe_dump({**values, "server": {"dir": str(config.parent / "s1")}}))
    with pytest.raises(tool.CheckpointToolFailed, match="secret is not set"):
        tool.ls(config, as_json=False)
