"""Statements and queries of the hot path: compiled once, then run as text.

Every job passes several of them, and SQLAlchemy's own execution costs a multiple of the statement itself: of the prepared
text there is only the driver's cursor in the way. Connections, transactions and errors are still SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Select, TextClause, Update
from sqlalchemy.engine import Dialect

from jobserver.store.plain import PlainConnection, executed

Clause = Insert | Update | Delete | Select[Any] | TextClause


class _Texts:
    """A clause whose every parameter is a named bind, prepared for each database that asks."""

    def __init__(self, clause: Clause) -> None:
        self._clause = clause
        self._prepared: dict[str, _Prepared] = {}

    def _prepared_for(self, dialect: Dialect) -> _Prepared:
        prepared = self._prepared.get(dialect.driver)
        if prepared is None:
            # Two threads may both come here; they make equal values.
            prepared = self._prepared[dialect.driver] = _Prepared(self._clause, dialect)
        return prepared


class Query(_Texts):
    """A SELECT of columns that need no conversion: integers, texts and None."""

    def __init__(self, clause: Select[Any]) -> None:
        super().__init__(clause)

    def one(self, connection: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Its first row."""
        prepared = self._prepared_for(connection.dialect)
        cursor = executed(connection, prepared.text, prepared.parameters(values))
        try:
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row
        finally:
            cursor.close()

    def all(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """All its rows."""
        prepared = self._prepared_for(connection.dialect)
        cursor = executed(connection, prepared.text, prepared.parameters(values))
        try:
            rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
            return rows
        finally:
            cursor.close()


class Statement(_Texts):
    """An UPDATE, INSERT or DELETE, or a text with named binds; values are integers, texts and None."""

    def __init__(self, clause: Insert | Update | Delete | TextClause) -> None:
        super().__init__(clause)
        self.clause = clause

    def changed(self, connection: Connection | PlainConnection, values: Mapping[str, Any]) -> int:
        """Runs it; the number of rows that it changed."""
        prepared = self._prepared_for(connection.dialect)
        cursor = executed(connection, prepared.text, prepared.parameters(values))
        count: int = cursor.rowcount
        cursor.close()
        return count

    def insert_all(self, connection: Connection | PlainConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Runs an insertion once for each row, in one call of the driver."""
        prepared = self._prepared_for(connection.dialect)
        connection.exec_driver_sql(prepared.text, [prepared.parameters(row) for row in rows])

    def in_order(self, dialect: Dialect, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of its parameters, in the order of `parts`. Raises KeyError for one that is missing."""
        return self._prepared_for(dialect).parameters(values)

    def written_out(
        self,
        dialect: Dialect,
        values: Mapping[str, Any],
        literals: Callable[[Sequence[Any]], tuple[str, ...]],
    ) -> str:
        """The text with its values in it, each made by the driver's own way to write a literal."""
        prepared = self._prepared_for(dialect)
        return prepared.text % literals(prepared.parameters(values))

    def parts(self, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
        """The text with a place (%s) for each parameter, and the parameters' names in that order."""
        prepared = self._prepared_for(dialect)
        return prepared.text, prepared.names


class _Prepared:
    """The text for one driver, with the order of its parameters."""

    def __init__(self, clause: Clause, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        self.text = str(compiled)
        if compiled.positiontup is None:
            raise TypeError(f"the driver {dialect.driver} has no parameters by position")
        self.names = tuple(compiled.positiontup)
        self._constants = {
            name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required
        }

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        all_values = {**self._constants, **values}
        return tuple([all_values[name] for name in self.names])
