"""The fence names its owner's connection, so that the next owner can end one that holds a lock."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from jobserver.store.migrations import steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    exact = sa.String(64).with_variant(
        mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    steps.add_column("fences", sa.Column("connection", exact, nullable=False, server_default=""))
