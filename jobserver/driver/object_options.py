"""The options of named objects, checked (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from jobserver.driver.origins import Source

_LEVELS = (
    "NONE",
    "DISK_ONLY",
    "DISK_ONLY_2",
    "DISK_ONLY_3",
    "MEMORY_ONLY",
    "MEMORY_ONLY_2",
    "MEMORY_AND_DISK",
    "MEMORY_AND_DISK_2",
    "MEMORY_AND_DISK_DESER",
    "OFF_HEAP",
)


STRATEGIES = ("auto", "materialize", "recipe", "source", "none")
"""How an object comes back after the loss of its driver."""


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """How an object is cached and kept. Raises ValueError for what cannot be."""

    storage_level: str = "MEMORY_AND_DISK"
    force_computation: bool = True
    durability: str = "sync"
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.storage_level not in _LEVELS:
            raise ValueError(f"storage_level {self.storage_level!r} is none of {', '.join(_LEVELS)}")
        if self.durability not in ("sync", "async"):
            raise ValueError(f"durability {self.durability!r} is neither 'sync' nor 'async'")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy {self.strategy!r} is none of {', '.join(map(repr, STRATEGIES))}")
        if self.force_computation and self.storage_level == "NONE":
            raise ValueError("force_computation implies a storage_level other than NONE")

    @property
    def kept(self) -> bool:
        """Whether the object is written to the checkpoint."""
        return self.strategy != "none"


def choose(strategy: str, source: Source | None) -> str:
    """What `auto` means for a value; other strategies are what they are. Raises ValueError where `source` cannot be.

    `auto` reads files anew that all machines share and that were read plainly, as they are durable by themselves; it
    writes everything else. It never relies on a recipe, which promises no equal data, nor on files of one machine.
    """
    if strategy == "source" and source is None:
        raise ValueError(
            "strategy 'source' needs a plain read of files (parquet, orc, json, csv, text) without any change to what"
            " was read; use 'materialize' or 'recipe' for others"
        )
    if strategy != "auto":
        return strategy
    return "source" if source is not None and not source.local else "materialize"
