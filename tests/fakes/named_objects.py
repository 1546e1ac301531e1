"""The named objects of a context without Spark: values are texts inside the manifest, recipes are functions of a test."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from functools import partial

from checkpoint import layout
from checkpoint.epoch import begin_epoch
from checkpoint.errors import StoreUnavailable
from checkpoint.local import LocalFiles
from checkpoint.manifest import Kind, NamedObject
from checkpoint.writer import CheckpointWriter
from jobserver.driver.held import Held
from jobserver.driver.job_environment import JobNamedObjects, sealer
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.object_orders import carry_out
from jobserver.driver.origins import Origin, Recipe
from jobserver.driver.payload import pack, unpack
from jobserver.driver.progress import JobProgress
from jobserver.driver.rebuilding import Rebuilds, RecipeFailed, makes
from jobserver.model import AttemptRef
from sparkjobserver.api import JobEnvironment, ObjectDamaged

SYNC = ObjectOptions()
LIMIT = 10.0
"""Seconds; whatever takes longer than that here never ends."""


class BoundedKeeper(Keeper):
    """Who waits for a task fails with a sentence after `LIMIT`; `stuck`: whether anybody had to."""

    stuck = False

    def submit(self, task):
        future = super().submit(task)
        plain = future.result

        def result(timeout=LIMIT):
            try:
                return plain(timeout)
            except TimeoutError:
                if future.done():
                    raise  # the task's own
                self.stuck = True
                raise AssertionError(
                    f"a keeper's thread has not ended its task within {timeout:g} s: it waits, or all of them do"
                ) from None

        future.result = result
        return future


_SHARED = {}


def shared_keeper(name, threads):
    """One for all contexts of a test run, as threads that wait for work never end; a stuck one is left to its test."""
    keeper = _SHARED.get(name)
    if keeper is None or keeper.stuck:
        keeper = _SHARED[name] = BoundedKeeper(name, threads)
    return keeper


def in_thread(work):
    """Run it in a thread; answers a function that waits for its value or raises its error."""
    result = {}

    def run():
        try:
            result["value"] = work()
        except Exception as error:  # noqa: BLE001 - whatever it raised is raised again for the test
            result["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait():
        thread.join(LIMIT)
        assert not thread.is_alive(), f"what a thread of the test was to do has not ended within {LIMIT:g} s"
        if "error" in result:
            raise result["error"]
        return result["value"]

    return wait


@contextmanager
def over_and_over(*works):
    """Each runs again and again in a thread of its own, until the block ends; then what one of them raised is raised."""
    ends = threading.Event()

    def repeat(work):
        while not ends.is_set():
            work()

    threads = [in_thread(partial(repeat, work)) for work in works]
    try:
        yield
    finally:
        ends.set()
    for wait in threads:
        wait()


class PlainShelf:
    """Keeps values as texts inside the manifest."""

    kind = Kind.VALUE

    def __init__(self):
        self.discarded = []
        self.warmed = []
        self.tried = []
        self.restored = Counter()
        self.may_write = threading.Event()
        self.may_write.set()

    def make(self, making):
        strategy = "materialize" if making.options.strategy == "auto" else making.options.strategy
        origin = Origin(making.recipe, rebuilt=making.rebuilt).text()
        held = Held(making.name, "value", making.version, making.value, making.options)
        held.strategy, held.origin, held.rebuilt = strategy, origin, making.rebuilt
        held.record = self.write(held) if making.write else None
        return held

    def write(self, held):
        assert self.may_write.wait(LIMIT)
        return NamedObject(
            held.name,
            self.kind,
            held.version,
            held.strategy,
            held.options.durability,
            held.options.storage_level,
            inline=None if held.strategy == "recipe" else held.value.encode(),
            origin=held.origin,
        )

    def restore(self, record):
        self.restored[record.name] += 1
        if record.inline == b"damaged":
            raise ObjectDamaged(record.name)
        return Held(record.name, "value", record.version, record.inline.decode(), SYNC, record)

    def hand_out(self, held):
        return held.value

    def try_out(self, held):
        self.tried.append(held.value)

    def warm(self, held):
        self.warmed.append(held.value)

    def discard(self, held):
        self.discarded.append(held.value)


class FiledShelf(PlainShelf):
    """Values are functions that tell a text, as DataFrames are plans; what is written tells what its file holds."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def path(self, held):
        """Where a version's data lies in the store."""
        return self._folder.path(layout.object_path(held.name, held.version))

    def make(self, making):
        held = super().make(making)
        held.kind = Kind.RDD.value
        if held.record is not None:
            held.value = self._reader(self.path(held))
        return held

    def write(self, held):
        assert self.may_write.wait(LIMIT)
        self._folder.files.write_new(f"{self.path(held)}/part-0", held.value().encode())
        path = layout.object_path(held.name, held.version)
        return NamedObject(
            held.name, Kind.RDD, held.version, held.strategy, held.options.durability, path=path
        )

    def restore(self, record):
        value = self._reader(self._folder.path(record.path))
        return Held(record.name, Kind.RDD.value, record.version, value, SYNC, record)

    def _reader(self, path):
        return lambda: self._folder.files.read(f"{path}/part-0").decode()


