"""The schema: migrations and tables agree, and a server works with no schema that it does not know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from jobserver.errors import StoreUnavailable, WrongSchema
from jobserver.model import AttemptOutcome, Fence, JobState, OutcomeKind
from jobserver.store import schema, tables
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata
from tests.frozen import rows, statements

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/metadata.db"


@pytest.fixture
async def metadata(url: str) -> AsyncIterator[Metadata]:
    metadata = await Metadata.open(url, timeout=5)
    yield metadata
    await metadata.close()


async def set_revision(url: str, revision: str) -> None:
    database = Database.open(url, timeout=5)

    def write(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (revision,))

    await database.write(write)
    await database.close()


async def test_the_migrations_make_exactly_the_tables_that_the_code_knows(
    url: str, metadata: Metadata
) -> None:
    await metadata.upgrade()
    database = Database.open(url, timeout=5)
    difference = await database.read(
        lambda connection: compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), tables.metadata
        )
    )
    await database.close()
    assert difference == []


async def test_an_empty_store_is_refused_with_the_command_that_helps(metadata: Metadata) -> None:
    assert await metadata.schema_current() is None
    with pytest.raises(WrongSchema, match=r"has no tables yet.*`jobserver db upgrade`"):
        await metadata.check()


async def test_an_upgraded_store_passes_the_check_and_a_second_upgrade_changes_nothing(
    metadata: Metadata,
) -> None:
    await metadata.upgrade()
    await metadata.check()
    await metadata.upgrade()
    assert await metadata.schema_current() == schema.newest_revision()


async def test_servers_that_upgrade_at_once_all_succeed(url: str) -> None:
    servers = [await Metadata.open(url, timeout=10) for _ in range(4)]
    await asyncio.gather(*(server.upgrade() for server in servers))
    for server in servers:
        await server.check()
        await server.close()


async def test_a_store_of_the_first_release_is_upgraded_with_all_that_is_in_it(
    url: str, metadata: Metadata
) -> None:
    database = Database.open(url, timeout=5)
    await rows.make(database, "0001")
    await metadata.upgrade()
    job, ended = await metadata.job("j1"), await metadata.job("j2")
    assert job is not None
    assert job.spec.main_class == "demo.Wörter"
    assert ended is not None
    assert ended.result == '{"n":1}'
    assert await metadata.job_history("j1") == []
    assert await metadata.finish_job(
        Fence("c1", 3, "t3"), AttemptOutcome("j1", 1, OutcomeKind.FINISHED, "2"), JobState.FINISHED, NOW
    )
    found = {
        name: await database.read(lambda one, text=text: [tuple(row) for row in one.exec_driver_sql(text)])
        for name, text in {
            "classes": "SELECT id, main_class FROM jobs ORDER BY id",
            "bytes": "SELECT digest, size, stored_at, state, unused_since FROM binary_files",
            "needs": "SELECT context_id, digest FROM context_binaries",
            "last": "SELECT name FROM pragma_table_info('jobs') ORDER BY cid DESC LIMIT 1",
        }.items()
    }
    await database.close()
    assert found == {
        "classes": [("j1", "demo.Wörter"), ("j2", "demo.Wörter")],
        "bytes": [("d" * 64, 7, 4, "KEPT", None)],
        "needs": [("c1", "d" * 64)],
        "last": [("result",)],
    }


def test_every_older_revision_has_rows_for_these_tests() -> None:
    assert list(rows.ROWS) == schema.revisions()[:-1], "tests/frozen/rows.py lacks those of a revision"


@pytest.mark.parametrize("revision", rows.ROWS)
async def test_an_upgrade_from_any_older_revision_keeps_every_value(
    url: str, metadata: Metadata, revision: str
) -> None:
    database = Database.open(url, timeout=5)
    await rows.make(database, revision)
    before = await rows.dump(database)
    await metadata.upgrade()
    await rows.check_kept(database, before)
    await database.close()
    await metadata.check()


def test_the_statements_of_the_newest_schema_are_frozen_for_the_releases_after_it() -> None:
    file = statements.file_of(schema.newest_revision())
    kept = json.loads(file.read_text())
    for kind, now in statements.texts().items():
        missing = now.keys() - kept[kind].keys()
        assert not missing, f"{file.name} lacks them: run `python -m tests.frozen.statements`"


async def test_no_job_and_no_fence_is_without_its_context(url: str, metadata: Metadata) -> None:
    await metadata.upgrade()
    database = Database.open(url, timeout=5)
    for statement in rows.ROWS["0001"][2:]:
        with pytest.raises(StoreUnavailable, match="FOREIGN KEY"):
            await database.write(lambda connection, text=statement: connection.exec_driver_sql(text) and None)
    await database.close()


async def test_a_later_schema_is_refused_and_not_touched(url: str, metadata: Metadata) -> None:
    await metadata.upgrade()
    await set_revision(url, "9999")
    with pytest.raises(WrongSchema, match="schema 9999, which this release does not know"):
        await metadata.check()
    with pytest.raises(WrongSchema, match="9999"):
        await metadata.upgrade()
    assert await metadata.schema_current() == "9999"


async def test_an_upgrade_that_fails_leaves_nothing_behind(
    url: str, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        pass

    def stop(connection: Connection) -> None:
        real_upgrade(connection)
        raise Interrupted

    real_upgrade = schema.upgrade
    monkeypatch.setattr(schema, "upgrade", stop)
    with pytest.raises(Interrupted):
        await metadata.upgrade()
    assert await metadata.schema_current() is None
    database = Database.open(url, timeout=5)
    names = await database.read(lambda one: one.exec_driver_sql("SELECT name FROM sqlite_master").all())
    await database.close()
    assert names == []


def test_an_older_known_schema_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "newest_revision", lambda: "0002")
    with pytest.raises(
        WrongSchema, match="older schema 0001, this release needs 0002: run `jobserver db upgrade`"
    ):
        schema.refuse_other("0001")
