"""What may be removed from a context's checkpoint (pure). Only its current writer asks.

Kept are: the two newest full manifests up to the newest acknowledged one with all that is newer than the older of them
(so the newest can be lost and its predecessor with all its deltas still loads); all data that a kept manifest names;
the highest marker. A manifest that was sealed and not acknowledged is newer than the acknowledged one, so it is kept
too: it may be the base of an epoch that begins right now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from checkpoint.contents import Contents
from checkpoint.fence import Marker
from checkpoint.manifest import Manifest

FULL_KEPT = 2
"""Full manifests that stay, each with the deltas that follow it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Manifests that stay, oldest first, and the ones to remove."""

    manifests: tuple[str, ...]
    removable: tuple[str, ...]


def keep_manifests(names: Iterable[str], acknowledged: str, is_full: Callable[[str], bool]) -> Kept | None:
    """Which manifests stay; None when there are not two full ones yet, so that nothing can be removed.

    `is_full` tells whether a manifest is good and full; it is asked from the newest downwards, no more than needed.
    """
    ordered = sorted(names)
    found = 0
    for name in reversed([name for name in ordered if name <= acknowledged]):
        found += is_full(name)
        if found == FULL_KEPT:
            return Kept(
                tuple(other for other in ordered if other >= name),
                tuple(other for other in ordered if other < name),
            )
    return None


def named_paths(manifests: Iterable[Manifest], current: Contents) -> frozenset[str]:
    """Every path, relative to the context's folder, that the kept manifests or the current contents name."""
    contents = [Contents(manifest.objects, manifest.progress) for manifest in manifests]
    items = [item.path for one in [*contents, current] for item in one.objects.values()]
    saved = [item.path for one in [*contents, current] for item in one.progress.values()]
    return frozenset(path for path in [*items, *saved] if path is not None)


def removable_markers(markers: Iterable[Marker], mine: Marker) -> tuple[Marker, ...]:
    """Markers of older epochs. Ours is the highest, or we would not be sweeping."""
    return tuple(sorted(marker for marker in markers if marker.epoch < mine.epoch))
