"""The data files of named objects: sealed and described before they are named, checked before they are first used."""

from __future__ import annotations

import hashlib

from checkpoint import layout
from checkpoint.errors import Corrupt, Damaged, Missing
from checkpoint.files import FileStore
from checkpoint.manifest import FileEntry, NamedObject
from checkpoint.sealing import persist


def seal_data(
    files: FileStore, context_id: str, path: str, *, digests: bool = False
) -> tuple[FileEntry, ...]:
    """Make what Spark wrote below `path` (relative to the context's folder) durable, and describe it.

    `digests` reads everything once more, so it is for small data. Raises Missing when nothing was written.
    """
    folder = layout.in_context(context_id, path)
    sizes = persist(lambda: files.seal_tree(folder))
    return tuple(
        FileEntry(name, size, _digest(files, f"{folder}/{name}") if digests else None)
        for name, size in sorted(sizes.items())
    )


def check_data(files: FileStore, context_id: str, item: NamedObject, manifest: str) -> None:
    """Compare the object's files with what its manifest says of them. Raises Damaged on proof, naming the object.

    Lengths always, content where a digest was sealed. Touches nothing else, so other objects stay usable.
    """
    if item.path is None:
        return
    for entry in item.files:
        why = _fault(files, f"{layout.in_context(context_id, item.path)}/{entry.name}", entry)
        if why is not None:
            raise Damaged(item.name, manifest, f"version {item.version}, file {entry.name}: {why}")


def _fault(files: FileStore, path: str, entry: FileEntry) -> str | None:
    """What is wrong with one file; None when it is as it was sealed."""
    try:
        size = persist(lambda: files.size(path))
        if size != entry.size:
            return f"it has {size} bytes instead of {entry.size}"
        if entry.sha256 is not None and _digest(files, path) != entry.sha256:
            return "its bytes are not those that were sealed"
    except Missing:
        return "it is absent"
    except Corrupt as error:
        return str(error)
    return None


def _digest(files: FileStore, path: str) -> str:
    return hashlib.sha256(persist(lambda: files.read(path))).hexdigest()
