"""A version of a named object in memory, and what makes and keeps it. Knows nothing of Spark."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from checkpoint.manifest import NamedObject
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe
from jobserver.model import AttemptRef


@dataclass(slots=True, eq=False)
class Held:
    """One version of an object in memory. `record` is None until it is written (or for ever, with strategy none).

    `strategy`: what was chosen, never auto. `origin`, `schema`: texts for the record. `rebuilt`: it was made again, by
    its recipe or from changed files, and need not equal what was acknowledged once. `reads`: other versions whose files its
    value may read, as it is what the job built and not what was written. Times in seconds since the epoch.
    """

    name: str
    kind: str
    version: str
    value: Any
    options: ObjectOptions
    record: NamedObject | None = None
    strategy: str = "materialize"
    origin: str | None = None
    schema: str | None = None
    rebuilt: bool = False
    made_at: float = field(default_factory=time.time)
    used_at: float | None = None
    uses: int = 0
    warm: bool = False
    users: set[AttemptRef] = field(default_factory=set)
    reads: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Making:
    """What a shelf is to make of a value. `write`: written before it is handed out; `recipe`: of the job that made it."""

    name: str
    value: Any
    options: ObjectOptions
    version: str
    write: bool
    recipe: Recipe | None = None
    rebuilt: bool = False


class Shelf(Protocol):
    """Makes, keeps and hands out the things themselves; the Spark side."""

    def make(self, making: Making) -> Held:
        """Cache what a job built; if it is to be written, do so first and keep the written version.

        Runs in the job's thread. Raises ValueError when the strategy does not fit the value.
        """

    def write(self, held: Held) -> NamedObject:
        """Write an object that is in memory only; runs in a background thread."""

    def restore(self, record: NamedObject) -> Held:
        """Bring a sealed object back, not cached yet. Raises ObjectDamaged."""

    def reread(self, record: NamedObject, version: str) -> Held:
        """Read the files of a source again, under a version of its own. Raises ObjectDamaged."""

    def try_out(self, held: Held) -> None:
        """Read a row of a restored object and forget it: the next to read finds the way prepared."""

    def warm(self, held: Held) -> None:
        """Fill the cache of a restored object; runs in a background thread."""

    def hand_out(self, held: Held) -> Any:
        """The object as the calling job gets it."""

    def discard(self, held: Held) -> None:
        """Free what it has cached."""
