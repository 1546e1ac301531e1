"""A version of a named object in memory, what makes and keeps it, and how it is shown. Knows nothing of Spark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from checkpoint.manifest import NamedObject
from jobserver.driver.object_options import ObjectOptions
from jobserver.model import AttemptRef


@dataclass(slots=True, eq=False)
class Held:
    """One version of an object in memory. `record` is None until it is sealed (or for ever, with strategy none)."""

    name: str
    kind: str
    version: str
    value: Any
    options: ObjectOptions
    record: NamedObject | None = None
    users: set[AttemptRef] = field(default_factory=set)


class Shelf(Protocol):
    """Makes, keeps and hands out the things themselves; the Spark side."""

    def make(self, name: str, value: Any, options: ObjectOptions, version: str, write: bool) -> Held:
        """Cache what a job built; with `write`, write it first and keep the written version. Runs in the job's thread."""

    def write(self, held: Held) -> NamedObject:
        """Write an object that is in memory only; runs in a background thread."""

    def restore(self, record: NamedObject) -> Held:
        """Bring a sealed object back, not cached yet. Raises ObjectDamaged."""

    def warm(self, held: Held) -> None:
        """Fill the cache of a restored object; runs in a background thread."""

    def hand_out(self, held: Held) -> Any:
        """The object as the calling job gets it."""

    def discard(self, held: Held) -> None:
        """Free what it has cached."""


def shown_record(record: NamedObject) -> dict[str, Any]:
    """An object that was not used yet as the owner shows it."""
    return {
        "name": record.name,
        "kind": record.kind.value,
        "version": record.version,
        "state": "stored",
        "durability": record.durability,
        "strategy": record.strategy,
        "storage_level": record.storage_level,
        "rows": record.rows,
        "bytes": record.size,
        "checkpointed": True,
    }


def shown_held(held: Held) -> dict[str, Any]:
    """An object in memory as the owner shows it."""
    shown = {
        "name": held.name,
        "kind": held.kind,
        "version": held.version,
        "durability": held.options.durability,
        "strategy": held.options.strategy,
        "storage_level": held.options.storage_level,
    }
    known = shown_record(held.record) if held.record else {"checkpointed": False, "rows": None, "bytes": 0}
    return {**known, **shown, "state": "live"}
