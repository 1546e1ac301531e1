"""Running a recipe again: the job that once made a named object, for that object alone.

It runs in a thread and a session of its own, so that neither the job that asks nor its kill has a part in it. It sees the
context's other objects and may make absent ones; it changes none, saves no progress, and ends as soon as the wanted
object is made.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from checkpoint import binaries
from checkpoint.files import FileStore
from checkpoint.manifest import NamedObject
from jobserver.driver.bundles import root_name
from jobserver.driver.jobthreads import JobThreads, RunningAttempt, current
from jobserver.driver.kinds import PythonJob, ResultRules, config_tree
from jobserver.driver.loading import DriverBinary, JobLoader, LoadedJob, LoadRefused
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe, origin_of
from jobserver.driver.payload import BundleSource
from jobserver.driver.turns import Turn
from jobserver.model import AttemptRef, BinaryType, ResultFormat
from sparkjobserver.api import JobEnvironment, NamedObjects, Progress

log = logging.getLogger(__name__)

RESULT_LIMIT = 1024 * 1024
"""Largest result in bytes of a job whose result nobody will see."""

Build = Callable[[], Any]
Finish = Callable[[Build, ObjectOptions], None]
"""Makes the wanted object of what the recipe's job would have built."""


class Rebuilder(Protocol):
    """Runs recipes. `start` answers the thread in which `work` runs; `run` is called inside of it."""

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run `work` in a thread of its own, which no kill of a job reaches."""

    def run(self, name: str, recipe: Recipe, others: NamedObjects, finish: Finish) -> None:
        """Run the job until it has made the object. Raises what the job raises, or RecipeFailed."""


class RecipeFailed(Exception):
    """The job that made an object once does not make it any more; the text says what it did instead."""


def makes(name: str, others: NamedObjects, finish: Finish, job: Callable[[OneObject], None]) -> bool:
    """Run a job until it has made one object; whether it has. Raises what the job raises."""
    try:
        job(OneObject(name, others, finish))
    except _Made:
        return True
    return False


class _Made(BaseException):
    """The wanted object is made: the job ends here. No Exception, so that `except Exception` does not hold it up."""


class Place(Protocol):
    """What rebuilding needs of the driver."""

    def session(self, attempt: RunningAttempt) -> Any:
        """A session for the thread that rebuilds."""

    def left(self, attempt: RunningAttempt) -> None:
        """The rebuild uses nothing any more."""

    def context_config(self) -> Any:
        """The context's settings."""

    def data_file(self, name: str) -> str:
        """An uploaded data file as a local path."""


class Rebuilds:
    """What a registry calls to have an object made again: by its recipe, or by reading its files again.

    `others`: the named objects as the recipe's job sees them, which may make absent ones under a recipe of their own.
    """

    def __init__(self, rebuilder: Rebuilder, others: Callable[[Registry, Recipe], NamedObjects]) -> None:
        self._rebuilder = rebuilder
        self._others = others

    def __call__(self, registry: Registry, name: str, record: NamedObject, turn: Turn) -> None:
        """Begin, in a thread to which the turn goes over; returns at once."""
        turn.thread = self._rebuilder.start(name, lambda: self._work(registry, record, turn))

    def _work(self, registry: Registry, record: NamedObject, turn: Turn) -> None:
        error: Exception | None = None
        try:
            self._make(registry, record)
        except BaseException as failure:  # noqa: BLE001
            # the author's code may raise anything; whatever it was, it is told to those who wait
            log.warning("named object %r could not be made again: %r", record.name, failure)
            error = failure if isinstance(failure, Exception) else RecipeFailed(repr(failure))
        finally:
            registry.rebuild_ended(record.name, turn, error)

    def _make(self, registry: Registry, record: NamedObject) -> None:
        origin = origin_of(record.origin)
        if origin.source is not None:
            registry.reread(record)
            return
        recipe = origin.recipe
        if recipe is None:
            raise RecipeFailed(f"it is not known how named object {record.name!r} was made")
        others = self._others(registry, recipe)
        self._rebuilder.run(
            record.name,
            recipe,
            others,
            lambda build, options: registry.rebuild(record, build, options, recipe),
        )
        log.info("named object %r was made again by its recipe: it need not equal what was lost", record.name)


