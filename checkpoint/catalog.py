"""What lies in a store, context by context, read only: for people, the tools and the removal of what has ended.

Damage becomes a sentence here, trouble of the store passes through as StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from checkpoint import layout
from checkpoint.base import Base, load, newest_good, read_manifest
from checkpoint.data import check_data
from checkpoint.epoch import list_manifests
from checkpoint.errors import Damaged, Missing, UnknownFormat
from checkpoint.fence import REMOVED, Marker, highest, markers_in
from checkpoint.files import FileStore
from checkpoint.manifest import NamedObject
from checkpoint.sealing import persist


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint of one context. `size` in bytes of the objects' data; `faults` are sentences."""

    context_id: str
    epoch: int
    kept: bool
    being_removed: bool
    manifests: tuple[str, ...]
    base: Base
    faults: tuple[str, ...] = field(default_factory=tuple)

    @property
    def size(self) -> int:
        return sum(item.size for item in self.base.objects.values())


def contexts(files: FileStore) -> list[str]:
    """The ids of all contexts that have a folder."""
    found = (layout.context_of(name) for name in persist(files.top))
    return sorted(context for context in found if context is not None)


def is_kept(files: FileStore, context_id: str) -> bool:
    """Whether its checkpoint is to stay when the context has ended."""
    try:
        persist(lambda: files.size(layout.kept_path(context_id)))
    except Missing:
        return False
    return True


def find(files: FileStore, context_id: str, secret: bytes) -> Found:
    """What a restore of the context would find now."""
    names = list_manifests(files, context_id)
    marker = highest(_markers(files, context_id))
    base, faults = Base(None), tuple[str, ...]()
    try:
        base = newest_good(files, context_id, names, secret)
        faults = tuple(str(report) for report in base.damaged)
    except (Damaged, UnknownFormat) as error:
        faults = (str(error),)
    epoch = 0 if marker is None or marker == REMOVED else marker.epoch
    return Found(context_id, epoch, is_kept(files, context_id), marker == REMOVED, names, base, faults)


def verify(files: FileStore, context_id: str, secret: bytes) -> Iterator[str]:
    """Everything that is wrong, in sentences: each manifest, the newest one's predecessors, and all data they name.

    Lengths always, content where digests were sealed (values and RDDs). What is being swept meanwhile looks absent.
    """
    names, checked = list_manifests(files, context_id), set[str | None]()
    for name in names:
        try:
            manifest = read_manifest(files, context_id, name, secret).manifest
        except (Damaged, UnknownFormat) as error:
            yield str(error)
            continue
        for item in manifest.objects.values():
            if item.path not in checked:
                checked.add(item.path)
                yield from _faults(files, context_id, item, name)
    try:
        if names:
            load(files, context_id, names[-1], secret)
    except (Damaged, UnknownFormat) as error:
        yield f"the newest manifest cannot be restored: {error}"


def _faults(files: FileStore, context_id: str, item: NamedObject, manifest: str) -> Iterator[str]:
    try:
        check_data(files, context_id, item, manifest)
    except Damaged as error:
        yield str(error)


def _markers(files: FileStore, context_id: str) -> tuple[Marker, ...]:
    return markers_in(persist(lambda: files.names(layout.marker_folder(context_id))))
