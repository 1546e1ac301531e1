"""What the names in a submission stand for at this moment, in one read. Statements only."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from jobserver.model import BinaryRef, BinaryType, ContextState, NamedContext, References
from jobserver.store.rows import storable
from jobserver.store.statement import Query
from jobserver.store.tables import binaries, contexts
from jobserver.store.transaction import Work

_BINARY = Query(
    select(binaries.c.name, binaries.c.type, binaries.c.digest)
    .where(binaries.c.name == bindparam("wanted"))
    .order_by(binaries.c.id.desc())
    .limit(1)
)
_CONTEXT = Query(
    select(contexts.c.id, contexts.c.name, contexts.c.state, contexts.c.settings).where(
        contexts.c.active_name == bindparam("wanted")
    )
)


def of_names(names: Sequence[str], context: str | None) -> Work[References]:
    """The latest version of each binary, and the living context of that name; what does not exist is None."""

    def read(connection: Connection) -> References:
        found = tuple([_binary(connection, name) for name in names])
        return References(found, None if context is None else _context(connection, context))

    return read


def _binary(connection: Connection, name: str) -> BinaryRef | None:
    row = _BINARY.one(connection, {"wanted": name}) if storable(name) else None
    return None if row is None else BinaryRef(row[0], BinaryType(row[1]), row[2])


def _context(connection: Connection, name: str) -> NamedContext | None:
    row = _CONTEXT.one(connection, {"wanted": name}) if storable(name) else None
    return None if row is None else NamedContext(row[0], row[1], ContextState(row[2]), json.loads(row[3]))
