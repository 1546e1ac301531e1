"""`jobserver checkpoint`: what lies in the checkpoint store, is it whole, what may go. Works without any server.

Reads only, but for `prune --yes`. SQL says which contexts have ended; where it cannot be asked, nothing is pruned.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from checkpoint import catalog, removal
from checkpoint.base import load
from checkpoint.catalog import Found
from checkpoint.errors import CheckpointError
from checkpoint.files import FileStore
from jobserver.context_settings import checkpoint_files
from jobserver.errors import JobServerError, StoreUnavailable
from jobserver.model import ContextRecord
from jobserver.settings import Settings, database_url, secret_of
from jobserver.settings import load as load_settings

TIMEOUT = 10.0
"""Seconds that SQL has to answer."""


class CheckpointToolFailed(JobServerError):
    """What was asked of the checkpoint tools cannot be done; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """A store, the secret of its manifests, and the settings that lead there."""

    settings: Settings
    files: FileStore
    secret: bytes


def place_of(config: Path) -> Place:
    """Raises SettingsRefused, CheckpointToolFailed."""
    settings = load_settings(config)
    secret = secret_of(settings.cluster) or _own_secret(settings)
    try:
        return Place(settings, checkpoint_files(settings), secret.encode())
    except CheckpointError as error:
        raise CheckpointToolFailed(str(error)) from error


def _own_secret(settings: Settings) -> str:
    """The secret that a server without one in its settings has made for itself."""
    file = settings.server.dir.absolute() / "secret"
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointToolFailed(
            f"cluster.secret is not set and {file} cannot be read ({error.strerror}): without the secret no manifest "
            f"can be told from a foreign one."
        ) from error


