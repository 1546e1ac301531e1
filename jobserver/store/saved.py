"""What clients save under a name: configs and queries."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from jobserver.saved import SavedConfig, SavedQuery
from jobserver.store.acceptance import check_storable
from jobserver.store.database import Database
from jobserver.store.rows import Values, instant, json_text, micros, storable
from jobserver.store.tables import configs, queries
from jobserver.store.transaction import Work


class SavedItems:
    """One server's access to them. Putting replaces what has the name; errors are those of `Metadata`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_config(self, config: SavedConfig) -> bool:
        """Whether the name is new. A replaced one keeps its `created_at`. Raises BadRequest."""
        check_storable("the name of a config", config.name)
        values = {
            "name": config.name,
            "body": json_text(config.body),
            "principal": config.principal,
            "created_at": micros(config.created_at),
            "changed_at": micros(config.changed_at),
        }
        return await self._database.write(_put(configs, values, kept=("created_at",)))

    async def config(self, name: str) -> SavedConfig | None:
        if not storable(name):
            return None
        row = await self._database.read(_named(configs, name))
        return None if row is None else _config_of(row)

    async def configs(self, limit: int, after: str = "") -> list[SavedConfig]:
        """At most `limit`, by name, beginning behind the name `after`."""
        return [_config_of(row) for row in await self._database.read(_page(configs, limit, after))]

    async def delete_config(self, name: str) -> bool:
        """False when there was none."""
        return storable(name) and await self._database.write(_delete(configs, name))

    async def put_query(self, query: SavedQuery) -> bool:
        """Whether the name is new. A replaced one keeps its `created_at`. Raises BadRequest."""
        check_storable("the name of a query", query.name)
        check_storable("the name of a context", query.context)
        values = {
            "name": query.name,
            "text": json_text(query.text),
            "parameters": json_text(query.parameters),
            "context": query.context,
            "defaults": json_text(query.defaults),
            "principal": query.principal,
            "created_at": micros(query.created_at),
            "changed_at": micros(query.changed_at),
        }
        return await self._database.write(_put(queries, values, kept=("created_at",)))

    async def query(self, name: str) -> SavedQuery | None:
        if not storable(name):
            return None
        row = await self._database.read(_named(queries, name))
        return None if row is None else _query_of(row)

    async def queries(self, limit: int, after: str = "") -> list[SavedQuery]:
        """At most `limit`, by name, beginning behind the name `after`."""
        return [_query_of(row) for row in await self._database.read(_page(queries, limit, after))]

    async def delete_query(self, name: str) -> bool:
        """False when there was none."""
        return storable(name) and await self._database.write(_delete(queries, name))


def _put(table: Table, values: Values, *, kept: tuple[str, ...]) -> Work[bool]:
    """Update, else insert, else (another server inserted meanwhile) update. True when it was inserted."""
    changes = {name: value for name, value in values.items() if name not in ("name", *kept)}
    replacing = update(table).where(table.c.name == values["name"]).values(changes)

    def run(connection: Connection) -> bool:
        if connection.execute(replacing).rowcount:
            return False
        try:
            connection.execute(insert(table), values)
        except IntegrityError:
            connection.execute(replacing)
            return False
        return True

    return run


def _named(table: Table, name: str) -> Work[Row[Any] | None]:
    query = select(table).where(table.c.name == name)
    return lambda connection: connection.execute(query).one_or_none()


def page_of(table: Table, limit: int, after: str) -> Select[Any]:
    """The next `limit` rows by name."""
    return select(table).where(table.c.name > after).order_by(table.c.name).limit(max(limit, 0))


def _page(table: Table, limit: int, after: str) -> Work[list[Row[Any]]]:
    query = page_of(table, limit, after if storable(after) else "")
    return lambda connection: list(connection.execute(query))


def _delete(table: Table, name: str) -> Work[bool]:
    statement = delete(table).where(table.c.name == name)
    return lambda connection: connection.execute(statement).rowcount > 0


def _config_of(row: Row[Any]) -> SavedConfig:
    return SavedConfig(
        name=row.name,
        body=json.loads(row.body),
        principal=row.principal,
        created_at=instant(row.created_at),
        changed_at=instant(row.changed_at),
    )


def _query_of(row: Row[Any]) -> SavedQuery:
    return SavedQuery(
        name=row.name,
        text=json.loads(row.text),
        principal=row.principal,
        created_at=instant(row.created_at),
        changed_at=instant(row.changed_at),
        parameters=json.loads(row.parameters),
        context=row.context,
        defaults=json.loads(row.defaults),
    )
