"""Beginning an epoch and loading: the base, its pin, and what becomes of damage."""

from __future__ import annotations

import pytest

from checkpoint import layout
from checkpoint.base import LONGEST_CHAIN, LostVersion
from checkpoint.contents import adds_nothing
from checkpoint.epoch import begin_epoch, begin_marker_only, load
from checkpoint.errors import Damaged, Foreign, StoreUnavailable, Superseded, UnknownFormat
from checkpoint.manifest import Kind, Manifest, NamedObject, decode, encode
from checkpoint.writer import FULL_EVERY, Changes, CheckpointWriter
from tests.fakes.files import Fault, FaultyFiles

SECRET = b"secret"
CONTEXT = "c"


def value(name: str, content: bytes = b"x", version: str = "") -> NamedObject:
    return NamedObject(name, Kind.VALUE, version, "materialize", "sync", inline=content)


def begin(files: FaultyFiles, epoch: int) -> CheckpointWriter:
    base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
    return CheckpointWriter(files, CONTEXT, epoch, f"t{epoch}", base, SECRET)


def path(epoch: int, seq: int) -> str:
    return layout.manifest_path(CONTEXT, layout.manifest_name(epoch, seq))


def filled(count: int = 3) -> FaultyFiles:
    """Epoch 1 with manifests 0 (empty, full) to `count` (deltas that put o1, o2, …)."""
    files = FaultyFiles()
    writer = begin(files, 1)
    for number in range(1, count + 1):
        writer.commit(Changes(put=[value(f"o{number}", version=f"v{number}")]))
    return files


def flip(files: FaultyFiles, where: str) -> None:
    data = bytearray(files.content[where])
    data[len(data) // 2] ^= 1
    files.damage(where, bytes(data))


def test_the_first_epoch_starts_from_nothing_and_pins_it() -> None:
    files = FaultyFiles()
    base = begin_epoch(files, CONTEXT, 1, "t", SECRET)
    assert (base.name, base.objects, base.damaged, base.pinned) == (layout.manifest_name(1, 0), {}, (), None)
    assert path(1, 0) in files.content
    assert layout.marker_path(CONTEXT, 1, "t") in files.content


def test_an_epoch_starts_from_the_newest_manifest_below_resolved_over_its_deltas() -> None:
    files = filled(3)
    base = begin_epoch(files, CONTEXT, 5, "t", SECRET)
    assert sorted(base.objects) == ["o1", "o2", "o3"]
    assert base.pinned == layout.manifest_name(1, 3)


def test_the_pin_adds_nothing_and_names_its_base() -> None:
    files = filled(2)
    begin_epoch(files, CONTEXT, 2, "t", SECRET)
    pin = decode(files.content[path(2, 0)], SECRET, layout.manifest_name(2, 0))
    assert adds_nothing(pin)
    assert pin.base is not None
    assert pin.base.name == layout.manifest_name(1, 2)
    assert sorted(load(files, CONTEXT, pin.name, SECRET).objects) == ["o1", "o2"]


def test_a_pin_is_as_small_for_many_objects_as_for_few() -> None:
    sizes = []
    for count in (1, 300):
        files = filled(count)
        begin_epoch(files, CONTEXT, 2, "t", SECRET)
        sizes.append(len(files.content[path(2, 0)]))
    assert sizes[0] == sizes[1]


def test_takeovers_without_an_update_between_them_make_no_chain_longer() -> None:
    files = filled(2)
    for epoch in range(2, 2 + 2 * LONGEST_CHAIN):
        base = begin_epoch(files, CONTEXT, epoch, "t", SECRET)
        assert (sorted(base.objects), base.deltas, base.pinned) == (
            ["o1", "o2"],
            3,
            layout.manifest_name(1, 2),
        )
        assert load(files, CONTEXT, layout.manifest_name(epoch, 0), SECRET) == base


def test_takeovers_with_an_update_between_them_do_not_either() -> None:
    files = FaultyFiles()
    deltas = []
    for epoch in range(1, 60):
        base = begin_epoch(files, CONTEXT, epoch, "t", SECRET)
        deltas.append(base.deltas)
        CheckpointWriter(files, CONTEXT, epoch, "t", base, SECRET).commit(Changes(put=[value(f"o{epoch}")]))
    assert max(deltas) <= FULL_EVERY
    assert deltas.count(1) >= 2, "full manifests are sealed meanwhile"
    assert len(begin_epoch(files, CONTEXT, 60, "t", SECRET).objects) == 59


def test_what_an_older_epoch_seals_after_the_pin_never_counts() -> None:
    files = filled(1)
    begin_epoch(files, CONTEXT, 2, "t", SECRET)
    late = Manifest(CONTEXT, 1, 9, None, full=True, objects={"late": value("late")})
    files.write_new(path(1, 9), encode(late, SECRET))
    assert sorted(begin_epoch(files, CONTEXT, 3, "t", SECRET).objects) == ["o1"]


def test_the_marker_is_there_before_the_manifests_are_listed_and_the_pin_before_the_markers_are_read() -> (
    None
):
    files = filled(1)
    files.calls.clear()
    begin_epoch(files, CONTEXT, 2, "t", SECRET)
    steps = [(operation, where.split("/")[1]) for operation, where in files.calls if operation != "read"]
    assert steps == [
        ("write_new", "marker"),
        ("names", "manifest"),
        ("write_new", "manifest"),
        ("names", "marker"),
    ]


def test_an_epoch_is_not_begun_below_a_marker_or_a_manifest_of_a_later_one() -> None:
    files = filled(1)
    begin_marker_only(files, CONTEXT, 7, "t")
    with pytest.raises(Superseded) as seen:
        begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert seen.value.epoch == 7
    begin_epoch(files, CONTEXT, 8, "t", SECRET)
    with pytest.raises(Superseded) as seen:
        begin_epoch(files, CONTEXT, 3, "t", SECRET)
    assert seen.value.epoch == 8


def test_an_epoch_that_sealed_data_is_not_begun_again() -> None:
    files = filled(1)
    with pytest.raises(Superseded):
        begin_epoch(files, CONTEXT, 1, "t1", SECRET)


def test_an_epoch_granted_to_two_is_begun_by_neither_of_the_two_that_meet() -> None:
    files = FaultyFiles()
    begin_epoch(files, CONTEXT, 1, "one", SECRET)
    with pytest.raises(Superseded):
        begin_epoch(files, CONTEXT, 1, "two", SECRET)


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.FULL, Fault.LOST_REPLY])
@pytest.mark.parametrize("match", ["/marker/", "/manifest/"])
def test_a_lost_write_or_reply_while_an_epoch_begins_changes_nothing(fault: Fault, match: str) -> None:
    files = filled(2)
    files.inject(fault, match=match)
    assert sorted(begin_epoch(files, CONTEXT, 2, "t", SECRET).objects) == ["o1", "o2"]


