"""The options of named objects, checked (pure)."""

from __future__ import annotations

from dataclasses import dataclass

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
        if self.strategy not in ("auto", "materialize", "none"):
            raise ValueError(f"strategy {self.strategy!r} is none of 'auto', 'materialize', 'none'")
        if self.force_computation and self.storage_level == "NONE":
            raise ValueError("force_computation implies a storage_level other than NONE")

    @property
    def kept(self) -> bool:
        """Whether the object is written to the checkpoint."""
        return self.strategy != "none"
