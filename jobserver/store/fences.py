"""Fence rows: who may write for a context. Statements only; they run inside `Database.read` and `Database.write`."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, select, update

from jobserver.model import FenceRow
from jobserver.store.rows import fence_of
from jobserver.store.tables import fences

_GRANT = (
    update(fences)
    .where(fences.c.context_id == bindparam("context"), fences.c.epoch == bindparam("expected"))
    .values(
        epoch=bindparam("granted"),
        owner=bindparam("new_owner"),
        incarnation=bindparam("new_incarnation"),
        token=bindparam("new_token"),
    )
)


def read_fences(connection: Connection, ids: Collection[str]) -> dict[str, FenceRow]:
    """The fences of those contexts that exist."""
    rows = connection.execute(select(fences).where(fences.c.context_id.in_(ids)))
    return {row.context_id: fence_of(row) for row in rows}


def grant(connection: Connection, expected_epoch: int, granted: FenceRow) -> bool:
    """Raises the fence to `granted`; of several servers that saw the same epoch exactly one succeeds."""
    result = connection.execute(
        _GRANT,
        {
            "context": granted.context_id,
            "expected": expected_epoch,
            "granted": granted.epoch,
            "new_owner": granted.owner,
            "new_incarnation": granted.incarnation,
            "new_token": granted.token,
        },
    )
    return result.rowcount == 1
