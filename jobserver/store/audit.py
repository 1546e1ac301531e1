"""The audit: what operators and clients did to the cluster, appended and never changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from jobserver.history import Operation
from jobserver.store.acceptance import check_storable
from jobserver.store.database import Database
from jobserver.store.rows import instant, json_text, micros
from jobserver.store.tables import audit

LONGEST_TARGET = 255
"""Characters of a target that are kept."""


class AuditLog:
    """One server's access to the audit."""

    def __init__(self, database: Database, server: str) -> None:
        self._database = database
        self._server = server

    async def add(self, operation: Operation) -> None:
        """Appends; the server is this one unless the operation names another. Raises BadRequest."""
        check_storable("the user's name", operation.principal)
        check_storable("what the operation was done to", operation.target)
        written = replace(operation, server=operation.server or self._server)
        values = {
            "at": micros(written.at),
            "principal": written.principal,
            "action": written.action,
            "target": written.target[:LONGEST_TARGET],
            "detail": json_text(written.detail),
            "server": written.server,
        }

        def run(connection: Connection) -> None:
            connection.execute(insert(audit), values)

        await self._database.write(run)

    async def newest(self, limit: int) -> list[Operation]:
        """The last ones, newest first."""
        query = newest_of(limit)

        def run(connection: Connection) -> list[Operation]:
            return [_operation_of(row) for row in connection.execute(query)]

        return await self._database.read(run)


def newest_of(limit: int) -> Select[Any]:
    """By time; by arrival where that is equal."""
    return select(audit).order_by(audit.c.at.desc(), audit.c.id.desc()).limit(max(limit, 0))


def _operation_of(row: Row[Any]) -> Operation:
    return Operation(
        at=instant(row.at),
        principal=row.principal,
        action=row.action,
        target=row.target,
        detail=json.loads(row.detail),
        server=row.server,
    )
