"""What named objects cost without Spark: a small sync update, and the way from a manifest to the first answer.

The real journal, store and registry on plain values in a directory; no JVM, so that the numbers are those of our part.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.measure import Effort, Section, Series
from checkpoint.epoch import begin_epoch
from checkpoint.local import LocalFiles
from checkpoint.writer import CheckpointWriter
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.loading import JobLoader
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.shelf import SparkShelf

SECRET = b"benchmark"
SYNC, NONE = ObjectOptions(), ObjectOptions(strategy="none")
LIMIT = 60.0
COUNTS = (1, 100, 10_000)
SEALERS, BACKGROUND = Keeper("sealer", 8), Keeper("background", 2)


def run(effort: Effort) -> Section:
    """Small updates one after the other, then takeovers with more and more objects."""
    series = [*_updates(effort.times(500, 20))]
    first: dict[str, Series] = {}
    for count in COUNTS:
        for one in _takeovers(count, effort.times(20, 2), first):
            series.append(one)
    about = (
        "Named plain values in a directory, without Spark. An update is one value of 100 bytes; its baseline is a file of the "
        "same size, synced, with its folder. A takeover is marker, listing, base, pin and registry; then the first get."
    )
    notes = [
        "A takeover reads and seals the manifest as a whole: its time grows with the number of objects, not with their size."
    ]
    return Section("Named objects without Spark", about, series, notes)


class _Context:
    """One epoch of a context."""

    def __init__(self, folder: Path, epoch: int) -> None:
        files = LocalFiles(folder)
        base = begin_epoch(files, "bench", epoch, f"t{epoch}", SECRET)
        writer = CheckpointWriter(files, "bench", epoch, f"t{epoch}", base, SECRET)
        journal = Journal(files, "bench", writer, lambda _epoch: None, SECRET)
        loader = JobLoader(folder / "bundles", lambda _path: None)
        shelf = SparkShelf(None, loader, journal.folder)  # type: ignore[arg-type]  # values never reach Spark
        self.registry = Registry(shelf, journal, SEALERS, BACKGROUND)


def _updates(times: int) -> list[Series]:
    synced: Series = Series("a file of 100 bytes, synced with its folder")
    memory: Series = Series("update, strategy none")
    sync: Series = Series("update, durability sync", baseline=synced)
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
    return [synced, memory, sync]


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
    answer: Series = Series(f"first get of {count:,} objects", baseline=first.get("answer"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builds = {f"object {number}": (lambda number=number: number) for number in range(count)}
        _Context(folder, 1).registry.update_together(builds, {})
        for epoch in range(2, times + 2):
            with gate.timed():
                registry = _Context(folder, epoch).registry
            with answer.timed():
                found = registry.get("object 0", LIMIT)
            if found != 0:
                raise AssertionError(f"the first answer was {found!r}")
    first.setdefault("gate", gate)
    first.setdefault("answer", answer)
    return [gate, answer]
