"""What named objects cost without Spark: a small sync update, and the way from a manifest to the first answer.

The real journal, store and registry on plain values in a directory; no JVM, so that the numbers are those of our part.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import Effort, Section, Series
from checkpoint.epoch import begin_epoch, load
from checkpoint.local import LocalFiles
from checkpoint.writer import CheckpointWriter
from jobserver.driver import warming
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.loading import JobLoader
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.shelf import SparkShelf

SECRET = b"benchmark"
SYNC, NONE = ObjectOptions(), ObjectOptions(strategy="none")
ASYNC = ObjectOptions(durability="async")
LIMIT = 60.0
CHANGED = 100 * 1024
COUNTS = (1, 100, 10_000)
SEALERS, BACKGROUND = Keeper("sealer", 8), Keeper("background", 2)


def run(effort: Effort) -> Section:
    """Small updates one after the other, then takeovers with more and more objects."""
    warming.WARM_AFTER = (
        3600.0  # or the takeovers before would fill their caches beside the one that is measured
    )
    series = [*_updates(effort.times(500, 20)), *_one_of_twenty(effort.times(30, 3))]
    first: dict[str, Series] = {}
    for count in COUNTS:
        for one in _takeovers(count, effort.times(20, 2), first):
            series.append(one)
    about = (
        "Named plain values in a directory, without Spark. An update is one value of 100 bytes; its baseline is a file of the "
        "same size, synced, with its folder (of an async one: the sync one). Bytes written for one changed object of twenty, "
        "each of 100 KiB, manifest included, over those of the object. A takeover is marker, listing, base, pin, the driver's "
        "own reading and its registry, compared with that of one object; then the first get. Beside it what reading, hashing and "
        "proving the bytes of the manifests costs alone, twice, as server and driver both do."
    )
    return Section("Named objects without Spark", about, series)


class _Context:
    """One epoch of a context."""

    def __init__(self, folder: Path, epoch: int) -> None:
        files = LocalFiles(folder)
        base = begin_epoch(files, "bench", epoch, f"t{epoch}", SECRET)
        assert base.name is not None
        base = load(files, "bench", base.name, SECRET)  # the driver is told the name, and reads it itself
        writer = CheckpointWriter(files, "bench", epoch, f"t{epoch}", base, SECRET)
        journal = Journal(files, "bench", writer, lambda _epoch: None, SECRET)
        loader = JobLoader(folder / "bundles", lambda _path: None)
        shelf = SparkShelf(None, loader, journal.folder, SEALERS)  # type: ignore[arg-type]  # values never reach Spark
        self.registry = Registry(shelf, journal, SEALERS, BACKGROUND)


def _updates(times: int) -> list[Series]:
    synced: Series = Series("a file of 100 bytes, synced with its folder")
    memory: Series = Series("update, strategy none")
    sync: Series = Series("update, durability sync", baseline=synced)
    late: Series = Series("update, durability async", baseline=sync)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = _Context(folder / "store", 1).registry
        for number in range(times):
            with synced.timed():
                _write_synced(folder / f"file-{number}")
            with memory.timed():
                registry.update("memory", lambda: b"x" * 100, NONE, LIMIT)
            with sync.timed():
                registry.update("sync", lambda: b"x" * 100, SYNC, LIMIT)
            with late.timed():
                registry.update("late", lambda: b"x" * 100, ASYNC, LIMIT)
        registry.flush(LIMIT)
    return [synced, memory, sync, late]


def _one_of_twenty(times: int) -> list[Series]:
    """What one update adds to the store."""
    own: Series = Series("bytes of one object", "B")
    written: Series = Series("bytes written for one changed object of twenty", "B", baseline=own)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = _Context(folder, 1).registry
        registry.update_together({f"object {n}": partial(os.urandom, CHANGED) for n in range(20)}, {})
        before = _bytes_below(folder)
        for number in range(times):
            registry.update(f"object {number % 20}", partial(os.urandom, CHANGED), SYNC, LIMIT)
            own.values.append(CHANGED)
            after = _bytes_below(folder)
            written.values.append(after - before)
            before = after
    return [own, written]


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write_synced(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"x" * 100)
        file.flush()
        os.fsync(file.fileno())
    parent = os.open(path.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def _takeovers(count: int, times: int, first: dict[str, Series]) -> list[Series]:
    """Compared with the same for one object."""
    gate: Series = Series(f"takeover with {count:,} objects", baseline=first.get("gate"))
    reading: Series = Series(f"reading the manifests of {count:,} objects")
    answer: Series = Series(f"first get of {count:,} objects", baseline=first.get("answer"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builds = {f"object {number}": (lambda number=number: number) for number in range(count)}
        _Context(folder, 1).registry.update_together(builds, {})
        for epoch in range(2, times + 2):
            with reading.timed():
                _read_twice(folder)
            with gate.timed():
                registry = _Context(folder, epoch).registry
            with answer.timed():
                found = registry.get("object 0", LIMIT)
            if found != 0:
                raise AssertionError(f"the first answer was {found!r}")
    first.setdefault("gate", gate)
    first.setdefault("answer", answer)
    return [gate, reading, answer]


def _read_twice(folder: Path) -> None:
    """The manifests that a takeover reads: the full one, and what follows on it."""
    for _ in range(2):
        for path in sorted((folder / "bench" / "manifest").glob("*.json"))[:3]:
            data = path.read_bytes()
            hashlib.sha256(data).digest()
            hmac.digest(SECRET, data, "sha256")
