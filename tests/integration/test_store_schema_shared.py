"""The schema on a real MariaDB, and the previous release's statements on the new schema, on every database.

`tests/frozen/statements_<revision>.json` holds what a release of that schema runs, as texts with the number of their
values; `python -m tests.frozen.statements` writes that of the newest schema until its release, the others are never changed.
While they run on the newest schema, servers of that release may go on beside an upgraded one (expand first, contract a
release later).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pymysql
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from jobserver.errors import OutcomeUnknown, SettingsRefused, StoreUnavailable, WrongSchema
from jobserver.model import AttemptOutcome, Fence, JobState, OutcomeKind
from jobserver.store import mysql, schema, tables
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata
from tests.frozen import rows
from tests.mariadb import Databases, address_of
from tests.unit.test_store_schema import NOW

FROZEN = sorted((Path(__file__).parents[1] / "frozen").glob("statements_*.json"))


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.new()


async def opened(url: str) -> Metadata:
    return await Metadata.open(url, timeout=30)


def columns(databases: Databases, url: str) -> set[tuple[Any, ...]]:
    """All columns and indexes of a database."""
    name = address_of(url).database
    found = databases.run(
        "SELECT table_name, column_name, column_type, is_nullable, collation_name FROM"
        f" information_schema.columns WHERE table_schema = '{name}'"
    )
    indexes = databases.run(
        "SELECT table_name, index_name, seq_in_index, column_name, non_unique FROM"
        f" information_schema.statistics WHERE table_schema = '{name}'"
    )
    return {*found, *indexes}


async def test_the_migrations_make_the_tables_that_the_code_knows_with_texts_that_compare_every_byte(
    url: str, databases: Databases
) -> None:
    store = await opened(url)
    await store.upgrade()
    await store.check()
    database = Database.open(url, timeout=30)
    difference = await database.read(
        lambda connection: compare_metadata(
            # the types are looked at below: what is drawn of texts here has not the collations of the migrations
            MigrationContext.configure(connection, opts={"compare_type": False}),
            tables.metadata,
        )
    )
    await database.close()
    await store.close()
    assert difference == []
    name = address_of(url).database
    collations = databases.run(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE collation_name IS NOT NULL"
        f" AND table_schema = '{name}' AND table_name <> 'alembic_version'"
    )
    assert collations == [("utf8mb4_nopad_bin",)]


async def test_servers_that_upgrade_one_database_at_once_all_succeed(url: str) -> None:
    servers = [await opened(url) for _ in range(4)]
    await asyncio.gather(*(server.upgrade() for server in servers))
    for server in servers:
        await server.check()
        await server.close()


async def test_an_upgrade_cut_short_at_any_statement_is_completed_by_the_next(databases: Databases) -> None:
    whole = databases.new()
    store = await opened(whole)
    changes = await _upgrade_cut_at(whole, None)
    wanted = columns(databases, whole)
    await store.close()
    cut = databases.new()
    for at in range(changes):
        # each try starts where the one before was cut, so every statement is met with half of a migration behind it
        await _upgrade_cut_at(cut, 0 if at % 2 else 1)
    await _upgrade_cut_at(cut, None)
    assert columns(databases, cut) == wanted
    assert len(wanted) > 100


async def _upgrade_cut_at(url: str, cut: int | None) -> int:
    """Upgrades; the connection ends before the statement of that number that changes the schema. How many there were."""
    database = Database.open(url, timeout=30)
    seen = 0

    def count(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        if statement.split(maxsplit=1)[0].upper() in ("CREATE", "ALTER", "INSERT", "UPDATE"):
            if seen == cut:
                cursor.connection.close()
                raise pymysql.OperationalError(2013, "cut by the test")
            seen += 1

    event.listen(database.writing, "before_cursor_execute", count)
    try:
        await database.write(schema.upgrade)
    except (StoreUnavailable, OutcomeUnknown, pymysql.MySQLError):
        assert cut is not None
    finally:
        await database.close()
    return seen


async def test_a_database_of_the_first_release_is_upgraded_with_all_that_is_in_it(url: str) -> None:
    database = Database.open(url, timeout=30)
    await rows.make(database, "0001")
    store = await opened(url)
    with pytest.raises(WrongSchema, match="older schema 0001"):
        await store.check()
    await store.upgrade()
    job, ended = await store.job("j1"), await store.job("j2")
    assert job is not None
    assert job.spec.main_class == "demo.Wörter"
    assert ended is not None
    assert ended.result == '{"n":1}'
    outcome = AttemptOutcome("j1", 1, OutcomeKind.FINISHED, "2")
    assert await store.finish_job(Fence("c1", 3, "t3"), outcome, JobState.FINISHED, NOW)
    classes = await database.read(
        lambda one: [tuple(row) for row in one.exec_driver_sql("SELECT id, main_class FROM jobs ORDER BY id")]
    )
    await database.close()
    await store.close()
    assert classes == [("j1", "demo.Wörter"), ("j2", "demo.Wörter")]


@pytest.mark.parametrize("revision", rows.ROWS)
async def test_an_upgrade_from_any_older_revision_keeps_every_value(url: str, revision: str) -> None:
    database = Database.open(url, timeout=30)
    await rows.make(database, revision)
    before = await rows.dump(database)
    await database.write(schema.upgrade)
    await rows.check_kept(database, before)
    await database.close()


async def test_a_database_with_a_table_of_another_engine_is_refused(url: str, databases: Databases) -> None:
    store = await opened(url)
    await store.upgrade()
    name = address_of(url).database
    databases.run(f"CREATE TABLE {name}.old (n INT) ENGINE=Aria")
    with pytest.raises(SettingsRefused, match="table old is of the engine Aria; only InnoDB"):
        await store.check()
    await store.close()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"wsrep_on": "ON"}, "Galera"),
        (
            {"group_replication_single_primary_mode": "OFF", "group_replication_group_name": "g"},
            "every member takes writes",
        ),
        ({"tx_isolation": "REPEATABLE-READ"}, "isolation level REPEATABLE-READ"),
        ({"sql_mode": "NO_BACKSLASH_ESCAPES"}, "SQL mode"),
        ({"log_bin": "ON", "binlog_format": "STATEMENT"}, "MIXED or ROW"),
        ({"max_allowed_packet": "1048576"}, "at least 16777216"),
    ],
)
def test_a_server_that_cannot_keep_the_promises_is_refused(facts: dict[str, str], words: str) -> None:
    good = {"tx_isolation": "READ-COMMITTED", "sql_mode": "STRICT_ALL_TABLES"}
    assert mysql.unfit(good, {}) == []
    [fault] = mysql.unfit({**good, **facts}, {})
    assert words in fault


@pytest.fixture(params=["sqlite", "mysql"])
def newest(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A kind of database, and the address of an empty one."""
    kind = str(request.param)
    return kind, f"sqlite:///{tmp_path}/metadata.db" if kind == "sqlite" else request.getfixturevalue("url")


