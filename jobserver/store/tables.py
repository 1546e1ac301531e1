"""The tables as the code of today knows them. Migrations import nothing from here; a test holds both equal.

Every query has its index: listing must stay flat with millions of jobs.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
)

from jobserver.store.columns import counter, document, exact, instant

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
    Index("ix_contexts_ended", "ended_at", "id"),
    Index("ix_contexts_name", "name", "started_at"),
    Index("ix_contexts_state", "state"),
)

fences = Table(
    "fences",
    metadata,
    Column("context_id", exact(36), ForeignKey("contexts.id", name="fk_fences_context"), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", exact(255), nullable=False),
    Column("incarnation", exact(64), nullable=False),
    Column("token", exact(64), nullable=False),
    # Name of the owner's writing connection; empty where no other server can end it (SQLite).
    Column("connection", exact(64), nullable=False, server_default=""),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", exact(36), primary_key=True),
    Column("context_id", exact(36), ForeignKey("contexts.id", name="fk_jobs_context"), nullable=False),
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
    # Out of the spec, for listings; NULL in jobs of releases that did not have it.
    Column("main_class", exact(255), nullable=True),
    # Last, so that reading the other columns does not walk through a long result.
    Column("result", document(), nullable=True),
    UniqueConstraint("principal", "idempotency_key", name="uq_jobs_key"),
    Index("ix_jobs_submitted", "submitted_at", "id"),
    Index("ix_jobs_state", "state", "submitted_at", "id"),
    Index("ix_jobs_context", "context_id", "state"),
    Index("ix_jobs_context_name", "context_name", "submitted_at", "id"),
    Index("ix_jobs_class", "main_class", "submitted_at", "id"),
)

# Every state that a job came to, written with the move itself. No attempt comes to a state twice, so the key also
# refuses a second record of one move.
job_history = Table(
    "job_history",
    metadata,
    Column(
        "job_id",
        exact(36),
        ForeignKey("jobs.id", name="fk_job_history_job", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("state", exact(16), primary_key=True),
    Column("at", instant(), nullable=False),
    Column("server", exact(255), nullable=False),
    # NULL where no fence was held: at acceptance, and at the end with a context that had ended.
    Column("epoch", BigInteger, nullable=True),
    Column("reason", document(), nullable=True),
    sqlite_with_rowid=False,
)

# Bytes in the checkpoint store. They are removed only by way of their row here.
binary_files = Table(
    "binary_files",
    metadata,
    Column("digest", exact(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("stored_at", instant(), nullable=False),
    Column("state", exact(16), nullable=False),
    Column("unused_since", instant(), nullable=True),
    Index("ix_binary_files_state", "state", "unused_since"),
)

# Which bytes the jobs of a context were accepted with: named objects may hold values whose classes are in them.
context_binaries = Table(
    "context_binaries",
    metadata,
    Column(
        "context_id",
        exact(36),
        ForeignKey("contexts.id", name="fk_context_binaries_context", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("digest", exact(64), primary_key=True),
    Index("ix_context_binaries_digest", "digest"),
    sqlite_with_rowid=False,
)

configs = Table(
    "configs",
    metadata,
    Column("name", exact(255), primary_key=True),
    Column("body", document(), nullable=False),
    Column("principal", exact(255), nullable=False),
    Column("created_at", instant(), nullable=False),
    Column("changed_at", instant(), nullable=False),
)

queries = Table(
    "queries",
    metadata,
    Column("name", exact(255), primary_key=True),
    Column("text", document(), nullable=False),
    Column("parameters", document(), nullable=False),
    Column("context", exact(255), nullable=True),
    Column("defaults", document(), nullable=False),
    Column("principal", exact(255), nullable=False),
    Column("created_at", instant(), nullable=False),
    Column("changed_at", instant(), nullable=False),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column(
        "job_id",
        exact(36),
        ForeignKey("jobs.id", name="fk_callbacks_job", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("url", document(), nullable=False),
    Column("state", exact(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_at", instant(), nullable=False),
    Column("last_error", document(), nullable=True),
    Index("ix_callbacks_due", "state", "next_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", counter(), primary_key=True, autoincrement=True),
    Column("at", instant(), nullable=False),
    Column("principal", exact(255), nullable=False),
    Column("action", exact(64), nullable=False),
    Column("target", exact(255), nullable=False),
    Column("detail", document(), nullable=False),
    Column("server", exact(255), nullable=False),
    Index("ix_audit_at", "at", "id"),
)
