"""Fence rows: who may write for a context. Statements only; they run inside `Database.read` and `Database.write`."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, select, update

from jobserver.model import FenceRow
from jobserver.store.change import Change, one
from jobserver.store.rows import fence_of
from jobserver.store.statement import Statement
from jobserver.store.tables import fences
from jobserver.store.transaction import Work

GRANT = Statement(
    update(fences)
    .where(fences.c.context_id == bindparam("context"), fences.c.epoch == bindparam("expected"))
    .values(
        epoch=bindparam("granted"),
        owner=bindparam("new_owner"),
        incarnation=bindparam("new_incarnation"),
        token=bindparam("new_token"),
        connection=bindparam("new_connection"),
    )
)


def of_contexts(ids: Collection[str]) -> Work[dict[str, FenceRow]]:
    """The fences of those contexts that exist."""
    query = select(fences).where(fences.c.context_id.in_(ids))
    return lambda connection: {row.context_id: fence_of(row) for row in connection.execute(query)}


def grant(expected_epoch: int, granted: FenceRow, connection: str) -> Change[bool]:
    """Raises the fence to `granted`; of several servers that saw the same epoch exactly one succeeds.

    `connection` names the owner's writing connection, so that the next one can end it (`mysql.evict`).
    """
    values = {
        "context": granted.context_id,
        "expected": expected_epoch,
        "granted": granted.epoch,
        "new_owner": granted.owner,
        "new_incarnation": granted.incarnation,
        "new_token": granted.token,
        "new_connection": connection,
    }
    return one(GRANT, values)