def test_an_epoch_whose_beginning_failed_is_begun_again_with_the_pin_it_may_have_left() -> None:
    files = filled(1)
    files.inject(Fault.DOWN, "names", "/marker", times=3)
    with pytest.raises(StoreUnavailable):
        begin_epoch(files, CONTEXT, 2, "t", SECRET)
    # a seal of the superseded writer arrives between the two tries: the pin that was there first decides
    late = Manifest(CONTEXT, 1, 9, None, full=True, objects={"late": value("late")})
    files.write_new(path(1, 9), encode(late, SECRET))
    assert sorted(begin_epoch(files, CONTEXT, 2, "t", SECRET).objects) == ["o1"]


@pytest.mark.parametrize("operation", ["read", "names", "write_new"])
def test_a_store_that_stays_away_is_trouble_and_never_damage(operation: str) -> None:
    files = filled(2)
    files.inject(Fault.DOWN, operation, times=100)
    with pytest.raises(StoreUnavailable):
        begin_epoch(files, CONTEXT, 2, "t", SECRET)


def test_a_single_failed_read_is_repeated() -> None:
    files = filled(2)
    files.inject(Fault.DOWN, "read", times=2)
    assert begin_epoch(files, CONTEXT, 2, "t", SECRET).damaged == ()


def test_a_damaged_newest_manifest_is_reported_and_the_one_below_it_loaded() -> None:
    files = filled(3)
    flip(files, path(1, 3))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert sorted(base.objects) == ["o1", "o2"]
    (report,) = base.damaged
    assert report.manifest == layout.manifest_name(1, 3)
    assert "digest" in report.why


def test_a_damaged_delta_costs_the_tail_behind_it_by_name_and_version() -> None:
    files = filled(4)
    flip(files, path(1, 2))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert sorted(base.objects) == ["o1"]
    (report,) = base.damaged
    assert report.lost == (LostVersion("o3", "v3"), LostVersion("o4", "v4"))
    assert "'o3' at v3" in str(report)


def test_data_that_only_a_damaged_manifest_can_have_named_is_reported_as_unclaimed() -> None:
    files = FaultyFiles()
    writer = begin(files, 1)
    for name in ("kept", "lost/one"):
        version = writer.next_version()
        files.write_new(layout.in_context(CONTEXT, layout.object_path(name, version)) + "/part-0", b"x")
        writer.commit(Changes(put=[value(name, version=version)]))
    flip(files, path(1, 2))
    files.write_new(layout.in_context(CONTEXT, layout.object_path("later", layout.version(9, 1))), b"x")
    (report,) = begin_epoch(files, CONTEXT, 2, "t", SECRET).damaged
    assert report.unclaimed == (LostVersion("lost/one", layout.version(1, 2)),)
    assert "'lost/one' at 000000000001-000000000002" in str(report)


