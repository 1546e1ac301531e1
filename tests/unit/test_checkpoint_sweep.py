"""What a sweep removes, and what it never does: it keeps what any epoch may still start from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import layout
from checkpoint.base import read_manifest
from checkpoint.contents import Contents
from checkpoint.epoch import begin_epoch, begin_marker_only, load
from checkpoint.errors import StoreUnavailable, Superseded
from checkpoint.fence import Marker
from checkpoint.local import LocalFiles
from checkpoint.manifest import BaseRef, Kind, Manifest, NamedObject, Progress, encode
from checkpoint.retention import keep_manifests, named_paths, removable_markers
from checkpoint.sealing import TRIES
from checkpoint.writer import Changes, CheckpointWriter
from tests.fakes.files import Fault, FaultyFiles

SECRET = b"secret"
CONTEXT = "c"


def begin(files: FaultyFiles, epoch: int = 1) -> CheckpointWriter:
    base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
    return CheckpointWriter(files, CONTEXT, epoch, f"t{epoch}", base, SECRET)


def write_data(files: FaultyFiles, name: str, version: str) -> str:
    """What Spark would write for that version of an object; answers its path in the store."""
    path = layout.in_context(CONTEXT, layout.object_path(name, version))
    files.write_new(f"{path}/part-0", b"data")
    return path


def put(files: FaultyFiles, writer: CheckpointWriter, name: str) -> str:
    """Write and commit a new version; answers its path in the store."""
    version = writer.next_version()
    path = write_data(files, name, version)
    relative = layout.object_path(name, version)
    writer.commit(
        Changes(put=[NamedObject(name, Kind.DATAFRAME, version, "materialize", "sync", path=relative)])
    )
    return path


def seal_many(writer: CheckpointWriter, count: int = 40) -> None:
    """Enough seals that older full manifests age out."""
    for _ in range(count):
        writer.commit(Changes())


@contextmanager
def frozen_sweep(files: FaultyFiles, writer: CheckpointWriter, *step: str) -> Iterator[Future[object]]:
    """A sweep that has come to the first such step of the store; after the block it has gone on, and ended."""
    held = files.hold(*step)
    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(writer.sweep, set[str]())
        assert held.reached.wait(10)
        try:
            yield sweeping
        finally:
            held.release()


def there(files: FaultyFiles, path: str) -> bool:
    return bool(files.names(path))


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


def test_old_versions_go_and_current_ones_stay(files: FaultyFiles) -> None:
    writer = begin(files)
    old, new = put(files, writer, "a"), put(files, writer, "a")
    seal_many(writer)
    removed = writer.sweep(set())
    assert old in removed
    assert not there(files, old)
    assert there(files, new)


def test_a_version_that_a_kept_manifest_names_stays_until_it_has_aged_out(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    put(files, writer, "a")
    seal_many(writer, 16)  # full manifests at 0 and 16: the one at 0 and its deltas are kept
    writer.sweep(set())
    assert there(files, old)


def test_two_full_manifests_and_all_after_the_older_stay(files: FaultyFiles) -> None:
    writer = begin(files)
    seal_many(writer, 40)  # full at 0, 16, 32
    writer.sweep(set())
    names = files.names(layout.manifest_folder(CONTEXT))
    assert names == [layout.manifest_name(1, seq) + ".json" for seq in range(16, 41)]
    put(files, writer, "a")
    files.damage(f"c/manifest/{layout.manifest_name(1, 32)}.json", b"damaged")
    assert begin_epoch(files, CONTEXT, 2, "t", SECRET).pinned == layout.manifest_name(1, 31)


def test_nothing_goes_before_there_are_two_full_manifests(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    put(files, writer, "a")
    assert writer.sweep(set()) == ()
    assert there(files, old)


def test_what_a_living_dataframe_reads_stays_by_version_or_by_path(files: FaultyFiles) -> None:
    writer = begin(files)
    by_version, by_path = put(files, writer, "a"), put(files, writer, "b")
    put(files, writer, "a")
    put(files, writer, "b")
    seal_many(writer)
    in_use = {by_version.split("/")[-1], by_path.removeprefix("c/")}
    writer.sweep(in_use)
    assert there(files, by_version)
    assert there(files, by_path)
    writer.sweep(set())
    assert not there(files, by_version)
    assert not there(files, by_path)


def test_data_that_is_being_written_stays_until_it_is_released(files: FaultyFiles) -> None:
    writer = begin(files)
    version = writer.next_version()
    path = write_data(files, "a", version)
    seal_many(writer)
    writer.sweep(set())
    assert there(files, path)
    writer.release(version)
    writer.sweep(set())
    assert not there(files, path)


def test_an_older_version_that_is_to_be_committed_again_stays_or_is_gone_before_it_is_looked_at(
    files: FaultyFiles,
) -> None:
    writer = begin(files)
    gone, kept = put(files, writer, "a"), put(files, writer, "b")
    put(files, writer, "a")
    put(files, writer, "b")
    seal_many(writer)
    removing = files.hold("remove", gone)
    with ThreadPoolExecutor(2) as pool:
        writer.hold(kept.rsplit("/", 1)[1])
        sweeping = pool.submit(writer.sweep, set[str]())
        assert removing.reached.wait(10)
        holding = pool.submit(writer.hold, gone.rsplit("/", 1)[1])
        assert not holding.done(), "the sweep may have decided on it already"
        removing.release()
        sweeping.result(10)
        holding.result(10)
    assert not there(files, gone)
    assert there(files, kept)
    writer.release(kept.rsplit("/", 1)[1])
    writer.sweep(set())
    assert not there(files, kept)


def test_data_that_was_begun_while_a_sweep_runs_stays_also_when_it_is_released_at_once(
    files: FaultyFiles,
) -> None:
    writer = begin(files)
    put(files, writer, "a")
    seal_many(writer)
    with frozen_sweep(files, writer, "names", "c/objects") as sweeping:
        path = put(files, writer, "a")
        put(files, writer, "a")
    sweeping.result()
    assert there(files, path)


def test_what_superseded_epochs_left_behind_goes(files: FaultyFiles) -> None:
    first = begin(files)
    orphan = write_data(files, "a", first.next_version())
    writer = begin(files, 2)
    seal_many(writer)
    writer.sweep(set())
    assert not there(files, orphan)
    assert files.names(layout.marker_folder(CONTEXT)) == ["000000000002-t2"]


def test_progress_that_is_saved_or_being_written_stays_and_the_rest_goes(files: FaultyFiles) -> None:
    writer = begin(files)
    old, current, unfinished = (writer.next_progress_path("j", 1) for _ in range(3))
    for path in (old, current, unfinished):
        files.write_new(f"c/{path}/value", b"x")
    for path in (old, current):
        writer.commit(Changes(progress={"j": Progress(1, path=path)}))
    seal_many(writer)
    writer.sweep(set())
    assert [there(files, f"c/{path}") for path in (old, current, unfinished)] == [False, True, True]


def test_the_folder_of_a_job_goes_with_the_last_that_was_saved_there(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    base = begin_epoch(files, CONTEXT, 1, "t1", SECRET)
    writer = CheckpointWriter(files, CONTEXT, 1, "t1", base, SECRET)
    for job in ("ended", "runs", "writes"):
        path = writer.next_progress_path(job, 1)
        files.write_new(f"c/{path}", b"x")
        if job != "writes":
            writer.commit(Changes(progress={job: Progress(1, path=path)}))
    (tmp_path / "c/progress/ended/.half.unfinished").write_bytes(b"of a driver that died")
    writer.commit(Changes(forget=("ended",)))
    seal_many(writer)
    writer.sweep(set())
    assert files.names("c/progress") == ["runs", "writes"]


def test_a_superseded_writer_sweeps_nothing(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    put(files, writer, "a")
    seal_many(writer)
    begin_marker_only(files, CONTEXT, 2, "t2")
    with pytest.raises(Superseded):
        writer.sweep(set())
    assert there(files, old)


def test_data_of_a_later_epoch_is_not_ours_to_judge(files: FaultyFiles) -> None:
    writer = begin(files)
    theirs = write_data(files, "a", layout.version(2, 1))
    seal_many(writer)
    writer.sweep(set())
    assert there(files, theirs)


def test_a_sweep_that_froze_harms_no_epoch_that_began_meanwhile(files: FaultyFiles) -> None:
    writer = begin(files)
    put(files, writer, "a")
    kept = put(files, writer, "a")
    seal_many(writer)
    with frozen_sweep(files, writer, "remove") as sweeping:
        successor = begin(files, 2)
        new = put(files, successor, "b")
    sweeping.result()
    assert there(files, kept)
    assert there(files, new)
    base = begin_epoch(files, CONTEXT, 3, "t3", SECRET)
    assert (sorted(base.objects), base.damaged) == (["a", "b"], ())


def test_a_sweep_that_froze_after_its_look_at_the_markers_leaves_what_a_later_epoch_has_saved(
    files: FaultyFiles,
) -> None:
    writer = begin(files)
    first = writer.next_progress_path("j", 1)
    files.write_new(f"c/{first}/value", b"x")
    writer.commit(Changes(progress={"j": Progress(1, path=first)}))
    put(files, writer, "a")
    seal_many(writer)
    with frozen_sweep(files, writer, "names", "c/objects") as sweeping:
        successor = begin(files, 2)
        saved = successor.next_progress_path("j", 2)
        files.write_new(f"c/{saved}/value", b"y")
        successor.commit(Changes(progress={"j": Progress(2, path=saved)}))
    with pytest.raises(Superseded):
        sweeping.result()
    assert there(files, f"c/{saved}")


def test_nothing_goes_while_the_outcome_of_a_seal_is_unknown(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    put(files, writer, "a")
    seal_many(writer)
    files.inject(Fault.DOWN, times=TRIES)
    with pytest.raises(StoreUnavailable):
        writer.commit(Changes())
    assert writer.sweep(set()) == ()
    writer.commit(Changes())
    assert old in writer.sweep(set())


def test_data_stays_while_a_kept_manifest_is_damaged(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    put(files, writer, "a")
    seal_many(writer)
    files.damage(f"c/manifest/{layout.manifest_name(1, 40)}.json", b"damaged")
    writer.sweep(set())
    assert there(files, old)


def test_a_sweep_that_meets_trouble_can_be_repeated(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    put(files, writer, "a")
    seal_many(writer)
    files.inject(Fault.DOWN, "remove", "/objects/")
    with pytest.raises(StoreUnavailable):
        writer.sweep(set())
    writer.sweep(set())
    assert not there(files, old)


def test_an_adopted_writer_sweeps_what_it_made_before(files: FaultyFiles) -> None:
    writer = begin(files)
    old = put(files, writer, "a")
    open_version = writer.next_version()
    unfinished = write_data(files, "a", open_version)
    writer.readopt(3, "t3")
    current = put(files, writer, "a")
    seal_many(writer)
    writer.sweep(set())
    assert [there(files, path) for path in (old, unfinished, current)] == [False, True, True]
    assert files.names(layout.marker_folder(CONTEXT)) == ["000000000003-t3"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["put a", "put b", "remove", "sweep", "takeover", "adopt", "lost", "down"]),
        max_size=60,
    )
)
def test_whatever_happens_every_object_of_the_next_base_has_its_data(steps: list[str]) -> None:
    files, epoch = FaultyFiles(), 1
    writer = begin(files)
    for step in steps * 3:
        try:
            if step.startswith("put"):
                put(files, writer, step[4:])
            elif step == "remove":
                writer.commit(Changes(remove=["a"]))
            elif step == "sweep":
                writer.sweep(set())
            elif step == "takeover":
                epoch += 1
                writer = begin(files, epoch)
            elif step == "adopt":
                epoch += 1
                writer.readopt(epoch, f"t{epoch}")
            else:
                files.inject(
                    Fault.LOST_REPLY if step == "lost" else Fault.DOWN, match="/manifest/", times=TRIES
                )
                put(files, writer, "a")
        except StoreUnavailable:
            pass
        files.heal()
    held = dict(writer.objects())
    sealed = max(name for name in files.names(layout.manifest_folder(CONTEXT)))
    newest = load(files, CONTEXT, sealed.removesuffix(".json"), SECRET)
    for item in [*newest.objects.values(), *held.values()]:
        assert item.path is not None
        assert there(files, layout.in_context(CONTEXT, item.path))


def line(seq: int, base: int | None, epoch: int = 1, base_epoch: int = 1) -> Manifest:
    """A full manifest, or a delta on another."""
    ref = None if base is None else BaseRef(layout.manifest_name(base_epoch, base), "d")
    return Manifest(CONTEXT, epoch, seq, ref, full=base is None)


def kept_of(sealed: list[Manifest], acknowledged: Manifest) -> tuple[list[str], list[str]] | None:
    """What stays of them and what goes; fails when one is read that nobody needs to know."""
    by_name = {one.name: one for one in sealed}
    kept = keep_manifests(by_name, acknowledged.name, by_name.get)
    return None if kept is None else (list(kept.manifests), list(kept.removable))


def names_of(*sealed: Manifest) -> list[str]:
    return [one.name for one in sealed]


def test_keeping_asks_no_manifest_below_the_second_full_one() -> None:
    sealed = [line(seq, None if seq in (0, 2, 5, 8) else seq - 1) for seq in range(10)]
    asked: list[str] = []

    def read(name: str) -> Manifest:
        asked.append(name)
        return sealed[int(name.split("-")[1])]

    kept = keep_manifests(names_of(*sealed), sealed[7].name, read)
    assert kept is not None
    assert list(kept.manifests) == names_of(*sealed[2:])
    assert list(kept.removable) == names_of(*sealed[:2])
    assert asked == names_of(*reversed(sealed[2:]))


def test_what_a_superseded_epoch_sealed_full_too_late_is_no_reason_to_remove_what_the_pin_leads_to() -> None:
    older, base, delta = line(0, None), line(1, None), line(2, 1)
    late = [line(3, None), line(4, None)]
    pin = line(0, 2, epoch=2)
    assert kept_of([older, base, delta, *late, pin], pin) == (
        names_of(older, base, delta, *late, pin),
        [],
    )
    oldest = line(9, None, epoch=0)
    assert kept_of([oldest, older, base, delta, *late, pin], pin) == (
        names_of(older, base, delta, *late, pin),
        names_of(oldest),
    )


def test_what_a_kept_manifest_leads_down_to_is_kept_however_old() -> None:
    sealed = [line(0, None), line(1, 0), line(2, None), line(3, 1), line(4, None), line(5, 4)]
    assert kept_of(sealed, sealed[5]) == (names_of(*sealed), []), "3 leads down to 0"
    newer = [*sealed, line(6, None), line(7, 6)]
    assert kept_of(newer, newer[7]) == (names_of(*newer[4:]), names_of(*newer[:4]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["put a", "put b", "sweep", "takeover", "takeover and late", "adopt"]), max_size=40
    ),
    st.booleans(),
)
def test_sweeps_take_nothing_from_any_base_whatever_superseded_writers_seal(
    steps: list[str], newest_full_is_lost: bool
) -> None:
    files, epoch = FaultyFiles(), 1

    def begun() -> CheckpointWriter:
        base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
        assert base.damaged == ()
        return CheckpointWriter(files, CONTEXT, epoch, f"t{epoch}", base, SECRET, full_every=2)

    writer = begun()
    for step in steps * 2:
        if step.startswith("put"):
            put(files, writer, step[4:])
        elif step == "sweep":
            writer.sweep(set())
        elif step.startswith("takeover"):
            epoch += 1
            older, writer = writer, begun()
            if "late" in step:
                with pytest.raises(Superseded):
                    put(files, older, "late")
        else:
            epoch += 1
            writer.readopt(epoch, f"t{epoch}")
    held = dict(writer.objects())
    epoch += 1
    if newest_full_is_lost and len(fulls := full_ones(files)) > 1:
        files.damage(layout.manifest_path(CONTEXT, fulls[-1]), b"damaged")
        found = begin_epoch(files, CONTEXT, epoch, "t", SECRET)
        assert found.pinned is not None
    else:
        found = begin_epoch(files, CONTEXT, epoch, "t", SECRET)
        assert (dict(found.objects), found.damaged) == (held, ())
    for item in found.objects.values():
        assert there(files, layout.in_context(CONTEXT, item.path or ""))


def full_ones(files: FaultyFiles) -> list[str]:
    names = [name.removesuffix(".json") for name in files.names(layout.manifest_folder(CONTEXT))]
    return [name for name in names if read_manifest(files, CONTEXT, name, SECRET).manifest.full]


def test_named_paths_are_those_of_objects_and_progress_in_manifests_and_now() -> None:
    item = NamedObject("a", Kind.RDD, "v", "materialize", "sync", path="objects/a/v")
    manifest = Manifest("c", 1, 0, None, True, {"a": item}, progress={"j": Progress(1, path="progress/j/1")})
    now = Contents(progress={"k": Progress(1, path="progress/k/1"), "l": Progress(1)})
    assert named_paths([manifest], now) == {"objects/a/v", "progress/j/1", "progress/k/1"}
    assert encode(manifest, SECRET)


def test_only_markers_of_older_epochs_may_go() -> None:
    markers = [Marker(1, "a"), Marker(3, "me"), Marker(3, "other"), Marker(4, "b")]
    assert removable_markers(markers, Marker(3, "me")) == (Marker(1, "a"),)
