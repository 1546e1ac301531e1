"""History of jobs, saved configs and queries, callbacks, audit, bytes of binaries, data files; foreign keys."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIVING_JOBS = """
    SELECT jobs.context_id, jobs.spec FROM jobs
    JOIN contexts ON contexts.id = jobs.context_id WHERE contexts.active_name IS NOT NULL
"""
_BATCH = 1000


def _exact(length: int) -> sa.types.TypeEngine[str]:
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _document() -> sa.types.TypeEngine[str]:
    variant = mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
    return sa.Text().with_variant(variant, "mysql", "mariadb")


def upgrade() -> None:
    _extend_jobs()
    _extend_contexts()
    _create_history()
    _create_binary_files()
    _create_saved()
    _create_callbacks()
    _create_data_files()
    _create_audit()
    _fill_main_class()
    _fill_binary_files()
    _fill_context_binaries()


def _extend_jobs() -> None:
    """SQLite makes the table anew; `result` stays last there. The column may be NULL: servers of before insert, too."""
    anew = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("jobs", recreate="always" if anew else "never") as jobs:
        main_class = sa.Column("main_class", _exact(255), nullable=True)
        jobs.add_column(main_class, insert_before="result" if anew else None)
        jobs.create_foreign_key("fk_jobs_context", "contexts", ["context_id"], ["id"])
    op.create_index("ix_jobs_context_name", "jobs", ["context_name", "submitted_at", "id"])
    op.create_index("ix_jobs_class", "jobs", ["main_class", "submitted_at", "id"])


def _extend_contexts() -> None:
    op.create_index("ix_contexts_ended", "contexts", ["ended_at", "id"])
    with op.batch_alter_table("fences") as fences:
        fences.create_foreign_key("fk_fences_context", "contexts", ["context_id"], ["id"])


def _create_history() -> None:
    op.create_table(
        "job_history",
        sa.Column("job_id", _exact(36), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", _exact(16), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("server", _exact(255), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=True),
        sa.Column("reason", _document(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_history_job", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _create_binary_files() -> None:
    op.create_table(
        "binary_files",
        sa.Column("digest", _exact(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.Column("state", _exact(16), nullable=False),
        sa.Column("unused_since", sa.BigInteger, nullable=True),
    )
    op.create_index("ix_binary_files_state", "binary_files", ["state", "unused_since"])
    op.create_table(
        "context_binaries",
        sa.Column("context_id", _exact(36), primary_key=True),
        sa.Column("digest", _exact(64), primary_key=True),
        sa.ForeignKeyConstraint(
            ["context_id"], ["contexts.id"], name="fk_context_binaries_context", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_context_binaries_digest", "context_binaries", ["digest"])


def _create_saved() -> None:
    op.create_table(
        "configs",
        sa.Column("name", _exact(255), primary_key=True),
        sa.Column("body", _document(), nullable=False),
        *_author_and_times(),
    )
    op.create_table(
        "queries",
        sa.Column("name", _exact(255), primary_key=True),
        sa.Column("text", _document(), nullable=False),
        sa.Column("parameters", _document(), nullable=False),
        sa.Column("context", _exact(255), nullable=True),
        sa.Column("defaults", _document(), nullable=False),
        *_author_and_times(),
    )


def _author_and_times() -> list[sa.Column[object]]:
    return [
        sa.Column("principal", _exact(255), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    ]


def _create_callbacks() -> None:
    op.create_table(
        "callbacks",
        sa.Column("job_id", _exact(36), primary_key=True),
        sa.Column("url", _document(), nullable=False),
        sa.Column("state", _exact(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("last_error", _document(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_callbacks_job", ondelete="CASCADE"),
    )
    op.create_index("ix_callbacks_due", "callbacks", ["state", "next_at"])


def _create_data_files() -> None:
    op.create_table(
        "data_files",
        sa.Column("name", _exact(255), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("digest", _exact(64), nullable=False),
        sa.Column("principal", _exact(255), nullable=False),
        sa.Column("uploaded_at", sa.BigInteger, nullable=False),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("principal", _exact(255), nullable=False),
        sa.Column("action", _exact(64), nullable=False),
        sa.Column("target", _exact(255), nullable=False),
        sa.Column("detail", _document(), nullable=False),
        sa.Column("server", _exact(255), nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at", "id"])


def _fill_main_class() -> None:
    """Out of the specs, in the database itself: there may be a million of them."""
    unquoted = "JSON_UNQUOTE({})" if op.get_bind().dialect.name in ("mysql", "mariadb") else "{}"
    value = unquoted.format("json_extract(spec, '$.main_class')")
    op.execute(f"UPDATE jobs SET main_class = substr({value}, 1, 255)")


def _fill_binary_files() -> None:
    op.execute(
        "INSERT INTO binary_files (digest, size, stored_at, state) "
        "SELECT digest, max(size), min(uploaded_at), 'KEPT' FROM binaries GROUP BY digest"
    )


def _fill_context_binaries() -> None:
    """Of contexts that live; those that ended need nothing any more."""
    connection = op.get_bind()
    found: set[tuple[str, str]] = set()
    for context_id, spec in connection.execute(sa.text(_LIVING_JOBS)).yield_per(_BATCH):
        found.update((context_id, digest) for _name, _type, digest in json.loads(spec)["binaries"])
    table = sa.table("context_binaries", sa.column("context_id"), sa.column("digest"))
    rows = [{"context_id": context_id, "digest": digest} for context_id, digest in sorted(found)]
    if rows:
        connection.execute(sa.insert(table), rows)
