"""`jobserver db`: the schema of the metadata database, brought up to date or looked at."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from jobserver.settings import database_url, load

TIMEOUT = 60.0
"""Seconds: a migration may wait for another server's, and for locks."""


def upgrade(config: Path) -> str:
    """Migrates the database of a settings file; what to tell. Raises SettingsRefused, StoreUnavailable, WrongSchema."""
    return f"The schema is at revision {upgrade_url(_url(config))}."


def current(config: Path) -> str:
    """What the schema is at, whatever this version needs. Raises SettingsRefused, StoreUnavailable."""
    revision = asyncio.run(_current(_url(config)))
    return "The database has no tables yet." if revision is None else f"The schema is at revision {revision}."


def check(config: Path) -> str:
    """That this version can work with the database. Raises as `upgrade`."""
    return f"The schema is at revision {asyncio.run(_checked(_url(config)))}, as this version needs it."


def _url(config: Path) -> str:
    return database_url(load(config).database, os.environ)


def upgrade_url(url: str) -> str | None:
    """Migrates a database; its revision afterwards. Raises StoreUnavailable, WrongSchema."""
    return asyncio.run(_upgraded(url))


async def _upgraded(url: str) -> str | None:
    from jobserver.store.metadata import Metadata  # SQLAlchemy takes its time

    metadata = await Metadata.open(url, timeout=TIMEOUT)
    try:
        await metadata.upgrade()
        return await metadata.schema_current()
    finally:
        await metadata.close()


async def _current(url: str) -> str | None:
    from jobserver.store.metadata import Metadata

    metadata = await Metadata.open(url, timeout=TIMEOUT)
    try:
        return await metadata.schema_current()
    finally:
        await metadata.close()


async def _checked(url: str) -> str | None:
    from jobserver.store.metadata import Metadata

    metadata = await Metadata.open(url, timeout=TIMEOUT)
    try:
        await metadata.check()
        return await metadata.schema_current()
    finally:
        await metadata.close()
