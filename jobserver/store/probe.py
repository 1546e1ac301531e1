"""A write that needs room and leaves nothing: whether a database that refused writes takes them again. Statements only."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, insert

from jobserver.store.change import Change, Step, changed_one
from jobserver.store.statement import Statement
from jobserver.store.tables import configs

SIZE: Final = 1 << 20
"""Bytes: where InnoDB is full it still has single pages for small tables, half a megabyte for each."""
_NOBODY: Final = ""
"""The name of the row, which no config can have."""

_INSERT = Statement(
    insert(configs).inline().values({column.name: bindparam(column.name) for column in configs.c})
)
_DELETE = Statement(delete(configs).where(configs.c.name == bindparam("probe")))


def probe() -> Change[bool]:
    """A row is inserted and deleted in one transaction, so nobody sees it. To change no row always works, and shows nothing."""
    row = {"name": _NOBODY, "body": "x" * SIZE, "principal": "", "created_at": 0, "changed_at": 0}
    return Change((Step(_INSERT, row), Step(_DELETE, {"probe": _NOBODY})), changed_one)
