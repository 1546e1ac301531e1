"""What a hot standby does: keep up with a context's manifests without writing anything."""

from __future__ import annotations

from checkpoint.base import Base, base_of, deltas_after, load, newest_good, read_manifest
from checkpoint.contents import applied
from checkpoint.epoch import list_manifests
from checkpoint.errors import Damaged
from checkpoint.files import FileStore


def follow(files: FileStore, context_id: str, known: Base, secret: bytes) -> Base:
    """The newest state that can be read now, from one already known (`Base(None)` at first).

    Only the new deltas are read when they follow on what is known; whenever a digest does not fit, or one of them is
    swept or damaged, the newest good manifest is loaded with its predecessors. What is read was sealed, which is not
    to say acknowledged: an activated standby starts from the pin of its epoch, for which this spares most of the work.
    """
    names = list_manifests(files, context_id)
    new = [name for name in names if known.name is None or name > known.name]
    if not new:
        return known
    try:
        for name in new if known.name is not None else ():
            known = _advanced(files, context_id, known, name, secret)
        return known if known.name is not None else load(files, context_id, new[-1], secret)
    except Damaged:
        return newest_good(files, context_id, names, secret)


def resume(files: FileStore, context_id: str, known: Base, name: str, secret: bytes) -> Base:
    """Exactly this manifest, as `load` gives it; only itself is read when it follows on what is known. Raises as `load`."""
    if known.name == name:
        return known
    try:
        return _advanced(files, context_id, known, name, secret)
    except Damaged:  # or it does not follow: its chain tells
        return load(files, context_id, name, secret)


def _advanced(files: FileStore, context_id: str, known: Base, name: str, secret: bytes) -> Base:
    """The state after one more manifest. Raises Damaged when it does not follow on what is known."""
    sealed = read_manifest(files, context_id, name, secret)
    manifest = sealed.manifest
    if not manifest.full and manifest.base not in (known.ref, known.same_as):
        raise Damaged("manifest", name, f"it does not follow on {known.name}")
    return base_of(sealed, applied(known.contents, manifest), deltas_after(known, manifest))
