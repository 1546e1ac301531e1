"""The driver's own connection, for writes that are prepared statements only: what they need of SQLAlchemy's, without its cost.

A transaction of one change costs a third more processor time on SQLAlchemy's connection, and a job is two of
them. Errors are those that SQLAlchemy makes of the driver's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection, event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError


class PlainConnection:
    """Of a database whose transaction begins by the statement `begin`. Also its own transaction."""

    def __init__(self, connection: PoolProxiedConnection, dialect: Dialect, begin: str) -> None:
        self.connection = connection
        self.dialect = dialect
        self.valid = True
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

    def end_transaction(self) -> None:
        """Rolled back, or closed where that fails."""
        if self.valid:
            try:
                self.rollback()
            except DBAPIError:
                self.invalidate()

    def invalidate(self, _error: BaseException | None = None) -> None:
        """It is closed: the next transaction gets a new one."""
        self.valid = False
        self.connection.close()

    def exec_driver_sql(self, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Runs the statement for each row. Raises DBAPIError."""
        executed(self, text, rows, many=True).close()


class KeptConnection:
    """A plain connection that is kept from one transaction to the next: to take it from a pool and to give it back needs
    more of Python than a transaction of one change.

    For one thread. It is made as the engine's pool makes its own, which stay free for others, and ends with the engine.
    """

    def __init__(self, engine: Engine, begin: str) -> None:
        self._engine = engine
        self._begin = begin
        self._kept: PlainConnection | None = None
        event.listen(engine, "engine_disposed", self._end)

    @contextmanager
    def opened(self, _engine: Engine) -> Iterator[PlainConnection]:
        """The connection; what it has not committed when something fails is rolled back. Raises DBAPIError."""
        kept = self._kept or self._open()
        self._kept = None
        try:
            yield kept
        except BaseException:
            kept.end_transaction()
            raise
        finally:
            if kept.valid:
                self._kept = kept

    def _open(self) -> PlainConnection:
        dialect = self._engine.dialect
        try:
            connection = self._engine.raw_connection()
        except dialect.loaded_dbapi.Error as error:
            raise _as_sqlalchemy(error, dialect, "connect", (), gone=False) from error
        connection.detach()
        return PlainConnection(connection, dialect, self._begin)

    def _end(self, _engine: Engine) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.connection.close()


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
