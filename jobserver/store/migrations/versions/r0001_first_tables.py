"""The first tables: binaries, contexts, fences, jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _exact(length: int) -> sa.types.TypeEngine[str]:
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _document() -> sa.types.TypeEngine[str]:
    variant = mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
    return sa.Text().with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    _create_binaries()
    _create_contexts()
    _create_fences()
    _create_jobs()


def _create_binaries() -> None:
    op.create_table(
        "binaries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", _exact(255), nullable=False),
        sa.Column("type", _exact(16), nullable=False),
        sa.Column("digest", _exact(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("uploaded_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_binaries_name", "binaries", ["name", "id"])
    op.create_index("ix_binaries_digest", "binaries", ["digest"])


def _create_contexts() -> None:
    op.create_table(
        "contexts",
        sa.Column("id", _exact(36), primary_key=True),
        sa.Column("name", _exact(255), nullable=False),
        sa.Column("active_name", _exact(255), nullable=True),
        sa.Column("state", _exact(16), nullable=False),
        sa.Column("adhoc", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.Column("settings", _document(), nullable=False),
        sa.Column("error", _document(), nullable=True),
        sa.Column("driver", _document(), nullable=True),
        sa.Column("last_failover", _document(), nullable=True),
        sa.UniqueConstraint("active_name", name="uq_contexts_active_name"),
    )
    op.create_index("ix_contexts_name", "contexts", ["name", "started_at"])
    op.create_index("ix_contexts_state", "contexts", ["state"])


def _create_fences() -> None:
    op.create_table(
        "fences",
        sa.Column("context_id", _exact(36), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("owner", _exact(255), nullable=False),
        sa.Column("incarnation", _exact(64), nullable=False),
        sa.Column("token", _exact(64), nullable=False),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _exact(36), primary_key=True),
        sa.Column("context_id", _exact(36), nullable=False),
        sa.Column("context_name", _exact(255), nullable=False),
        sa.Column("state", _exact(16), nullable=False),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=True),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("principal", _exact(255), nullable=False),
        sa.Column("idempotency_key", _exact(255), nullable=True),
        sa.Column("request_digest", _exact(64), nullable=True),
        sa.Column("spec", _document(), nullable=False),
        sa.Column("outcome", _exact(16), nullable=True),
        sa.Column("error", _document(), nullable=True),
        sa.Column("result", _document(), nullable=True),
        sa.UniqueConstraint("principal", "idempotency_key", name="uq_jobs_key"),
    )
    op.create_index("ix_jobs_submitted", "jobs", ["submitted_at", "id"])
    op.create_index("ix_jobs_state", "jobs", ["state", "submitted_at", "id"])
    op.create_index("ix_jobs_context", "jobs", ["context_id", "state"])