@pytest.mark.parametrize("file", FROZEN, ids=lambda file: file.stem)
async def test_what_servers_of_the_previous_release_run_still_works(
    file: Path, newest: tuple[str, str]
) -> None:
    kind, address = newest
    store = await opened(address)
    await store.upgrade()
    await store.close()
    statements = frozen(file)[kind]
    database = Database.open(address, timeout=30)
    broken = await database.write(lambda connection: _broken(connection, statements))
    await database.close()
    assert broken == {}
    assert len(statements) > 30


def frozen(file: Path) -> dict[str, dict[str, tuple[str, int]]]:
    """Of each kind of database: name to text and number of values."""
    texts: dict[str, dict[str, tuple[str, int]]] = json.loads(file.read_text())
    return texts


def _broken(connection: Connection, statements: dict[str, tuple[str, int]]) -> dict[str, str]:
    """Runs each with 1 for every value, so that inserted rows belong together; what failed."""
    broken = {}
    for name, (text, values) in statements.items():
        try:
            connection.exec_driver_sql(text, (1,) * values)
        except DBAPIError as error:
            if not any(word in str(error) for word in ("UNIQUE constraint", "Duplicate entry")):
                broken[name] = str(error)
        if name == "create a context":
            connection.exec_driver_sql("UPDATE contexts SET state = 'RUNNING'")
    return broken
