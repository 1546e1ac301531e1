"""The tables as the code of today knows them. Migrations import nothing from here; a test holds both equal.

Every query has its index: listing must stay flat with millions of jobs.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, UniqueConstraint

from jobserver.store.columns import document, exact, instant

metadata = MetaData()

binaries = Table(
    "binaries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", exact(255), nullable=False),
    Column("type", exact(16), nullable=False),
    Column("digest", exact(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("uploaded_at", instant(), nullable=False),
    Index("ix_binaries_name", "name", "id"),
    Index("ix_binaries_digest", "digest"),
)

contexts = Table(
    "contexts",
    metadata,
    Column("id", exact(36), primary_key=True),
    Column("name", exact(255), nullable=False),
    # The name while the context lives, NULL after: unique, so one living context per name.
    Column("active_name", exact(255), nullable=True),
    Column("state", exact(16), nullable=False),
    Column("adhoc", Boolean(create_constraint=False), nullable=False),
    Column("started_at", instant(), nullable=False),
    Column("ended_at", instant(), nullable=True),
    Column("settings", document(), nullable=False),
    Column("error", document(), nullable=True),
    Column("driver", document(), nullable=True),
    Column("last_failover", document(), nullable=True),
    UniqueConstraint("active_name", name="uq_contexts_active_name"),
    Index("ix_contexts_name", "name", "started_at"),
    Index("ix_contexts_state", "state"),
)

fences = Table(
    "fences",
    metadata,
    Column("context_id", exact(36), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", exact(255), nullable=False),
    Column("incarnation", exact(64), nullable=False),
    Column("token", exact(64), nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", exact(36), primary_key=True),
    Column("context_id", exact(36), nullable=False),
    Column("context_name", exact(255), nullable=False),
    Column("state", exact(16), nullable=False),
    Column("submitted_at", instant(), nullable=False),
    Column("changed_at", instant(), nullable=False),
    Column("started_at", instant(), nullable=True),
    Column("ended_at", instant(), nullable=True),
    Column("attempt", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("principal", exact(255), nullable=False),
    Column("idempotency_key", exact(255), nullable=True),
    Column("request_digest", exact(64), nullable=True),
    Column("spec", document(), nullable=False),
    Column("outcome", exact(16), nullable=True),
    Column("error", document(), nullable=True),
    # Last, so that reading the other columns does not walk through a long result.
    Column("result", document(), nullable=True),
    UniqueConstraint("principal", "idempotency_key", name="uq_jobs_key"),
    Index("ix_jobs_submitted", "submitted_at", "id"),
    Index("ix_jobs_state", "state", "submitted_at", "id"),
    Index("ix_jobs_context", "context_id", "state"),
)
