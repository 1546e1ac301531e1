"""The fence names its owner's connection, so that the next owner can end one that holds a lock."""

from __future__ import annotations

import sqlalchemy as sa

from jobserver.store.migrations import steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.add_column("fences", sa.Column("connection", steps.exact(64), nullable=False, server_default=""))
