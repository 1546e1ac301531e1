"""The schema: migrations and tables agree, and a server works with no schema that it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from jobserver.errors import WrongSchema
from jobserver.store import schema, tables
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata


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
