"""The end of a context's checkpoint: kept on request, else removed in steps that can be taken again after any break.

Only for contexts that have ended, which their owner (SQL) knows and this package does not.
"""

from __future__ import annotations

from contextlib import suppress

from checkpoint import layout
from checkpoint.errors import AlreadyExists
from checkpoint.fence import REMOVED
from checkpoint.files import FileStore
from checkpoint.sealing import persist, seal


def keep(files: FileStore, context_id: str) -> None:
    """Say, durably, that the checkpoint stays when its context has ended. May be repeated."""
    seal(files, layout.kept_path(context_id), b"")


def remove(files: FileStore, context_id: str) -> None:
    """Remove the checkpoint. Until it is gone its highest marker says so to whoever still writes or reads it.

    Manifests go before the data that they name, so that what is left after a break is litter and never looks damaged.
    """
    with suppress(AlreadyExists):
        seal(files, layout.marker_path(context_id, REMOVED.epoch, REMOVED.token), b"")
    for part in (layout.manifest_folder(context_id), layout.objects_folder(context_id)):
        _removed(files, part)
    _removed(files, layout.in_context(context_id, "").rstrip("/"))


def _removed(files: FileStore, folder: str) -> None:
    persist(lambda: files.remove(folder))
