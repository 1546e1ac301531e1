"""The whole of a database as JSON lines, and back into an empty one: a backup, or the way from one kind of database to another.

The first line says what it is, the last one how many rows of each table there are, so that a file cut short is not taken for
whole. Rows stand in the order in which they can be inserted; reading and writing hold a few hundred of them at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from sqlalchemy import Connection, Engine, Table, insert, select
from sqlalchemy.exc import SQLAlchemyError

from jobserver.errors import BadRequest, StoreUnavailable
from jobserver.store import schema
from jobserver.store.database import Database
from jobserver.store.tables import metadata
from jobserver.store.transaction import unavailable

FORMAT: Final = 1
"""Version of the form of the file; the version of what is in the rows is that of the schema."""
TABLES: Final[Mapping[str, Table]] = {table.name: table for table in metadata.sorted_tables}
"""Each after those that it refers to."""

_BATCH: Final = 500
_LOCAL: Final = {"fences": {"connection": ""}}
"""What means something to living connections of that very database only, and what stands there instead."""

Counts = dict[str, int]


class Transfer:
    """One server's way to take all or bring all. No server should write meanwhile, or what it writes is not in the file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def export(self, file: TextIO) -> Counts:
        """Writes every row as of one moment; how many of each table. Raises StoreUnavailable, WrongSchema, OSError."""
        return await asyncio.to_thread(_export, self._database.reading, file)

    async def take_in(self, file: TextIO) -> Counts:
        """Inserts every row of the file, all or none; how many of each table.

        Raises BadRequest when the database is not empty or the file is not whole or of another version; StoreUnavailable,
        WrongSchema.
        """
        return await asyncio.to_thread(_take_in, self._database.writing, file)


@contextlib.contextmanager
def _transaction(engine: Engine, *, reading: bool) -> Iterator[Connection]:
    """One moment of the database, or one change of it. An error rolls back. Raises StoreUnavailable."""
    try:
        with engine.connect() as connection:
            if engine.dialect.name != "sqlite":
                connection.execution_options(isolation_level="REPEATABLE READ")
            elif reading:
                connection.exec_driver_sql("BEGIN")
            schema.refuse_other(schema.revision_of(connection))
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
    except SQLAlchemyError as error:
        raise unavailable(error) from error


def _export(engine: Engine, file: TextIO) -> Counts:
    counts: Counts = dict.fromkeys(TABLES, 0)
    with _transaction(engine, reading=True) as connection:
        _write(file, _header())
        for name, table in TABLES.items():
            query = select(table).order_by(*table.primary_key.columns)
            rows = connection.execution_options(stream_results=True, yield_per=_BATCH).execute(query)
            for row in rows:
                _write(file, {"table": name, "row": {**row._asdict(), **_LOCAL.get(name, {})}})
                counts[name] += 1
        _write(file, {"end": counts})
    return counts


def _header() -> dict[str, Any]:
    return {
        "jobserver-export": FORMAT,
        "schema": schema.newest_revision(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write(file: TextIO, value: object) -> None:
    file.write(json.dumps(value, separators=(",", ":")) + "\n")


def _take_in(engine: Engine, file: TextIO) -> Counts:
    _check_header(file.readline())
    with _transaction(engine, reading=False) as connection:
        _check_empty(connection)
        counts: Counter[str] = Counter()
        end: Mapping[str, int] | None = None
        for table, rows, said in _batches(file):
            if table is not None:
                _insert(connection, table, rows)
                counts[table.name] += len(rows)
            end = said
        if end is None:
            raise BadRequest("the file ends before its last line: it is not whole, nothing was imported")
        if dict(end) != {name: counts[name] for name in TABLES}:
            raise BadRequest("the file has not the rows that its last line tells of: nothing was imported")
    return dict(end)


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    try:
        connection.execute(insert(table), rows)
    except SQLAlchemyError as error:
        reason = unavailable(error).message
        raise StoreUnavailable(
            f"rows of table {table.name} were not taken, nothing was imported: {reason}"
        ) from error


def _check_header(line: str) -> None:
    header = _parsed(line, 1)
    if header.get("jobserver-export") != FORMAT:
        raise BadRequest(
            f"the file is no export of this version ({FORMAT}): make it with `jobserver db export`"
        )
    if header.get("schema") != schema.newest_revision():
        raise BadRequest(
            f"the file has rows of schema {header.get('schema')}, this release works with {schema.newest_revision()}: "
            f"export with the same release that imports"
        )


def _check_empty(connection: Connection) -> None:
    for name, table in TABLES.items():
        if connection.execute(select(*table.primary_key.columns).limit(1)).first() is not None:
            raise BadRequest(f"the database is not empty (table {name} has rows): import into a new one only")


def _batches(file: TextIO) -> Iterator[tuple[Table | None, list[dict[str, Any]], Mapping[str, int] | None]]:
    """Rows of one table at a time; at the very end what the last line says. Raises BadRequest."""
    table: Table | None = None
    rows: list[dict[str, Any]] = []
    end: Mapping[str, int] | None = None
    for number, line in enumerate(file, start=2):
        if end is not None:
            raise BadRequest(f"line {number} stands behind the last line of an export: nothing was imported")
        value = _parsed(line, number)
        if "end" in value:
            end = value["end"]
            continue
        next_table, row = _row(value, number)
        if rows and (next_table is not table or len(rows) >= _BATCH):
            yield table, rows, None
            rows = []
        table = next_table
        rows.append(row)
    if rows:
        yield table, rows, None
    yield None, [], end


def _row(value: Mapping[str, Any], number: int) -> tuple[Table, dict[str, Any]]:
    table, row = TABLES.get(str(value.get("table"))), value.get("row")
    if table is None or not isinstance(row, dict) or set(row) != set(table.c.keys()):
        raise BadRequest(f"line {number} is no row of a table of this release: nothing was imported")
    return table, row


def _parsed(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadRequest(f"line {number} is no JSON object: the file is no export, or is cut short")
    return value
