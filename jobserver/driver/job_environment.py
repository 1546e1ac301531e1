"""What the driver puts behind `sparkjobserver.api`: named objects and progress of one attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle

from checkpoint.contents import Changes
from checkpoint.errors import Corrupt, Missing
from checkpoint.manifest import INLINE_LIMIT
from checkpoint.manifest import Progress as SavedProgress
from checkpoint.sealing import persist
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.kinds import RunOrder
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe, Upload
from jobserver.model import AttemptRef, BinaryType
from sparkjobserver.api import NamedObjects, ObjectDamaged, Progress


def recipe_of(order: RunOrder) -> Recipe | None:
    """The job of an order as a recipe; None for kinds of job that are not run again for an object alone."""
    if order.sql is not None or not order.binaries:
        return None
    if any(binary.type is BinaryType.JAR for binary in order.binaries):
        return None
    uploads = tuple(Upload(binary.name, binary.type, binary.digest) for binary in order.binaries)
    return Recipe(order.main_class, uploads, order.config)


class JobNamedObjects(NamedObjects):
    """See the base class."""

    def __init__(self, registry: Registry, recipe: Recipe | None = None) -> None:
        self._registry = registry
        self._recipe = recipe

    def get_or_create(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        timeout: float = 60.0,
        storage_level: str = "MEMORY_AND_DISK",
        force_computation: bool = True,
        durability: str = "sync",
        strategy: str = "auto",
    ) -> Any:
        """See the base class."""
        options = ObjectOptions(storage_level, force_computation, durability, strategy)
        return self._registry.get_or_create(_checked(name), build, options, timeout, self._recipe)

    def get(self, name: str, timeout: float = 60.0) -> Any:
        """See the base class."""
        return self._registry.get(_checked(name), timeout)

    def update(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        timeout: float = 60.0,
        storage_level: str = "MEMORY_AND_DISK",
        force_computation: bool = True,
        durability: str = "sync",
        strategy: str = "auto",
    ) -> Any:
        """See the base class."""
        options = ObjectOptions(storage_level, force_computation, durability, strategy)
        return self._registry.update(_checked(name), build, options, timeout, self._recipe)

    def forget(self, name: str) -> None:
        """See the base class."""
        self._registry.remove(_checked(name), free=False)

    def destroy(self, name: str) -> None:
        """See the base class."""
        self._registry.remove(_checked(name), free=True)

    def names(self) -> list[str]:
        """See the base class."""
        return self._registry.names()


class JobProgress(Progress):
    """See the base class. Saves of an attempt that a later one has replaced are refused by the checkpoint."""

    def __init__(
        self,
        ref: AttemptRef,
        journal: Journal | None,
        sealers: Keeper,
        tell: Callable[[float | None, str], None],
    ) -> None:
        self._ref = ref
        self._journal = journal
        self._sealers = sealers
        self._tell = tell

    def report(self, fraction: float | None, message: str = "") -> None:
        """See the base class."""
        known = None if fraction is None else min(max(float(fraction), 0.0), 1.0)
        self._tell(known, str(message))

    def save(self, value: Any) -> None:
        """See the base class."""
        self._commit(self.saved(value))

    def load(self, default: Any = None) -> Any:
        """See the base class. Records first that this attempt starts from it, so that older ones save no more."""
        journal = self._needed_journal()
        known = journal.progress_of(self._ref.job_id)
        if known is None or (known.inline is None and known.path is None):
            return default
        if known.attempt < self._ref.attempt:
            self._commit(SavedProgress(self._ref.attempt, known.inline, known.path, known.size, known.sha256))
        return cloudpickle.loads(self._bytes_of(journal, known))

    def _bytes_of(self, journal: Journal, known: SavedProgress) -> bytes:
        """The pickle, proven to be the one that was sealed: inline by its manifest, a file by the digest there."""
        if known.inline is not None:
            return known.inline
        damaged = f"the saved progress of job {self._ref.job_id} is damaged"
        try:
            data = persist(lambda: journal.folder.files.read(journal.folder.path(known.path or "")))
        except (Missing, Corrupt) as error:
            raise ObjectDamaged(f"{damaged}: {error}") from error
        if hashlib.sha256(data).hexdigest() != known.sha256:
            raise ObjectDamaged(f"{damaged}: its bytes have changed")
        return data

    def saved(self, value: Any) -> SavedProgress:
        """The value as a checkpoint keeps it; a big one is written to a file now."""
        journal, data = self._needed_journal(), cloudpickle.dumps(value)
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= INLINE_LIMIT:
            return SavedProgress(self._ref.attempt, inline=data, size=len(data), sha256=digest)
        path = journal.next_progress_path(self._ref.job_id, self._ref.attempt)
        journal.folder.files.write_new(journal.folder.path(path), data)
        return SavedProgress(self._ref.attempt, path=path, size=len(data), sha256=digest)

    def _commit(self, saved: SavedProgress) -> None:
        journal = self._needed_journal()
        changes = Changes(progress={self._ref.job_id: saved})
        self._sealers.submit(lambda: journal.commit(changes)).result()

    def _needed_journal(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("progress cannot be saved: this context has no checkpoint")
        return self._journal


def sealer(
    ref: AttemptRef, progress: JobProgress, registry: Registry, recipe: Recipe | None = None
) -> Callable[[Any, Mapping[str, Callable[[], Any]]], None]:
    """What `env.commit` does."""

    def commit(value: Any, updates: Mapping[str, Callable[[], Any]]) -> None:
        registry.update_together(updates, {ref.job_id: progress.saved(value)}, recipe)

    return commit


def _checked(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"a named object's name is a text that is not empty, not {name!r}")
    return name
