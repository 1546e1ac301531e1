"""The driver's own connection, for writes that are prepared statements only: what they need of SQLAlchemy's, without its cost.

A transaction of one change costs a third more processor time on SQLAlchemy's connection, and a job is two of
them. Connections are still the pool's, errors those that SQLAlchemy makes of the driver's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError


class PlainConnection:
    """Of a database whose transaction begins by the statement `begin`. Also its own transaction."""

    def __init__(self, connection: PoolProxiedConnection, dialect: Dialect, begin: str) -> None:
        self.connection = connection
        self.dialect = dialect
        self._begin = begin

    def begin(self) -> PlainConnection:
        """Begins it. Raises DBAPIError."""
        executed(self, self._begin, ()).close()
        return self

    def commit(self) -> None:
        """Raises DBAPIError, also when the database has ended the transaction by itself."""
        executed(self, "COMMIT", ()).close()

    def rollback(self) -> None:
        """Nothing, where the database has rolled back by itself. Raises DBAPIError."""
        try:
            self.connection.rollback()
        except self.dialect.loaded_dbapi.Error as error:
            raise _as_sqlalchemy(error, self.dialect, "ROLLBACK", (), gone=False) from error

    def invalidate(self, error: BaseException | None = None) -> None:
        """The pool makes a new one in its place."""
        self.connection.invalidate(error)

    def exec_driver_sql(self, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Runs the statement for each row. Raises DBAPIError."""
        executed(self, text, rows, many=True).close()


@contextmanager
def opened(engine: Engine, begin: str) -> Iterator[PlainConnection]:
    """A connection of the engine's pool; what it has not committed is rolled back. Raises DBAPIError."""
    try:
        connection = engine.raw_connection()
    except engine.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(error, engine.dialect, "connect", (), gone=False) from error
    try:
        yield PlainConnection(connection, engine.dialect, begin)
    finally:
        connection.close()


def executed(connection: Any, text: str, parameters: Sequence[Any], *, many: bool = False) -> Any:
    """The driver's cursor after the statement; `connection` is a `PlainConnection` or one of SQLAlchemy.

    The driver's errors become those that SQLAlchemy makes of them.
    """
    dialect: Dialect = connection.dialect
    raw = connection.connection
    cursor = raw.cursor()
    try:
        if many:
            cursor.executemany(text, parameters)
        else:
            cursor.execute(text, parameters)
    except dialect.loaded_dbapi.Error as error:
        gone = dialect.is_disconnect(error, raw.dbapi_connection, cursor)
        if gone:
            connection.invalidate(error)
        else:
            cursor.close()
        raise _as_sqlalchemy(error, dialect, text, parameters, gone=gone) from error
    return cursor


def _as_sqlalchemy(
    error: Exception, dialect: Dialect, text: str, parameters: Sequence[Any], *, gone: bool
) -> BaseException:
    return DBAPIError.instance(
        text,
        tuple(parameters),
        error,
        dialect.loaded_dbapi.Error,
        connection_invalidated=gone,
        dialect=dialect,
    )
