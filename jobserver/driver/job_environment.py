"""What the driver puts behind `sparkjobserver.api`: named objects and progress of one attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobserver.driver.kinds import RunOrder
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe, Upload
from jobserver.driver.progress import JobProgress
from jobserver.model import AttemptRef, BinaryType
from sparkjobserver.api import NamedObjects


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
