"""Rows that databases of older revisions hold, as SQL that MySQL and SQLite both read.

A database of a revision is made step by step: upgraded to each, then filled with its rows.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from sqlalchemy import Connection, inspect

from jobserver.store import schema
from jobserver.store.database import Database

SPEC = json.dumps(
    {
        "main_class": "demo.Wörter",
        "binaries": [["demo", "Egg", "d" * 64]],
        "config": "{}",
        "max_attempts": 3,
        "on_failover": "rerun",
    }
)
ROWS = {
    "0001": (
        "INSERT INTO binaries (name, type, digest, size, uploaded_at) VALUES"
        f" ('demo', 'Egg', '{'d' * 64}', 7, 5), ('copy', 'Egg', '{'d' * 64}', 7, 4)",
        "INSERT INTO contexts (id, name, active_name, state, adhoc, started_at, ended_at, settings) VALUES"
        " ('c1', 'ctx', 'ctx', 'RUNNING', 0, 1, NULL, '{}'), ('c2', 'old', NULL, 'FINISHED', 1, 1, 2, '{}')",
        "INSERT INTO fences (context_id, epoch, owner, incarnation, token) VALUES"
        " ('c1', 3, 's1', 'i1', 't3'), ('c2', 1, 's1', 'i1', 't1')",
        "INSERT INTO jobs (id, context_id, context_name, state, submitted_at, changed_at, attempt, deaths, priority,"
        " principal, spec, result) VALUES"
        f" ('j1', 'c1', 'ctx', 'RUNNING', 2, 3, 1, 0, 0, 'p', '{SPEC}', NULL),"
        f" ('j2', 'c2', 'old', 'FINISHED', 1, 2, 1, 0, 0, 'p', '{SPEC}', '{{\"n\":1}}')",
    ),
    "0002": (
        "INSERT INTO job_history (job_id, attempt, state, at, server, epoch, reason) VALUES"
        " ('j1', 1, 'RUNNING', 3, 's1', 3, NULL), ('j2', 1, 'FINISHED', 2, 's1', 1, NULL)",
        "INSERT INTO callbacks (job_id, url, state, tries, next_at, last_error) VALUES"
        " ('j1', 'http://a.example/told', 'PENDING', 0, 9, NULL)",
        "INSERT INTO configs (name, body, principal, created_at, changed_at) VALUES"
        " ('nightly', '{\"a\":1}', 'p', 4, 5)",
        "INSERT INTO queries (name, text, parameters, context, defaults, principal, created_at, changed_at) VALUES"
        " ('top', '\"select 1\"', '{}', 'ctx', '{}', 'p', 4, 5)",
        "INSERT INTO audit (at, principal, action, target, detail, server) VALUES"
        " (6, 'p', 'drain', 's2', '{}', 's1')",
    ),
}
"""By the revision that has the tables. Rows of a revision are not changed any more once it was released."""


async def make(database: Database, revision: str) -> None:
    """The schema of that revision with the rows of all up to it."""
    for each in (one for one in schema.revisions() if one <= revision):
        await database.write(partial(schema.upgrade, to=each))
        for text in ROWS[each]:
            await database.write(partial(_execute, text=text))


async def dump(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but alembic's, by table."""

    def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
        names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        return {name: _rows(connection, name) for name in names}

    return await database.read(read)


async def check_kept(database: Database, before: dict[str, list[dict[str, Any]]]) -> None:
    """Every row is there with its values; columns that are new may hold anything."""
    after = await dump(database)
    for table, old in before.items():
        kept = [{name: row[name] for name in old[0]} for row in after[table]] if old else []
        assert sorted(kept, key=repr) == old, table


def _rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    rows = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
    return sorted((dict(row) for row in rows), key=repr)


def _execute(connection: Connection, text: str) -> None:
    if connection.dialect.name != "sqlite":
        text = text.replace("\\", "\\\\")  # MySQL reads escapes in texts
    connection.exec_driver_sql(text)
