"""The steps of a build of named objects: what a job, or a recipe, builds becomes a version, is sealed and published.

They run in the thread of who builds, under turns that it has taken; what the build raised fails all who wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from checkpoint.manifest import Kind, NamedObject, Progress
from jobserver.driver.held import Held, Making, Shelf
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe
from jobserver.driver.seals import Seals
from jobserver.driver.turns import Turn
from jobserver.driver.versions import Versions


class Builds:
    """Makes versions. `journal` is None when the driver has no checkpoint."""

    def __init__(
        self, versions: Versions, shelf: Shelf, journal: Journal | None, seals: Seals, background: Keeper
    ) -> None:
        self._versions = versions
        self._shelf = shelf
        self._journal = journal
        self._seals = seals
        self._background = background
        self._counter = 0

    def build(
        self,
        builds: Mapping[str, Callable[[], Any]],
        options: Mapping[str, ObjectOptions],
        turns: Mapping[str, Turn],
        progress: Mapping[str, Progress] = {},
        recipe: Recipe | None = None,
    ) -> list[Held]:
        """Build, seal and publish under the turns that the caller has taken, which end."""
        try:
            made = self._made_all(builds, options, progress, recipe)
            self._seals.seal(turns, made, progress, lambda: self.abandon(made, progress))
            return made
        except Exception as error:
            # whatever the job's build raised fails all who wait for it; after a kill the next one builds instead
            with self._versions.lock:
                for turn in turns.values():
                    turn.error = error
            raise
        finally:
            for name in builds:
                self._versions.end_turn(name)

    def options_for_commit(self, name: str) -> ObjectOptions:
        """What is sealed with progress must be written; how it is cached stays as it was."""
        held, record = self._versions.held(name), self._versions.stored.get(name)
        level = (
            held.options.storage_level if held else record.storage_level if record else ""
        ) or "MEMORY_AND_DISK"
        return ObjectOptions(level, level != "NONE", "sync", "materialize")

    def rebuild(
        self, record: NamedObject, build: Callable[[], Any], options: ObjectOptions, recipe: Recipe
    ) -> None:
        """Make and publish what a recipe built, in the thread that has the turn. Written data is sealed anew.

        An object that is only a recipe keeps its record: it can come back although the store is away.
        """
        options = replace(options, strategy=record.strategy, durability="sync")
        if record.strategy != "recipe":
            held = self._made(record.name, build, options, recipe, rebuilt=True)
            self._seals.seal_rebuilt(held, lambda: self.abandon([held], {}))
            return
        with self._next_version() as version:
            making = Making(record.name, build(), options, version, write=False, recipe=recipe, rebuilt=True)
            held = self._shelf.make(making)
            self._note_reads(held)
            held.record = record
            self._seals.show_rebuilt(held)

    def reread(self, record: NamedObject) -> None:
        """Read the files of a source again, as a new version, in the thread that has the turn."""
        with self._next_version() as version:
            held = self._shelf.reread(record, version)
        self._seals.seal_rebuilt(held, lambda: self.abandon([held], {}))

    def _made_all(
        self,
        builds: Mapping[str, Callable[[], Any]],
        options: Mapping[str, ObjectOptions],
        progress: Mapping[str, Progress],
        recipe: Recipe | None,
    ) -> list[Held]:
        made: list[Held] = []
        try:
            for name, build in builds.items():
                made.append(self._made(name, build, options[name], recipe))
            return made
        except BaseException:  # a kill, too: nothing of it was handed to a seal yet
            self.abandon(made, progress)
            raise

    def _made(
        self,
        name: str,
        build: Callable[[], Any],
        options: ObjectOptions,
        recipe: Recipe | None,
        *,
        rebuilt: bool = False,
    ) -> Held:
        write = self._journal is not None and options.kept and options.durability == "sync"
        if options.kept and not write:
            self._seals.late.admit()
        with self._next_version() as version:
            value = build()
            if value is None:
                raise ValueError(
                    f"the build of named object {name!r} returned None, which means that there is none"
                )
            held = self._shelf.make(Making(name, value, options, version, write, recipe, rebuilt))
            self._note_reads(held)
            return held

    def _note_reads(self, held: Held) -> None:
        """What readers get of it is written and read back, or is files of others, or else what the job built of others."""
        own = held.strategy == "source" or (held.strategy == "materialize" and held.record is not None)
        if held.kind in (Kind.DATAFRAME, Kind.RDD) and not own:
            with self._versions.lock:
                held.reads = self._versions.read_by_caller()

    def abandon(self, made: Iterable[Held], progress: Mapping[str, Progress]) -> None:
        """Free what was made and not sealed, and let sweeps remove what was written of it."""
        for held in made:
            if self._versions.held(held.name) is not held:
                self._background.submit(partial(self._shelf.discard, held))
                if self._journal:
                    self._journal.release(held.version)
        for saved in progress.values():
            if self._journal and saved.path is not None:
                self._journal.release(saved.path)

    @contextmanager
    def _next_version(self) -> Iterator[str]:
        """A version for what is made inside; when that fails, sweeps may remove what was written of it."""
        if self._journal is None:
            with self._versions.lock:
                self._counter += 1
                version = f"memory-{self._counter}"
            yield version
            return
        version = self._journal.next_version()
        try:
            yield version
        except BaseException:
            self._journal.release(version)
            raise
