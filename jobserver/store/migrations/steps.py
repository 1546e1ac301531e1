"""Steps of migrations that may be repeated: where DDL commits by itself (MySQL), an interrupted upgrade goes on from there.

Frozen as migrations are: what released revisions use must not change its meaning.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql


def exact(length: int) -> sa.types.TypeEngine[str]:
    """Text of bounded length that is compared byte by byte, blanks at its end included, and can be indexed."""
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation=_collation())
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def document() -> sa.types.TypeEngine[str]:
    """JSON or other text without a bound (MySQL's TEXT ends at 64 KiB)."""
    variant = mysql.LONGTEXT(charset="utf8mb4", collation=_collation())
    return sa.Text().with_variant(variant, "mysql", "mariadb")


def _collation() -> str:
    """`utf8mb4_bin` takes no notice of blanks at the end; those that do differ between MariaDB and MySQL."""
    mariadb = getattr(op.get_bind().dialect, "is_mariadb", False)
    return "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"


def create_table(name: str, *parts: Any, **options: Any) -> None:
    """As `op.create_table`, unless the table is there."""
    if not _inspect().has_table(name):
        op.create_table(name, *parts, **options)


def create_index(name: str, table: str, columns: list[Any], **options: Any) -> None:
    """As `op.create_index`, unless the table has an index of that name."""
    if name not in {index["name"] for index in _inspect().get_indexes(table)}:
        op.create_index(name, table, columns, **options)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """As `op.add_column`, unless the table has a column of that name."""
    if column.name not in {found["name"] for found in _inspect().get_columns(table)}:
        op.add_column(table, column)


def create_foreign_key(name: str, table: str, other: str, columns: list[str], others: list[str]) -> None:
    """As `op.create_foreign_key`, unless the table has one of that name. Not for SQLite, which makes tables anew."""
    if name not in {key["name"] for key in _inspect().get_foreign_keys(table)}:
        op.create_foreign_key(name, table, other, columns, others)


def _inspect() -> sa.Inspector:
    return sa.inspect(op.get_bind())