class SparkRebuilder:
    """See Rebuilder. `files` holds the uploads; `prefix` makes job groups unique."""

    def __init__(self, loader: JobLoader, files: FileStore, place: Place, prefix: str) -> None:
        self._loader = loader
        self._files = files
        self._place = place
        self._prefix = prefix
        self._threads = JobThreads()
        self._count = 0

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """See Rebuilder."""
        self._count += 1
        group = f"{self._prefix}-rebuild-{self._count}"
        attempt = RunningAttempt(AttemptRef(f"rebuild of {name}", self._count), group, "batch", [group])

        def whole() -> None:
            attempt.session = self._place.session(attempt)
            try:
                work()
            finally:
                attempt.session = None
                self._place.left(attempt)

        return self._threads.start(attempt, whole)

    def run(self, name: str, recipe: Recipe, others: NamedObjects, finish: Finish) -> None:
        """See Rebuilder."""
        loaded, attempt = self._load(recipe), current()
        session = attempt.session if attempt else None
        config = config_tree(json.loads(recipe.config))

        def job(objects: OneObject) -> None:
            env = JobEnvironment(
                f"rebuild of {name}", objects, self._place.context_config(), progress=_NoProgress(),
                sealer=objects.commit, data_files=self._place.data_file,
            )  # fmt: skip
            job = PythonJob(loaded, session, env, config, ResultRules(ResultFormat.JSON, RESULT_LIMIT))
            if problems := job.validate():
                raise RecipeFailed(f"{recipe.main_class} refuses its configuration: {'; '.join(problems)}")
            job.run()

        if not makes(name, others, finish, job):
            raise RecipeFailed(f"{recipe.main_class} returned without building {name!r}")

    def _load(self, recipe: Recipe) -> LoadedJob:
        """The job's code, from the checkpoint store if this driver has not seen it."""
        module = recipe.main_class.replace(":", ".").rpartition(".")[0]
        try:
            for upload in recipe.uploads:
                only = module if upload.type is BinaryType.PYTHON else ""
                source = BundleSource(upload.digest, upload.type, only)
                read = partial(binaries.read, self._files, upload.digest)
                self._loader.provide(root_name(upload.digest, only), source, read)
            known = [DriverBinary(one.name, one.type, one.digest, Path()) for one in recipe.uploads]
            return self._loader.load(recipe.main_class, known)
        except LoadRefused as refused:
            raise RecipeFailed(refused.error.message) from refused


class OneObject(NamedObjects):
    """The named objects as a rebuild sees them: the wanted one is absent, and made when the job builds it."""

    def __init__(self, wanted: str, others: NamedObjects, finish: Finish) -> None:
        self._wanted = wanted
        self._others = others
        self._finish = finish

    def get_or_create(self, name: str, build: Build, *, timeout: float = 60.0, **options: Any) -> Any:
        """The wanted object ends the job; others are read, or made where they are absent."""
        if name == self._wanted:
            self._finish(build, ObjectOptions(**options))
            raise _Made
        return self._others.get_or_create(name, build, timeout=timeout, **options)

    def update(self, name: str, build: Build, *, timeout: float = 60.0, **options: Any) -> Any:
        """As get_or_create: what others see is not changed by a rebuild."""
        return self.get_or_create(name, build, timeout=timeout, **options)

    def get(self, name: str, timeout: float = 60.0) -> Any:
        """The wanted object is absent."""
        return None if name == self._wanted else self._others.get(name, timeout)

    def forget(self, name: str) -> None:
        """Nothing: a rebuild takes nothing away."""

    def destroy(self, name: str) -> None:
        """Nothing: a rebuild takes nothing away."""

    def names(self) -> list[str]:
        """All names but the wanted one."""
        return [name for name in self._others.names() if name != self._wanted]

    def commit(self, progress: Any, updates: Mapping[str, Build]) -> None:
        """Of the objects of a commit the wanted one is made; nothing is sealed."""
        for name, build in updates.items():
            self.update(name, build)


class _NoProgress(Progress):
    """A rebuild begins at the beginning, and saves nothing."""

    def report(self, fraction: float | None, message: str = "") -> None:
        """Nobody watches."""

    def save(self, value: Any) -> None:
        """Not kept."""

    def load(self, default: Any = None) -> Any:
        """Nothing was saved."""
        return default
