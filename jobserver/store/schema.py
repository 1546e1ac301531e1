"""The schema's version: which one a store has, bringing it forward, and refusing what this release does not know.

Migrations run inside one write transaction, which takes SQLite's write lock when it begins: of two servers that
upgrade at once, the second finds the work done.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from jobserver.errors import WrongSchema

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
    """Runs the missing migrations, up to `to`, in the connection's transaction. Raises WrongSchema for a later schema."""
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
    return any(script.revision == revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions())
