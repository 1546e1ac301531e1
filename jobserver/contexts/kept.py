"""Checkpoints of contexts that end: kept on request, taken over by new contexts, else removed by the leader.

A context that was deleted (FINISHED) loses its checkpoint unless it was deleted with `keep-checkpoint`; one that failed or
was killed keeps it until somebody prunes it. A folder whose context SQL does not know is never touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from checkpoint import catalog, removal
from checkpoint.errors import CheckpointError, Damaged, Missing, UnknownFormat
from checkpoint.errors import StoreUnavailable as FilesUnavailable
from checkpoint.files import FileStore
from checkpoint.transplant import Source, load_source, source_of
from jobserver.contexts.launch_spec import flatten
from jobserver.contexts.parts import Run
from jobserver.errors import BadRequest, StoreUnavailable
from jobserver.model import ContextRecord, ContextState
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)

RESTORE_FROM = "restore-from"
"""The setting of a context that names the checkpoint it starts from."""


def restore_source(settings: Mapping[str, Any]) -> Source | None:
    """Where a context with these settings starts from. Raises BadRequest."""
    text = dict(flatten({RESTORE_FROM: settings.get(RESTORE_FROM)})).get(RESTORE_FROM)
    if text is None:
        return None
    try:
        return source_of(text)
    except ValueError as error:
        raise BadRequest(f"context setting {RESTORE_FROM}: {error}") from error


def may_go(context: ContextRecord) -> bool:
    """Whether the checkpoint of a context is nobody's any more, if it was not asked to be kept."""
    return context.state is ContextState.FINISHED


class KeptCheckpoints:
    """One per server."""

    def __init__(
        self, store: Metadata, files: FileStore, secret: bytes, run: Run = asyncio.to_thread
    ) -> None:
        self._store = store
        self._files = files
        self._secret = secret
        self._run = run

    async def keep(self, context_id: str) -> None:
        """To be called before the context is asked to stop. Raises StoreUnavailable."""
        try:
            await self._run(removal.keep, self._files, context_id)
        except CheckpointError as error:
            raise StoreUnavailable(
                f"the checkpoint could not be marked as kept, so the context runs on: {error}"
            ) from error

    async def check_source(self, settings: Mapping[str, Any]) -> None:
        """Refuse a context that would start from what is not there. Raises BadRequest, StoreUnavailable."""
        source = restore_source(settings)
        if source is None:
            return
        record = await self._store.context(source.context_id)
        if record is not None and not record.state.final:
            raise BadRequest(
                f"context {source.context_id} ({record.name}) still runs: its checkpoint is its own; delete it with "
                f"keep-checkpoint=true first"
            )
        try:
            stays = record is None or not may_go(record)
            if not stays and not await self._run(catalog.is_kept, self._files, source.context_id):
                raise BadRequest(f"context {source.context_id} was deleted without keep-checkpoint=true")
            await self._run(load_source, self._files, source, self._secret)
        except (Missing, Damaged, UnknownFormat) as error:
            raise BadRequest(f"context setting {RESTORE_FROM}: {error}") from error
        except FilesUnavailable as error:
            raise StoreUnavailable(f"the kept checkpoint cannot be read: {error}") from error

    async def remove_ended(self) -> list[str]:
        """The leader's: checkpoints that are nobody's any more go. Answers the contexts. Raises StoreUnavailable of SQL."""
        removed = []
        try:
            for context_id in await self._run(catalog.contexts, self._files):
                record = await self._store.context(context_id)
                if record is not None and may_go(record) and await self._run(self._remove, context_id):
                    removed.append(context_id)
                    log.info("the checkpoint of context %s (%s) is removed", record.name, context_id)
        except CheckpointError as error:
            log.warning("checkpoints of ended contexts were not all removed: %s", error)
        return removed

    def _remove(self, context_id: str) -> bool:
        if catalog.is_kept(self._files, context_id):
            return False
        removal.remove(self._files, context_id)
        return True
