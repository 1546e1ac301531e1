"""History of jobs, saved configs and queries, callbacks, audit, bytes of binaries; foreign keys."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from jobserver.store.migrations import steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIVING_JOBS = """
    SELECT jobs.context_id, jobs.spec FROM jobs
    JOIN contexts ON contexts.id = jobs.context_id WHERE contexts.active_name IS NOT NULL
"""
_BATCH = 1000


def upgrade() -> None:
    _extend_jobs()
    _extend_contexts()
    _create_history()
    _create_binary_files()
    _create_saved()
    _create_callbacks()
    _create_audit()
    _fill_main_class()
    _fill_binary_files()
    _fill_context_binaries()


def _extend_jobs() -> None:
    """SQLite makes the table anew; `result` stays last there. The column may be NULL: servers of before insert, too."""
    main_class: sa.Column[str] = sa.Column("main_class", steps.exact(255), nullable=True)
    if _is_sqlite():
        with op.batch_alter_table("jobs", recreate="always") as jobs:
            jobs.add_column(main_class, insert_before="result")
            jobs.create_foreign_key("fk_jobs_context", "contexts", ["context_id"], ["id"])
    else:
        steps.add_column("jobs", main_class)
        steps.create_foreign_key("fk_jobs_context", "jobs", "contexts", ["context_id"], ["id"])
    steps.create_index("ix_jobs_context_name", "jobs", ["context_name", "submitted_at", "id"])
    steps.create_index("ix_jobs_class", "jobs", ["main_class", "submitted_at", "id"])


def _extend_contexts() -> None:
    steps.create_index("ix_contexts_ended", "contexts", ["ended_at", "id"])
    if _is_sqlite():
        with op.batch_alter_table("fences") as fences:
            fences.create_foreign_key("fk_fences_context", "contexts", ["context_id"], ["id"])
    else:
        steps.create_foreign_key("fk_fences_context", "fences", "contexts", ["context_id"], ["id"])


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _create_history() -> None:
    steps.create_table(
        "job_history",
        sa.Column("job_id", steps.exact(36), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", steps.exact(16), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("server", steps.exact(255), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=True),
        sa.Column("reason", steps.document(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_history_job", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _create_binary_files() -> None:
    steps.create_table(
        "binary_files",
        sa.Column("digest", steps.exact(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.Column("state", steps.exact(16), nullable=False),
        sa.Column("unused_since", sa.BigInteger, nullable=True),
    )
    steps.create_index("ix_binary_files_state", "binary_files", ["state", "unused_since"])
    steps.create_table(
        "context_binaries",
        sa.Column("context_id", steps.exact(36), primary_key=True),
        sa.Column("digest", steps.exact(64), primary_key=True),
        sa.ForeignKeyConstraint(
            ["context_id"], ["contexts.id"], name="fk_context_binaries_context", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    steps.create_index("ix_context_binaries_digest", "context_binaries", ["digest"])


def _create_saved() -> None:
    steps.create_table(
        "configs",
        sa.Column("name", steps.exact(255), primary_key=True),
        sa.Column("body", steps.document(), nullable=False),
        *_author_and_times(),
    )
    steps.create_table(
        "queries",
        sa.Column("name", steps.exact(255), primary_key=True),
        sa.Column("text", steps.document(), nullable=False),
        sa.Column("parameters", steps.document(), nullable=False),
        sa.Column("context", steps.exact(255), nullable=True),
        sa.Column("defaults", steps.document(), nullable=False),
        *_author_and_times(),
    )


def _author_and_times() -> list[sa.Column[object]]:
    return [
        sa.Column("principal", steps.exact(255), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    ]


def _create_callbacks() -> None:
    steps.create_table(
        "callbacks",
        sa.Column("job_id", steps.exact(36), primary_key=True),
        sa.Column("url", steps.document(), nullable=False),
        sa.Column("state", steps.exact(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("last_error", steps.document(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_callbacks_job", ondelete="CASCADE"),
    )
    steps.create_index("ix_callbacks_due", "callbacks", ["state", "next_at"])


def _create_audit() -> None:
    steps.create_table(
        "audit",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("principal", steps.exact(255), nullable=False),
        sa.Column("action", steps.exact(64), nullable=False),
        sa.Column("target", steps.exact(255), nullable=False),
        sa.Column("detail", steps.document(), nullable=False),
        sa.Column("server", steps.exact(255), nullable=False),
    )
    steps.create_index("ix_audit_at", "audit", ["at", "id"])


def _fill_main_class() -> None:
    """Out of the specs, in the database itself: there may be a million of them."""
    unquoted = "{}" if _is_sqlite() else "JSON_UNQUOTE({})"
    value = unquoted.format("json_extract(spec, '$.main_class')")
    op.execute(f"UPDATE jobs SET main_class = substr({value}, 1, 255)")


def _fill_binary_files() -> None:
    op.execute(
        "INSERT INTO binary_files (digest, size, stored_at, state) "
        "SELECT digest, max(size), min(uploaded_at), 'KEPT' FROM binaries "
        "WHERE digest NOT IN (SELECT digest FROM binary_files) GROUP BY digest"
    )


def _fill_context_binaries() -> None:
    """Of contexts that live; those that ended need nothing any more."""
    connection = op.get_bind()
    found: set[tuple[str, str]] = set()
    for context_id, spec in connection.execute(sa.text(_LIVING_JOBS)).yield_per(_BATCH):
        found.update((context_id, digest) for _name, _type, digest in json.loads(spec)["binaries"])
    table = sa.table("context_binaries", sa.column("context_id"), sa.column("digest"))
    found -= {(row.context_id, row.digest) for row in connection.execute(sa.select(table))}
    rows = [{"context_id": context_id, "digest": digest} for context_id, digest in sorted(found)]
    if rows:
        connection.execute(sa.insert(table), rows)
