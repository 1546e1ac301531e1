"""Statements of the hot path: compiled once, then run as text.

Running a prepared text costs a third of what SQLAlchemy's own execution of the same statement does (15 against 45 µs of
processor time per guarded update), and every job passes three of them. Errors are still SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Update
from sqlalchemy.engine import Dialect


class Statement:
    """An UPDATE, INSERT or DELETE whose every parameter is a named bind; values are integers, texts and None."""

    def __init__(self, clause: Insert | Update | Delete) -> None:
        self.clause = clause
        self._prepared: dict[str, _Prepared] = {}

    def changed(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Runs it; the number of rows that it changed."""
        prepared = self._prepared.get(connection.dialect.driver)
        if prepared is None:
            # Two threads may both come here; they make equal values.
            prepared = self._prepared[connection.dialect.driver] = _Prepared(self.clause, connection.dialect)
        return connection.exec_driver_sql(prepared.text, prepared.parameters(values)).rowcount


class _Prepared:
    """The text for one driver, with the order of its parameters."""

    def __init__(self, clause: Insert | Update | Delete, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        self.text = str(compiled)
        self._names = compiled.positiontup
        self._constants = {
            name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required
        }

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any] | tuple[Any, ...]:
        all_values = {**self._constants, **values}
        if self._names is None:
            return all_values
        return tuple([all_values[name] for name in self._names])
