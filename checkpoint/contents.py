"""What a manifest and its predecessors add up to (pure), and how changes become the next manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from checkpoint.errors import StaleAttempt
from checkpoint.manifest import BaseRef, Manifest, NamedObject, Progress
from checkpoint.records import Records

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Contents:
    """The named objects and the jobs' progress of a context at one moment. Never changed in place."""

    objects: Mapping[str, NamedObject] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What one commit changes; all of it or nothing is sealed.

    `put` replaces objects of the same name, `remove` names objects, `begun` are attempts by job id that start from the
    progress that is saved at that moment, whoever saved it, and own it from then on, `progress` is by job id, and `forget` names
    jobs that have ended, whose progress need not be kept.
    """

    put: Sequence[NamedObject] = ()
    remove: Sequence[str] = ()
    begun: Mapping[str, int] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    forget: Sequence[str] = ()


def changed(contents: Contents, changes: Changes) -> Contents:
    """The contents after the changes. Raises StaleAttempt for progress of an attempt that is over."""
    attempts = (*changes.begun.items(), *((job, saved.attempt) for job, saved in changes.progress.items()))
    for job, attempt in attempts:
        known = contents.progress.get(job)
        if known is not None and attempt < known.attempt:
            raise StaleAttempt(job, attempt, known.attempt)
    objects = Records.of(contents.objects).changed(changes.put, changes.remove)
    progress = {**contents.progress}
    for job, attempt in changes.begun.items():
        progress[job] = replace(progress.get(job, Progress(attempt)), attempt=attempt)
    progress |= changes.progress
    for job in changes.forget:
        progress.pop(job, None)
    return Contents(objects, progress)


def full_manifest(
    context_id: str, epoch: int, seq: int, base: BaseRef | None, contents: Contents
) -> Manifest:
    """A manifest that needs no other; `base` only tells what it follows."""
    return Manifest(
        context_id, epoch, seq, base, full=True, objects=contents.objects, progress=contents.progress
    )


def pin_manifest(context_id: str, epoch: int, base: BaseRef | None) -> Manifest:
    """`<epoch>-0`: it holds what its base holds, be that one full or not. Without a base, nothing."""
    return Manifest(context_id, epoch, 0, base, full=base is None)


def adds_nothing(manifest: Manifest) -> bool:
    """Whether it holds exactly what its predecessor does, as a pin."""
    changes = (manifest.objects, manifest.removed, manifest.progress, manifest.forgotten)
    return not manifest.full and not any(changes)


def delta_manifest(
    context_id: str, epoch: int, seq: int, base: BaseRef, before: Contents, after: Contents
) -> Manifest:
    """A manifest of what differs from its predecessor: `applied(before, it) == after`."""
    return Manifest(
        context_id,
        epoch,
        seq,
        base,
        full=False,
        objects=Records.of(after.objects).new_since(Records.of(before.objects)),
        removed=_gone(before.objects, after.objects),
        progress=_new(before.progress, after.progress),
        forgotten=_gone(before.progress, after.progress),
    )


def applied(before: Contents, manifest: Manifest) -> Contents:
    """The contents after a manifest that follows them (or that is full)."""
    if manifest.full:
        return Contents(manifest.objects, manifest.progress)
    objects = Records.of(before.objects).merged(Records.of(manifest.objects), manifest.removed)
    progress = {**before.progress, **manifest.progress}
    for job in manifest.forgotten:
        progress.pop(job, None)
    return Contents(objects, progress)


def _new(before: Mapping[str, V], after: Mapping[str, V]) -> dict[str, V]:
    return {key: value for key, value in after.items() if before.get(key) != value}


def _gone(before: Mapping[str, V], after: Mapping[str, V]) -> tuple[str, ...]:
    return tuple(sorted(key for key in before if key not in after))
