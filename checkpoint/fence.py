"""Who may acknowledge, and what the next epoch starts from (pure). The rules of design section 4.3.

1. An epoch begins with its marker, then lists the manifests: so all that was sealed before is in its list.
2. A writer seals, then reads the markers, and acknowledges only if its own is the highest: so a seal that a later
   epoch may have missed is never acknowledged.
3. An epoch pins its base by sealing `<epoch>-0` before it opens its gate, and reads the markers once more: so what an
   older epoch seals later never counts, for this epoch or any after it.
4. A driver that was adopted keeps its data, makes the marker of its new epoch, then looks for manifests of epochs that
   were never its own: one of them means that another lineage has begun, which it must not overtake.

`tests/unit/test_checkpoint_interleavings.py` explores what happens without each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from checkpoint import layout


@dataclass(frozen=True, slots=True, order=True)
class Marker:
    """The sign that an epoch has begun; the token tells apart who was granted it."""

    epoch: int
    token: str


REMOVED = Marker(layout.HIGHEST, "removed")
"""Above every epoch: whoever still writes for a context that is being removed acknowledges nothing."""


def markers_in(file_names: Iterable[str]) -> tuple[Marker, ...]:
    """The markers among the names of a folder."""
    parsed = (layout.parse_marker(name) for name in file_names)
    return tuple(Marker(*found) for found in parsed if found)


def manifests_in(file_names: Iterable[str]) -> tuple[str, ...]:
    """The names of the manifests among the names of a folder, oldest first."""
    parsed = (layout.parse_manifest(name) for name in file_names)
    return tuple(sorted(name for name in parsed if name))


def highest(markers: Iterable[Marker]) -> Marker | None:
    """The marker of the newest epoch."""
    return max(markers, default=None)


def superseded_by(markers: Collection[Marker], mine: Marker) -> int | None:
    """The epoch that forbids this one to acknowledge; None when it may.

    A missing marker of our own is as bad as a higher one: somebody has swept it. So is another with our epoch, which
    nobody may have been granted.
    """
    rivals = [marker.epoch for marker in markers if marker != mine and marker.epoch >= mine.epoch]
    if rivals:
        return max(rivals)
    return None if mine in markers else mine.epoch


def may_acknowledge(markers: Collection[Marker], mine: Marker) -> bool:
    """Whether what this epoch sealed before the markers were read may be acknowledged."""
    return superseded_by(markers, mine) is None


def epoch_of(manifest: str) -> int:
    """The epoch that sealed the manifest with that name. Raises ValueError."""
    found = layout.parse_pair(manifest)
    if found is None:
        raise ValueError(f"{manifest!r} is no name of a manifest")
    return found[0]


def below(names: Iterable[str], epoch: int) -> tuple[str, ...]:
    """The manifests of older epochs, oldest first."""
    return tuple(sorted(name for name in names if epoch_of(name) < epoch))


def choose_base(names: Iterable[str], epoch: int) -> str | None:
    """The manifest that an epoch starts from: the newest one of all older epochs."""
    return max(below(names, epoch), default=None)


def foreign_epoch(names: Iterable[str], held: Collection[int]) -> int | None:
    """The newest epoch, above the first of those that one driver has held, in which somebody else sealed."""
    first = min(held)
    epochs = {epoch_of(name) for name in names}
    return max((epoch for epoch in epochs if epoch > first and epoch not in held), default=None)
