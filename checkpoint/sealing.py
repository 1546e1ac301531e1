"""Writing a file once although replies get lost, and reading the markers: what `epoch` and `writer` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from checkpoint import layout
from checkpoint.errors import AlreadyExists, StoreUnavailable
from checkpoint.fence import Marker, markers_in, superseded_by
from checkpoint.files import FileStore

TRIES = 3
"""How often one step is tried before its caller is told that the store is away. No pauses: the caller may repeat."""

T = TypeVar("T")


def seal(files: FileStore, path: str, data: bytes) -> None:
    """Make the file exist with exactly these bytes.

    An error may hide a success (the rename happened, the reply was lost): the same write is repeated, and when the name
    is taken the bytes that have it decide. Raises AlreadyExists if they are another's, and StoreUnavailable when the
    outcome stays unknown.
    """

    def once() -> None:
        try:
            files.write_new(path, data)
        except AlreadyExists:
            if files.read(path) != data:
                raise

    persist(once)


def persist(step: Callable[[], T]) -> T:
    """The step's result, tried TRIES times while the store is unavailable."""
    for _ in range(TRIES - 1):
        try:
            return step()
        except StoreUnavailable:
            continue
    return step()


def seal_marker(files: FileStore, context_id: str, mine: Marker) -> None:
    """Make the epoch's marker; one of our own from before is as good."""
    seal(files, layout.marker_path(context_id, mine.epoch, mine.token), b"")


def standing(files: FileStore, context_id: str, mine: Marker) -> int | None:
    """The epoch that supersedes ours, by the markers as they are now."""
    names = persist(lambda: files.names(layout.marker_folder(context_id)))
    return superseded_by(markers_in(names), mine)
