"""Data files, binaries and standbys: what was sealed is recognised, what is damaged is named, and nothing else suffers."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from checkpoint import binaries, layout
from checkpoint.base import Base, load
from checkpoint.data import check_data, seal_data
from checkpoint.epoch import begin_epoch
from checkpoint.errors import Damaged, Missing, StoreUnavailable
from checkpoint.follow import follow
from checkpoint.manifest import FileEntry, Kind, NamedObject
from checkpoint.sealing import TRIES
from checkpoint.writer import Changes, CheckpointWriter
from tests.fakes.files import Fault, FaultyFiles

SECRET = b"secret"
CONTEXT = "c"
PATH = "objects/a/1"


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def item(files: FaultyFiles) -> NamedObject:
    """A sealed object of two files, with digests."""
    files.write_new("c/objects/a/1/part-0", b"12345")
    files.write_new("c/objects/a/1/part-1", b"123")
    entries = seal_data(files, CONTEXT, PATH, digests=True)
    return NamedObject("a", Kind.DATAFRAME, "1", "materialize", "sync", path=PATH, files=entries)


def test_sealed_data_is_described_by_name_length_and_digest(files: FaultyFiles, item: NamedObject) -> None:
    assert item.files[0] == FileEntry("part-0", 5, hashlib.sha256(b"12345").hexdigest())
    assert seal_data(files, CONTEXT, PATH) == (FileEntry("part-0", 5), FileEntry("part-1", 3))
    check_data(files, CONTEXT, item, "m")


def test_data_that_was_never_written_cannot_be_sealed(files: FaultyFiles) -> None:
    with pytest.raises(Missing):
        seal_data(files, CONTEXT, "objects/none/1")


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "absent"), (b"1234", "4 bytes instead of 5"), (b"12346", "not those that were sealed")],
)
def test_damaged_data_is_reported_with_object_version_and_file(
    files: FaultyFiles, item: NamedObject, content: bytes | None, why: str
) -> None:
    files.damage("c/objects/a/1/part-0", content)
    with pytest.raises(Damaged, match=why) as seen:
        check_data(files, CONTEXT, item, "m")
    assert (seen.value.what, seen.value.manifest) == ("a", "m")
    assert "version 1, file part-0" in str(seen.value)


def test_without_digests_only_lengths_are_compared(files: FaultyFiles, item: NamedObject) -> None:
    plain = replace(item, files=seal_data(files, CONTEXT, PATH))
    files.damage("c/objects/a/1/part-0", b"54321")
    check_data(files, CONTEXT, plain, "m")


def test_a_slow_store_is_no_proof_of_damage(files: FaultyFiles, item: NamedObject) -> None:
    files.inject(Fault.DOWN, "size", times=TRIES)
    with pytest.raises(StoreUnavailable):
        check_data(files, CONTEXT, item, "m")
    files.inject(Fault.DOWN, "size", times=TRIES - 1)
    check_data(files, CONTEXT, item, "m")


def test_a_value_inside_the_manifest_needs_no_check(files: FaultyFiles) -> None:
    check_data(files, CONTEXT, NamedObject("a", Kind.VALUE, "1", "materialize", "sync", inline=b"x"), "m")


class TestBinaries:
    def test_the_same_bytes_are_stored_once_and_read_back(self, files: FaultyFiles) -> None:
        assert (
            binaries.put(files, b"code")
            == binaries.put(files, b"code")
            == hashlib.sha256(b"code").hexdigest()
        )
        assert binaries.read(files, binaries.put(files, b"code")) == b"code"
        assert len(files.content) == 1

    def test_a_lost_reply_is_no_failure(self, files: FaultyFiles) -> None:
        files.inject(Fault.LOST_REPLY)
        assert binaries.read(files, binaries.put(files, b"code")) == b"code"

    def test_other_bytes_under_a_digest_are_damage_and_absent_ones_are_missing(
        self, files: FaultyFiles
    ) -> None:
        digest = binaries.put(files, b"code")
        files.damage(binaries.path(digest), b"evil")
        with pytest.raises(Damaged):
            binaries.read(files, digest)
        with pytest.raises(Missing):
            binaries.read(files, "0" * 64)

    def test_an_upload_heals_a_torn_one(self, files: FaultyFiles) -> None:
        digest = binaries.put(files, b"code")
        files.damage(binaries.path(digest), b"co")
        assert binaries.put(files, b"code") == digest
        assert binaries.read(files, digest) == b"code"


class TestFollowing:
    def test_a_standby_reads_only_what_is_new_and_has_what_the_writer_has(self, files: FaultyFiles) -> None:
        writer, known = begin(files, 1), Base(None)
        for number in range(40):
            writer.commit(put(f"o{number % 7}", b"%d" % number))
            files.calls.clear()
            known = follow(files, CONTEXT, known, SECRET)
            reads = sum(operation == "read" for operation, _ in files.calls)
            assert reads <= (2 if number == 0 else 1)
            assert known.objects == writer.objects()
        assert known == load(files, CONTEXT, str(known.name), SECRET)

    def test_nothing_new_costs_one_look(self, files: FaultyFiles) -> None:
        begin(files, 1)
        known = follow(files, CONTEXT, Base(None), SECRET)
        files.calls.clear()
        assert follow(files, CONTEXT, known, SECRET) is known
        assert len(files.calls) == 1

    def test_nothing_sealed_yet_is_nothing(self, files: FaultyFiles) -> None:
        assert follow(files, CONTEXT, Base(None), SECRET) == Base(None)

    def test_it_starts_again_when_the_writer_went_on_without_what_it_read(self, files: FaultyFiles) -> None:
        writer = begin(files, 1)
        files.inject(Fault.DOWN, "names", "/marker", times=TRIES)
        with pytest.raises(StoreUnavailable):
            writer.commit(put("refused"))
        known = follow(files, CONTEXT, Base(None), SECRET)
        assert list(known.objects) == ["refused"]
        writer.commit(put("good"))
        assert list(follow(files, CONTEXT, known, SECRET).objects) == ["good"]

    def test_a_late_seal_of_an_older_epoch_does_not_lead_it_astray(self, files: FaultyFiles) -> None:
        first = begin(files, 1)
        first.commit(put("a"))
        known = follow(files, CONTEXT, Base(None), SECRET)
        second = begin(files, 2)
        with pytest.raises(Exception, match="has begun"):
            first.commit(put("late"))
        second.commit(put("b"))
        assert sorted(follow(files, CONTEXT, known, SECRET).objects) == ["a", "b"]

    def test_damage_behind_what_it_knows_is_passed_over_by_a_full_manifest(self, files: FaultyFiles) -> None:
        writer = begin(files, 1)
        known = follow(files, CONTEXT, Base(None), SECRET)
        for number in range(17):
            writer.commit(put(f"o{number}"))
        files.damage(layout.manifest_path(CONTEXT, layout.manifest_name(1, 5)), b"damaged")
        assert follow(files, CONTEXT, known, SECRET).objects == writer.objects()


def begin(files: FaultyFiles, epoch: int) -> CheckpointWriter:
    base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
    return CheckpointWriter(files, CONTEXT, epoch, f"t{epoch}", base, SECRET)


def put(name: str, content: bytes = b"x") -> Changes:
    return Changes(put=[NamedObject(name, Kind.VALUE, "v", "materialize", "sync", inline=content)])