class PlainValues:
    """Progress is pickled; there are no DataFrames."""

    def pack(self, value):
        return pack(value, {})

    def unpack(self, payload):
        return unpack(payload, lambda root, source: None)

    def is_frame(self, value):
        return False


class PlainRebuilder:
    """Recipes are functions of this test: main class to what gets the named objects."""

    def __init__(self):
        self.jobs = {}
        self.runs = Counter()

    def start(self, name, work):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def run(self, name, recipe, others, finish):
        self.runs[recipe.main_class] += 1
        if not makes(name, others, finish, self.jobs[recipe.main_class]):
            raise RecipeFailed(f"{recipe.main_class} returned without building {name!r}")


class SlowStore(LocalFiles):
    """Fails on demand."""

    broken = False

    def write_new(self, path, data):
        if self.broken:
            raise StoreUnavailable("asked to fail")
        super().write_new(path, data)


class Context:
    """One epoch of a context on a local store; its values lie in the manifest, or in files (`filed`)."""

    def __init__(self, folder, epoch=1, prepared=None, files=None, filed=False):
        self.files = files or SlowStore(folder)
        self.told = []
        base = begin_epoch(self.files, "ctx", epoch, f"t{epoch}", b"s")
        writer = CheckpointWriter(self.files, "ctx", epoch, f"t{epoch}", base, b"s")
        self.journal = Journal(self.files, "ctx", writer, self.told.append, b"s")
        self.shelf = FiledShelf(self.journal.folder) if filed else PlainShelf()
        self.background = shared_keeper("background", 1)
        self.rebuilder = PlainRebuilder()
        self.sealers = shared_keeper("sealer", 4)
        self.registry = Registry(
            self.shelf,
            self.journal,
            self.sealers,
            self.background,
            prepared,
            rebuild=Rebuilds(self.rebuilder, JobNamedObjects),
        )

    def make(self, name, value, strategy="recipe"):
        """As a job does whose recipe is `job-<name>`, and that would build the same again."""
        job = self.rebuilder.jobs[f"job-{name}"] = lambda objects: objects.update(name, lambda: value)
        objects = JobNamedObjects(self.registry, Recipe(f"job-{name}", (), "{}"))
        objects.update(name, lambda: value, strategy=strategy)
        return job

    def order(self, order):
        return carry_out(self.registry, order, self.journal.older_versions)

    def environment(self, job="job", attempt=1):
        """What an attempt of a job gets."""
        ref = AttemptRef(job, attempt)
        progress = JobProgress(
            ref, self.journal, self.sealers, lambda *told: None, PlainValues(), lambda path: self.registry.hold(path, ref)
        )  # fmt: skip
        return JobEnvironment(
            job, JobNamedObjects(self.registry), None, attempt=attempt, progress=progress,
            sealer=sealer(ref, progress, self.registry),
        )  # fmt: skip

    def settle(self):
        """Wait for what the background was given."""
        self.background.submit(lambda: None).result(LIMIT)
