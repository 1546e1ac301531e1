"""What may be removed from a context's checkpoint (pure). Only its current writer asks.

Kept are: the full manifest that the newest acknowledged one builds on and the full one below it, with all that is newer than
the older of them (so the newest can be lost and its predecessor with all its deltas still loads), and what any of these leads
down to; all data that a kept manifest names; the highest marker. A manifest that was sealed and not acknowledged is newer
than the acknowledged one, so it is kept too: it may be the base of an epoch that begins right now.
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


def keep_manifests(
    names: Iterable[str], acknowledged: str, read: Callable[[str], Manifest | None]
) -> Kept | None:
    """Which manifests stay; None when there are not two full ones yet, so that nothing can be removed.

    Those two are the one that the acknowledged manifest builds on, and the next good full one below it: a full one between
    may be what an older epoch sealed too late, which is nobody's base. Older ones stay as far as one that stays leads to them.
    `read` gives a manifest, None if it is damaged; it is asked from the newest downwards, no more than needed.
    """
    ordered = sorted(names)
    fulls, line, reach = 0, acknowledged, acknowledged
    for index in reversed(range(len(ordered))):
        name = ordered[index]
        found = read(name)
        if found is not None and not found.full and found.base is not None:
            reach = min(reach, found.base.name)
        if fulls or name == line:
            fulls += found is not None and found.full
        if not fulls and name == line:
            line = found.base.name if found and found.base else ordered[max(index - 1, 0)]
        if fulls >= FULL_KEPT and name <= reach:
            return Kept(tuple(ordered[index:]), tuple(ordered[:index]))
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
