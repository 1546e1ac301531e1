"""The beginning of an epoch: marker, list, base, pin, markers again. Every order here is a rule of `fence`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from checkpoint import layout
from checkpoint.base import (
    Base,
    DamageReport,
    LostVersion,
    Sealed,
    base_of,
    deltas_after,
    load,
    newest_good,
)
from checkpoint.contents import pin_manifest
from checkpoint.errors import AlreadyExists, Superseded
from checkpoint.fence import Marker, below, epoch_of, manifests_in
from checkpoint.files import FileStore
from checkpoint.manifest import digest_of, encode
from checkpoint.sealing import persist, seal, seal_marker, standing

__all__ = ["Base", "DamageReport", "LostVersion", "Step", "begin_epoch", "begin_marker_only", "load"]


class Step(StrEnum):
    """What the beginning of an epoch consists of."""

    MARKER = "marker"
    BASE = "base read"
    PIN = "pin"


def unobserved(step: Step) -> None:
    """Nobody wants to know."""


def begin_epoch(
    files: FileStore,
    context_id: str,
    epoch: int,
    token: str,
    secret: bytes,
    done: Callable[[Step], None] = unobserved,
) -> Base:
    """Begin an epoch that restores: afterwards nothing an older epoch seals counts. Open the gate only after it.

    The answer is the pinned manifest `<epoch>-0` (`Base.name`). May be repeated by the same process after
    StoreUnavailable. Raises Superseded; Foreign or UnknownFormat when loading would bury good data; Damaged when its own
    pin was torn, which spends the epoch: the next one is not hindered. `done` is told each step after it.
    """
    mine = Marker(epoch, token)
    seal_marker(files, context_id, mine)
    done(Step.MARKER)
    # after the marker: what was acknowledged before the marker is in this list
    names = list_manifests(files, context_id)
    _refuse_used(names, epoch)
    base = newest_good(files, context_id, below(names, epoch), secret)
    done(Step.BASE)
    pinned = _pin(files, context_id, epoch, base, secret)
    done(Step.PIN)
    higher = standing(
        files, context_id, mine
    )  # after the pin: a later epoch sees the pin, or we see its marker
    if higher is not None:
        raise Superseded(higher)
    return pinned


def begin_marker_only(files: FileStore, context_id: str, epoch: int, token: str) -> None:
    """Begin an epoch whose driver was adopted: it is the only writer of its data and needs no new base."""
    seal_marker(files, context_id, Marker(epoch, token))


def list_manifests(files: FileStore, context_id: str) -> tuple[str, ...]:
    """Names of all sealed manifests, oldest first."""
    return manifests_in(persist(lambda: files.names(layout.manifest_folder(context_id))))


def _refuse_used(names: tuple[str, ...], epoch: int) -> None:
    """An epoch has one driver: one that sealed more than its pin, or a later one, is not begun again."""
    used = [epoch_of(name) for name in names if name > layout.manifest_name(epoch, 0)]
    if used:
        raise Superseded(max(used))


def _pin(files: FileStore, context_id: str, epoch: int, base: Base, secret: bytes) -> Base:
    """Seal `<epoch>-0`, which adds nothing to the base and so costs the same for any number of objects.

    It names what the base's own pin names, so that takeovers without an update between them make no chain longer.
    Ours from an earlier try wins: it may have been listed.
    """
    manifest = pin_manifest(context_id, epoch, base.same_as or base.ref)
    data = encode(manifest, secret)
    try:
        seal(files, layout.manifest_path(context_id, manifest.name), data)
    except AlreadyExists:
        return replace(load(files, context_id, manifest.name, secret), damaged=base.damaged)
    pinned = base_of(Sealed(manifest, digest_of(data)), base.contents, deltas_after(base, manifest))
    return replace(pinned, damaged=base.damaged)
