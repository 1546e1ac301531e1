"""The whole life of a context's checkpoint, once for each kind of fault at each single write (and every fourth call).

Epochs begin, commit, sweep and are replaced; whatever a call of the store does, what was acknowledged is in the base of
the next epoch, and what was refused is there only if its outcome was unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from checkpoint.base import Base
from checkpoint.data import check_data, seal_data
from checkpoint.epoch import begin_epoch
from checkpoint.errors import AlreadyExists, CheckpointError, Damaged, StoreUnavailable, Superseded
from checkpoint.layout import in_context, object_path
from checkpoint.manifest import Kind, NamedObject
from checkpoint.writer import Changes, CheckpointWriter
from tests.fakes.files import Fault, FaultyFiles

CONTEXT, SECRET = "c", b"secret"
COMMITS = 18  # more than lie between two full manifests
TRIES = 12


@dataclass
class Life:
    """One life of a checkpoint on one store."""

    files: FaultyFiles
    acknowledged: dict[str, str] = field(default_factory=dict)  # object → version
    unknown: dict[str, set[str]] = field(default_factory=dict)
    epoch: int = 0

    def begin(self) -> Base:
        """The base of the next epoch that can begin, as an owner would make it."""
        self.epoch += 1
        for _ in range(TRIES):
            try:
                return begin_epoch(self.files, CONTEXT, self.epoch, f"t{self.epoch}", SECRET)
            except StoreUnavailable:
                continue
            except (Damaged, Superseded):
                self.epoch += 1  # spent
        raise AssertionError("no epoch could begin")

    def write(self, writer: CheckpointWriter, name: str) -> None:
        """Update one object under `sync`, again and again until it is acknowledged or the writer must hold."""
        for _ in range(TRIES):
            version = writer.next_version()
            try:
                item = self.written(name, version)
                writer.commit(Changes(put=[item]))
            except StoreUnavailable:
                self.unknown.setdefault(name, set()).add(version)
                continue
            except Superseded:
                self.unknown.setdefault(name, set()).add(version)
                return
            self.acknowledged[name] = version
            self.unknown.pop(name, None)
            return
        raise AssertionError("nothing could be committed")

    def written(self, name: str, version: str) -> NamedObject:
        """The object's data, sealed as a driver does."""
        path = object_path(name, version)
        try:
            self.files.write_new(in_context(CONTEXT, f"{path}/part-0"), f"{name} {version}".encode())
        except AlreadyExists as error:
            raise StoreUnavailable("a torn file of an earlier try") from error
        entries = seal_data(self.files, CONTEXT, path, digests=True)
        return NamedObject(name, Kind.DATAFRAME, version, "materialize", "sync", path=path, files=entries)

    def work(self, base: Base) -> None:
        """Commits and sweeps of one epoch."""
        writer = CheckpointWriter(self.files, CONTEXT, self.epoch, f"t{self.epoch}", base, SECRET)
        for number in range(COMMITS):
            self.write(writer, f"o{number % 4}")
            if number % 6 == 5:
                try:
                    writer.sweep({item.version for item in writer.objects().values()})
                except CheckpointError:
                    continue

    def judge(self, base: Base) -> None:
        """Every acknowledged object is there with its data, or in a version that came later and was never denied."""
        for name, version in self.acknowledged.items():
            found = base.objects.get(name)
            assert found is not None, f"{name} {version} was acknowledged and is gone"
            assert found.version == version or found.version in self.unknown.get(name, set()), (
                f"{name} {version} was acknowledged, and {found.version} is there"
            )
            check_data(self.files, CONTEXT, found, base.name or "")


def lived(files: FaultyFiles) -> Life:
    """Three epochs; the second one's driver is replaced without a word."""
    life = Life(files)
    for _ in range(2):
        base = life.begin()
        life.judge(base)
        life.work(base)
    files.land()
    life.judge(life.begin())
    return life


def calls_of(match: Callable[[str], bool]) -> list[int]:
    """The numbers of the calls of a life without faults."""
    files = FaultyFiles()
    lived(files)
    return [number for number, (operation, _) in enumerate(files.calls) if match(operation)]


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.FULL, Fault.LOST_REPLY, Fault.TORN, Fault.LATE])
def test_a_single_fault_anywhere_loses_nothing_that_was_acknowledged(fault: Fault) -> None:
    hit = calls_of(lambda operation: fault is Fault.DOWN or operation == "write_new")
    hit = hit[::4] if fault is Fault.DOWN else hit
    assert len(hit) > 60
    for number in hit:
        files = FaultyFiles()
        files.inject_at(number, fault)
        try:
            lived(files)
        except AssertionError as error:
            raise AssertionError(f"{fault.name} at call {number} {files.calls[number]}: {error}") from error


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.LOST_REPLY, Fault.TORN, Fault.LATE])
def test_nor_do_many_faults_in_a_row(fault: Fault) -> None:
    for start in calls_of(lambda operation: operation == "write_new")[::5]:
        files = FaultyFiles()
        for number in range(start, start + 7):
            files.inject_at(number, fault)
        lived(files)


def test_a_writer_that_does_not_see_its_own_marker_in_a_stale_listing_acknowledges_nothing() -> None:
    files = FaultyFiles()
    life = Life(files)
    writer = CheckpointWriter(files, CONTEXT, 1, "t1", life.begin(), SECRET)
    files.inject(Fault.STALE, "names", "marker")
    life.write(writer, "o")
    assert life.acknowledged == {}
    assert writer.objects() == {}


def test_a_stale_listing_of_manifests_would_lose_data_so_the_port_forbids_it_and_this_judge_sees_it() -> None:
    files = FaultyFiles()
    life = Life(files)
    life.work(life.begin())
    files.inject(Fault.STALE, "names", "manifest")
    with pytest.raises(AssertionError, match="was acknowledged"):
        life.judge(life.begin())
