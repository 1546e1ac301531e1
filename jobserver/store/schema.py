"""The schema's version: which one a store has, bringing it forward, and refusing what this release does not know.

Of two servers that upgrade at once, the second waits and finds the work done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from jobserver.errors import StoreUnavailable, WrongSchema
from jobserver.store import mysql

_LOCK_WAIT = 60
_LOCK = "SELECT GET_LOCK(CONCAT('jobserver-upgrade-', DATABASE()), %s)"
_UNLOCK = "SELECT RELEASE_LOCK(CONCAT('jobserver-upgrade-', DATABASE()))"
_MIGRATIONS = Path(__file__).with_name("migrations")


def revision_of(connection: Connection) -> str | None:
    """The revision of the store behind the connection, None when it was never upgraded."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def newest_revision() -> str:
    """The revision that this release works with."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    if head is None:
        raise RuntimeError("the package holds no migrations")
    return head


def revisions() -> list[str]:
    """All that this release knows, oldest first."""
    scripts = ScriptDirectory(str(_MIGRATIONS)).walk_revisions()
    return [script.revision for script in scripts][::-1]


def refuse_other(revision: str | None) -> None:
    """Raises WrongSchema unless `revision` is the one of this release."""
    if revision == newest_revision():
        return
    if revision is None or _known(revision):
        found = "has no tables yet" if revision is None else f"has the older schema {revision}"
        raise WrongSchema(
            f"the metadata store {found}, this release needs {newest_revision()}: run `jobserver db upgrade`"
        )
    raise _later(revision)


def upgrade(connection: Connection, to: str = "head") -> None:
    """Runs the missing migrations, up to `to`. Raises WrongSchema for a later schema, SettingsRefused for an unfit server.

    On SQLite it is one transaction. MySQL commits each statement of a migration by itself: there a lock of its own keeps
    a second server waiting, and every step may be repeated, so that the next upgrade completes one that was cut short.
    """
    refuse_unfit(connection)
    with _alone(connection):
        _upgrade(connection, to)


def refuse_unfit(connection: Connection) -> None:
    """Raises SettingsRefused when the database is none that the promises can be kept on."""
    if connection.dialect.name != "sqlite":
        mysql.refuse_unfit(connection)


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "sqlite":
        yield  # its write lock was taken when the transaction began
        return
    if connection.exec_driver_sql(_LOCK, (_LOCK_WAIT,)).scalar() != 1:
        raise StoreUnavailable(f"another server has been upgrading the schema for {_LOCK_WAIT} s")
    try:
        yield
    finally:
        connection.exec_driver_sql(_UNLOCK)


def _upgrade(connection: Connection, to: str) -> None:
    revision = revision_of(connection)
    if revision is not None and not _known(revision):
        raise _later(revision)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _later(revision: str) -> WrongSchema:
    return WrongSchema(
        f"the metadata store has the schema {revision}, which this release does not know: install the release that"
        " made it (`jobserver db upgrade` cannot go back)"
    )


def _known(revision: str) -> bool:
    return revision in revisions()
