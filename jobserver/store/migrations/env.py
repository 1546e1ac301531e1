"""Alembic's entry: runs on the connection, and in the transaction, that `jobserver/store/schema.py` gives."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
