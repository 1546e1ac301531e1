"""The first tables: binaries, contexts, fences, jobs."""

from __future__ import annotations

import sqlalchemy as sa

from jobserver.store.migrations import steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_binaries()
    _create_contexts()
    _create_fences()
    _create_jobs()


def _create_binaries() -> None:
    steps.create_table(
        "binaries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", steps.exact(255), nullable=False),
        sa.Column("type", steps.exact(16), nullable=False),
        sa.Column("digest", steps.exact(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("uploaded_at", sa.BigInteger, nullable=False),
    )
    steps.create_index("ix_binaries_name", "binaries", ["name", "id"])
    steps.create_index("ix_binaries_digest", "binaries", ["digest"])


def _create_contexts() -> None:
    steps.create_table(
        "contexts",
        sa.Column("id", steps.exact(36), primary_key=True),
        sa.Column("name", steps.exact(255), nullable=False),
        sa.Column("active_name", steps.exact(255), nullable=True),
        sa.Column("state", steps.exact(16), nullable=False),
        sa.Column("adhoc", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.Column("settings", steps.document(), nullable=False),
        sa.Column("error", steps.document(), nullable=True),
        sa.Column("driver", steps.document(), nullable=True),
        sa.Column("last_failover", steps.document(), nullable=True),
        sa.UniqueConstraint("active_name", name="uq_contexts_active_name"),
    )
    steps.create_index("ix_contexts_name", "contexts", ["name", "started_at"])
    steps.create_index("ix_contexts_state", "contexts", ["state"])


def _create_fences() -> None:
    steps.create_table(
        "fences",
        sa.Column("context_id", steps.exact(36), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("owner", steps.exact(255), nullable=False),
        sa.Column("incarnation", steps.exact(64), nullable=False),
        sa.Column("token", steps.exact(64), nullable=False),
    )


def _create_jobs() -> None:
    steps.create_table(
        "jobs",
        sa.Column("id", steps.exact(36), primary_key=True),
        sa.Column("context_id", steps.exact(36), nullable=False),
        sa.Column("context_name", steps.exact(255), nullable=False),
        sa.Column("state", steps.exact(16), nullable=False),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=True),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("principal", steps.exact(255), nullable=False),
        sa.Column("idempotency_key", steps.exact(255), nullable=True),
        sa.Column("request_digest", steps.exact(64), nullable=True),
        sa.Column("spec", steps.document(), nullable=False),
        sa.Column("outcome", steps.exact(16), nullable=True),
        sa.Column("error", steps.document(), nullable=True),
        sa.Column("result", steps.document(), nullable=True),
        sa.UniqueConstraint("principal", "idempotency_key", name="uq_jobs_key"),
    )
    steps.create_index("ix_jobs_submitted", "jobs", ["submitted_at", "id"])
    steps.create_index("ix_jobs_state", "jobs", ["state", "submitted_at", "id"])
    steps.create_index("ix_jobs_context", "jobs", ["context_id", "state"])