def test_a_removal_behind_a_damaged_delta_is_reported_too() -> None:
    files = FaultyFiles()
    writer = begin(files, 1)
    for changes in (Changes(put=[value("a")]), Changes(put=[value("b")]), Changes(remove=["a"])):
        writer.commit(changes)
    flip(files, path(1, 2))
    (report,) = begin_epoch(files, CONTEXT, 2, "t", SECRET).damaged
    assert report.lost == (LostVersion("a", ""),)


def test_an_absent_delta_in_the_middle_is_damage_too() -> None:
    files = filled(4)
    files.damage(path(1, 2), None)
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert sorted(base.objects) == ["o1"]
    assert "absent" in base.damaged[0].why


def test_a_genuine_manifest_in_another_ones_place_is_not_taken_for_the_predecessor() -> None:
    files = filled(3)
    other = Manifest(CONTEXT, 1, 2, None, full=True, objects={"planted": value("planted")})
    files.damage(path(1, 2), encode(other, SECRET))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert base.damaged[0].manifest == layout.manifest_name(1, 3)
    assert "o3" not in base.objects


def test_a_manifest_of_another_context_is_foreign() -> None:
    files = filled(2)
    other = FaultyFiles()
    base = begin_epoch(other, "another", 1, "t", SECRET)
    assert base.name is not None
    files.damage(path(1, 2), None)
    stolen = Manifest("another", 1, 2, None, full=True, objects={"theirs": value("theirs")})
    files.write_new(path(1, 2), encode(stolen, SECRET))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert sorted(base.objects) == ["o1"]
    assert "belongs to context another" in base.damaged[0].why


def test_damage_in_several_places_is_reported_for_each() -> None:
    files = filled(20)  # full at 0 and 16
    flip(files, path(1, 18))
    flip(files, path(1, 16))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert sorted(base.objects) == sorted(f"o{number}" for number in range(1, 16))
    assert [report.manifest for report in base.damaged] == [layout.manifest_name(1, seq) for seq in (18, 16)]


def test_when_all_is_damaged_the_epoch_starts_empty_and_says_so() -> None:
    files = filled(1)
    flip(files, path(1, 0))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert base.objects == {}
    assert base.damaged[0].lost == (LostVersion("o1", "v1"),)


def test_a_wrong_secret_is_refused_instead_of_starting_empty_over_good_data() -> None:
    files = filled(2)
    with pytest.raises(Foreign):
        begin_epoch(files, CONTEXT, 2, "t", b"another secret")
    assert path(2, 0) not in files.content
    assert sorted(begin_epoch(files, CONTEXT, 3, "t", SECRET).objects) == ["o1", "o2"]


def test_a_manifest_of_a_newer_release_is_refused_instead_of_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    files = filled(2)
    with monkeypatch.context() as newer:
        newer.setattr("checkpoint.manifest.FORMAT", 4)
        files.write_new(path(1, 3), encode(Manifest(CONTEXT, 1, 3, None, full=True), SECRET))
    with pytest.raises(UnknownFormat):
        begin_epoch(files, CONTEXT, 2, "t", SECRET)


def test_loading_takes_exactly_the_manifest_that_was_asked_for() -> None:
    files = filled(3)
    base = load(files, CONTEXT, layout.manifest_name(1, 2), SECRET)
    assert sorted(base.objects) == ["o1", "o2"]
    assert base.deltas == 2
    flip(files, path(1, 1))
    with pytest.raises(Damaged) as seen:
        load(files, CONTEXT, layout.manifest_name(1, 2), SECRET)
    assert seen.value.manifest == layout.manifest_name(1, 1)


def test_a_pinned_manifest_is_loaded_as_it_was_begun() -> None:
    files = filled(3)
    begun = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert begun.name is not None
    assert load(files, CONTEXT, begun.name, SECRET) == begun


def test_a_torn_pin_spends_its_epoch_and_the_next_one_starts_from_what_is_good() -> None:
    files = filled(2)
    files.inject(Fault.TORN, match="/manifest/")
    for _ in range(2):
        with pytest.raises(Damaged):
            begin_epoch(files, CONTEXT, 2, "t", SECRET)
    base = begin_epoch(files, CONTEXT, 3, "t", SECRET)
    assert sorted(base.objects) == ["o1", "o2"]
    assert base.damaged[0].manifest == layout.manifest_name(2, 0)
