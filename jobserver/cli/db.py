"""`jobserver db`: the metadata database, its schema and its past, brought up to date or looked at."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from jobserver.errors import LocalPartFailed
from jobserver.retention import Removed
from jobserver.settings import Settings, database_url, load

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


def prune(config: Path, *, dry_run: bool) -> str:
    """Removes what retention no longer keeps, or counts it. Raises as `upgrade`, and the checkpoint's StoreUnavailable."""
    removed = asyncio.run(_pruned(load(config), dry_run=dry_run))
    left = "".join(f"\nNot finished: {sentence}" for sentence in removed.unfinished)
    return f"{'Would remove' if dry_run else 'Removed'} {removed}.{left}"


async def _pruned(settings: Settings, *, dry_run: bool) -> Removed:
    from jobserver import context_settings
    from jobserver.pruning import Pace, Pruner
    from jobserver.records import Records
    from jobserver.store.metadata import Metadata

    metadata = await Metadata.open(
        database_url(settings.database, os.environ), timeout=TIMEOUT, server="jobserver db"
    )
    try:
        await metadata.check()
        pruner = Pruner(
            metadata.retention,
            context_settings.checkpoint_files(settings),
            context_settings.retention_limits(settings),
            Pace(settings.retention.batch, settings.retention.pause),
        )
        if dry_run:
            return await pruner.count()
        removed = await pruner.prune()
        await Records(metadata).note(_who(), "prune", "", {"removed": str(removed)})
        return removed
    finally:
        await metadata.close()


def export(config: Path, file: Path) -> str:
    """Writes the database to a new file; what to tell. Raises as `upgrade`, and LocalPartFailed."""
    if file.exists():
        raise LocalPartFailed(f"{file} exists: name a new file")
    counts = asyncio.run(_exported(_url(config), file))
    return f"Exported {_shown(counts)} to {file}."


async def _exported(url: str, file: Path) -> dict[str, int]:
    """Under another name until it is whole; for the eyes of this user only, as results and drivers' secrets are in it."""
    from jobserver.store.metadata import Metadata

    unfinished = file.with_name(f"{file.name}.unfinished")
    metadata = await Metadata.open(url, timeout=TIMEOUT)
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            counts = await metadata.transfer.export(stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.rename(file)
        return counts
    except OSError as error:
        raise LocalPartFailed(f"{file} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
        await metadata.close()


def take_in(config: Path, file: Path) -> str:
    """Fills an empty database from an exported file; what to tell. Raises as `upgrade`, BadRequest and LocalPartFailed."""
    return f"Imported {_shown(asyncio.run(_taken_in(_url(config), file)))}."


async def _taken_in(url: str, file: Path) -> dict[str, int]:
    from jobserver.records import Records
    from jobserver.store.metadata import Metadata

    metadata = await Metadata.open(url, timeout=TIMEOUT, server="jobserver db")
    try:
        with file.open(encoding="ascii", errors="replace") as stream:
            counts = await metadata.transfer.take_in(stream)
        await Records(metadata).note(_who(), "import", file.name, dict(counts))
        return counts
    except OSError as error:
        raise LocalPartFailed(f"{file} cannot be read: {error}") from error
    finally:
        await metadata.close()


def _shown(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"


def _who() -> str:
    """Who runs this command, as the machine knows them."""
    return os.environ.get("USER") or f"uid {os.getuid()}"