def ls(config: Path, *, as_json: bool) -> None:
    """One line for each context. Raises CheckpointToolFailed."""
    place = place_of(config)
    found = _asked(lambda: [_find(place, each) for each in catalog.contexts(place.files)])
    records = _records_or_nothing(place, [each.context_id for each in found])
    rows = [_row(each, records.get(each.context_id)) for each in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = _table("context", "name", "state", "epoch", "manifests", "objects", "bytes", "kept", "fault")
    for row in rows:
        table.add_row(*(str("" if row[key] is None else row[key]) for key in row))
    Console().print(table)


def show(config: Path, context_id: str, manifest: str | None, *, as_json: bool) -> None:
    """The objects of one context, as its newest good or one given manifest has them. Raises CheckpointToolFailed."""
    place = place_of(config)
    found = _asked(lambda: _known(place, context_id))
    base = found.base
    if manifest is not None:
        base = _asked(lambda: load(place.files, context_id, manifest, place.secret))
    objects = [
        {
            "name": item.name,
            "kind": item.kind.value,
            "version": item.version,
            "strategy": item.strategy,
            "durability": item.durability,
            "rows": item.rows,
            "bytes": item.size,
            "files": len(item.files),
        }
        for item in base.objects.values()
    ]
    if as_json:
        facts = {"manifest": base.name, "manifests": list(found.manifests), "faults": list(found.faults)}
        print(
            json.dumps(
                {**_row(found, None), **facts, "objects": objects, "jobs": sorted(base.progress)}, indent=2
            )
        )
        return
    typer.echo(f"context {context_id}, manifest {base.name or 'none'} of {len(found.manifests)}")
    for fault in found.faults:
        typer.echo(f"FAULT {fault}")
    table = _table("object", "kind", "version", "strategy", "durability", "rows", "bytes", "files")
    for item in objects:
        table.add_row(*(str("" if value is None else value) for value in item.values()))
    Console().print(table)


def verify(config: Path, context_ids: Sequence[str], *, as_json: bool) -> int:
    """Checks manifests and data of these contexts, or of all; the exit code: 1 when something is wrong."""
    place = place_of(config)
    faults = _asked(
        lambda: {
            each: list(catalog.verify(place.files, each, place.secret))
            for each in context_ids or catalog.contexts(place.files)
        }
    )
    if as_json:
        print(json.dumps(faults, indent=2))
    else:
        for context_id, sentences in faults.items():
            typer.echo(f"{context_id}: {'good' if not sentences else ''}")
            for sentence in sentences:
                typer.echo(f"  {sentence}")
    return 1 if any(faults.values()) else 0


def prune(config: Path, context_ids: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Removes the checkpoints of contexts that SQL says have ended; those that were kept only if they are named.

    Without `yes` it only tells. Raises CheckpointToolFailed, StoreUnavailable.
    """
    place = place_of(config)
    found = _asked(lambda: [_find(place, each) for each in catalog.contexts(place.files)])
    records = asyncio.run(_records(place, [each.context_id for each in found]))
    chosen = [_prunable(each, records.get(each.context_id), context_ids) for each in found]
    doomed = [each for each, why_not in zip(found, chosen, strict=True) if why_not is None]
    if missing := set(context_ids) - {each.context_id for each in found}:
        raise CheckpointToolFailed(f"there is no checkpoint of {', '.join(sorted(missing))}")
    refused = [why for each, why in zip(found, chosen, strict=True) if why and each.context_id in context_ids]
    if refused:
        raise CheckpointToolFailed("\n".join(refused))
    if yes:
        for each in doomed:
            _asked(partial(removal.remove, place.files, each.context_id))
    if as_json:
        print(
            json.dumps({"removed" if yes else "would_remove": [each.context_id for each in doomed]}, indent=2)
        )
        return
    for each in doomed:
        typer.echo(f"{'removed' if yes else 'would remove'} {each.context_id} ({each.size} bytes of data)")
    if not doomed:
        typer.echo("Nothing to remove.")
    elif not yes:
        typer.echo("Nothing was removed. Say --yes to remove them.")


def _prunable(found: Found, record: ContextRecord | None, named: Sequence[str]) -> str | None:
    """Why it stays; None when it may go."""
    if named and found.context_id not in named:
        return "it is not named"
    if record is not None and not record.state.final:
        return f"context {found.context_id} ({record.name}) is {record.state.value}: its checkpoint is in use"
    if named:
        return None
    if record is None:
        return f"SQL does not know context {found.context_id}: name it if its checkpoint is to go"
    return "it was kept on purpose" if found.kept else None


def _row(found: Found, record: ContextRecord | None) -> dict[str, Any]:
    return {
        "context": found.context_id,
        "name": None if record is None else record.name,
        "state": "being removed" if found.being_removed else None if record is None else record.state.value,
        "epoch": found.epoch,
        "manifests": len(found.manifests),
        "objects": len(found.base.objects),
        "bytes": found.size,
        "kept": found.kept,
        "fault": found.faults[0] if found.faults else None,
    }


def _table(first: str, *more: str) -> Table:
    """Its first column is what people copy: never shortened."""
    table = Table()
    table.add_column(first, no_wrap=True)
    for column in more:
        table.add_column(column, overflow="fold")
    return table


def _find(place: Place, context_id: str) -> Found:
    return catalog.find(place.files, context_id, place.secret)


def _known(place: Place, context_id: str) -> Found:
    if context_id not in catalog.contexts(place.files):
        raise CheckpointToolFailed(
            f"there is no checkpoint of {context_id}; `jobserver checkpoint ls` lists all"
        )
    return _find(place, context_id)


def _asked(ask: Any) -> Any:
    """The store's answer, or its trouble as an error of the tools."""
    try:
        return ask()
    except CheckpointError as error:
        raise CheckpointToolFailed(str(error)) from error


def _records_or_nothing(place: Place, context_ids: Sequence[str]) -> Mapping[str, ContextRecord]:
    """What SQL knows; nothing, and a word about it, when it cannot be asked."""
    try:
        return asyncio.run(_records(place, context_ids))
    except StoreUnavailable as error:
        typer.echo(f"SQL cannot be asked for names and states: {error.message}", err=True)
        return {}


async def _records(place: Place, context_ids: Sequence[str]) -> dict[str, ContextRecord]:
    from jobserver.store.metadata import Metadata  # SQLAlchemy takes its time

    store = await Metadata.open(database_url(place.settings.database, os.environ), timeout=TIMEOUT)
    try:
        found = {context_id: await store.context(context_id) for context_id in context_ids}
        return {context_id: record for context_id, record in found.items() if record is not None}
    finally:
        await store.close()
