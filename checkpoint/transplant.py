"""A new context that starts from the kept checkpoint of an ended one: its objects are copied, so neither needs the other.

The copy is sealed as manifest 0-0 of the new context, below every epoch, so its first epoch takes it as its base. Progress
of jobs stays behind: its jobs do. Every step can be taken again, by any owner: names are taken once, by the same bytes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from checkpoint import layout
from checkpoint.base import Base, load, newest_good
from checkpoint.contents import Contents, full_manifest
from checkpoint.epoch import list_manifests
from checkpoint.errors import AlreadyExists, Corrupt, Damaged, Missing
from checkpoint.files import FileStore
from checkpoint.manifest import FileEntry, NamedObject, encode
from checkpoint.sealing import persist, seal


@dataclass(frozen=True, slots=True)
class Source:
    """A context, and one of its manifests; None for the newest."""

    context_id: str
    manifest: str | None = None


def source_of(text: str) -> Source:
    """From `<context-id>` or `<context-id>/<manifest>`. Raises ValueError."""
    context_id, slash, manifest = text.partition("/")
    if not context_id or (slash and layout.parse_pair(manifest) is None):
        raise ValueError(f"{text!r} is neither a context's id nor <context-id>/<manifest>")
    return Source(context_id, manifest or None)


def load_source(files: FileStore, source: Source, secret: bytes) -> Base:
    """What the new context will hold. Raises Damaged when the wanted or the newest manifest is; Missing without any."""
    names = list_manifests(files, source.context_id)
    if not names:
        raise Missing(f"there is no checkpoint of context {source.context_id}")
    if source.manifest is not None:
        return load(files, source.context_id, source.manifest, secret)
    base = newest_good(files, source.context_id, names, secret)
    for report in base.damaged:
        older = f"name an older manifest, as {source.context_id}/{base.name}, to do without it"
        raise Damaged("manifest", report.manifest, f"{report.why}; {older}")
    return base


def transplant(files: FileStore, source: Source, target: str, secret: bytes) -> None:
    """Give the new context what the source holds, unless it has a manifest already. Raises Missing, Damaged."""
    if list_manifests(files, target):
        return
    base = load_source(files, source, secret)
    objects = {
        name: _moved(files, source.context_id, base.objects[name], target, number)
        for number, name in enumerate(sorted(base.objects), start=1)
    }
    manifest = full_manifest(target, 0, 0, None, Contents(objects))
    with suppress(AlreadyExists):  # another owner's copy of the same
        seal(files, layout.manifest_path(target, manifest.name), encode(manifest, secret))


def _moved(files: FileStore, source: str, item: NamedObject, target: str, number: int) -> NamedObject:
    """The object under a version that no epoch of the new context can hand out."""
    version = layout.version(0, number)
    if item.path is None:
        return replace(item, version=version)
    path = layout.object_path(item.name, version)
    for entry in item.files:
        origin = f"{layout.in_context(source, item.path)}/{entry.name}"
        _copy(files, origin, f"{layout.in_context(target, path)}/{entry.name}", item, entry)
    return replace(item, version=version, path=path)


def _copy(files: FileStore, origin: str, place: str, item: NamedObject, entry: FileEntry) -> None:
    try:
        size = persist(lambda: files.size(origin))
        if size != entry.size:
            why = f"its file {entry.name} has {size} bytes instead of {entry.size}"
            raise Damaged(item.name, item.version, why)
        with suppress(AlreadyExists):
            persist(lambda: files.copy(origin, place))
    except (Missing, Corrupt) as error:
        raise Damaged(item.name, item.version, str(error)) from error
