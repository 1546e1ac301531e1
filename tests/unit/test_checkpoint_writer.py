"""The writer: group commit, the fence at each seal, unknown outcomes, adoption, attempts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import pytest

from checkpoint import layout
from checkpoint.epoch import begin_epoch, begin_marker_only, load
from checkpoint.errors import StaleAttempt, StoreUnavailable, Superseded
from checkpoint.manifest import Kind, Manifest, NamedObject, Progress, decode, encode
from checkpoint.sealing import TRIES
from checkpoint.writer import FULL_EVERY, Changes, CheckpointWriter
from tests.fakes.files import Fault, FaultyFiles

SECRET = b"secret"
CONTEXT = "c"


def put(name: str, content: bytes = b"x") -> Changes:
    return Changes(put=[NamedObject(name, Kind.VALUE, "v", "materialize", "sync", inline=content)])


def begin(files: FaultyFiles, epoch: int = 1) -> CheckpointWriter:
    base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
    return CheckpointWriter(files, CONTEXT, epoch, f"t{epoch}", base, SECRET)


def manifests(files: FaultyFiles) -> list[Manifest]:
    """All sealed ones, oldest first."""
    names = [name.removesuffix(".json") for name in files.names(layout.manifest_folder(CONTEXT))]
    return [decode(files.read(layout.manifest_path(CONTEXT, name)), SECRET, name) for name in names]


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


def test_what_a_commit_acknowledged_is_in_the_manifest_it_names(files: FaultyFiles) -> None:
    writer = begin(files)
    name = writer.commit(put("a"))
    assert name == layout.manifest_name(1, 1)
    assert load(files, CONTEXT, name, SECRET).objects == writer.objects()


def test_a_small_commit_costs_one_write_and_one_look_at_the_markers(files: FaultyFiles) -> None:
    writer = begin(files)
    files.calls.clear()
    writer.commit(put("a"))
    assert [operation for operation, _ in files.calls] == ["write_new", "names"]


def test_deltas_hold_what_changed_and_every_sixteenth_is_full(files: FaultyFiles) -> None:
    writer = begin(files)
    for number in range(50):
        writer.commit(put(f"o{number}"))
    sealed = manifests(files)
    fulls = [index for index, manifest in enumerate(sealed) if manifest.full]
    assert fulls == [0, 16, 32, 48]
    assert all(later - former <= FULL_EVERY for former, later in pairwise(fulls))
    assert all(len(manifest.objects) == 1 for manifest in sealed if not manifest.full)
    assert len(begin_epoch(files, CONTEXT, 2, "t", SECRET).objects) == 50


def test_removed_objects_and_forgotten_progress_are_gone_in_the_next_epoch(files: FaultyFiles) -> None:
    writer = begin(files)
    writer.commit(Changes(put=put("a").put, progress={"j": Progress(1, b"half")}))
    writer.commit(Changes(remove=["a"], forget=["j"]))
    base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
    assert (base.objects, base.progress) == ({}, {})


def test_progress_and_updates_of_one_commit_are_sealed_together(files: FaultyFiles) -> None:
    writer = begin(files)
    writer.commit(Changes(put=put("a").put, progress={"j": Progress(1, b"half")}))
    last = manifests(files)[-1]
    assert (list(last.objects), last.progress) == (["a"], {"j": Progress(1, b"half")})


def test_an_attempt_that_is_over_saves_nothing_and_disturbs_nobody(files: FaultyFiles) -> None:
    writer = begin(files)
    writer.commit(Changes(progress={"j": Progress(2)}))
    with pytest.raises(StaleAttempt):
        writer.commit(Changes(put=put("stale").put, progress={"j": Progress(1, b"stale")}))
    assert "stale" not in writer.objects()
    writer.commit(put("a"))


class TestGroupCommit:
    def test_all_who_wait_share_the_next_seal(self, files: FaultyFiles) -> None:
        writer = begin(files)
        held = files.hold("write_new", "/manifest/")
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(writer.commit, put("first"))
            assert held.reached.wait(10)
            others = [pool.submit(writer.commit, put(f"o{number}")) for number in range(8)]
            wait_until_queued(writer, 8)
            held.release()
            names = {other.result(10) for other in others}
        assert first.result() == layout.manifest_name(1, 1)
        assert names == {layout.manifest_name(1, 2)}
        assert len(writer.objects()) == 9

    def test_a_stale_attempt_among_them_is_refused_alone(self, files: FaultyFiles) -> None:
        writer = begin(files)
        writer.commit(Changes(progress={"j": Progress(2)}))
        held = files.hold("write_new", "/manifest/")
        with ThreadPoolExecutor(3) as pool:
            pool.submit(writer.commit, put("first"))
            assert held.reached.wait(10)
            stale = pool.submit(writer.commit, Changes(progress={"j": Progress(1)}))
            good = pool.submit(writer.commit, put("good"))
            wait_until_queued(writer, 2)
            held.release()
            assert good.result(10) == layout.manifest_name(1, 3)
            assert isinstance(stale.exception(10), StaleAttempt)

    def test_nobody_is_acknowledged_when_the_shared_seal_fails(self, files: FaultyFiles) -> None:
        writer = begin(files)
        held = files.hold("write_new", "/manifest/")
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(writer.commit, put("first"))
            assert held.reached.wait(10)
            others: list[Future[str]] = [pool.submit(writer.commit, put(name)) for name in "ab"]
            wait_until_queued(writer, 2)
            files.inject(Fault.FULL, times=TRIES)
            held.release()
            assert first.result(10)
            assert all(isinstance(other.exception(10), StoreUnavailable) for other in others)
        assert list(writer.objects()) == ["first"]

    def test_a_killed_thread_that_seals_leaves_no_one_waiting(self, files: FaultyFiles) -> None:
        writer = begin(files)
        held = files.hold("write_new", "/manifest/")
        with ThreadPoolExecutor(2) as pool:
            killed = pool.submit(commit_and_be_killed, writer, files)
            assert held.reached.wait(10)
            other = pool.submit(writer.commit, put("other"))
            wait_until_queued(writer, 1)
            held.release()
            assert isinstance(killed.exception(10), Killed)
            assert other.result(10)
        assert list(writer.objects()) == ["other"]

    def test_a_thread_that_died_in_its_last_steps_is_not_waited_for(self, files: FaultyFiles) -> None:
        writer = begin(files)
        dead = threading.Thread(target=int)
        dead.start()
        dead.join()
        writer._sealer = dead
        assert writer.commit(put("a"))


class Killed(BaseException):
    """Stands for the exception that a kill raises in a job's thread."""


def commit_and_be_killed(writer: CheckpointWriter, files: FaultyFiles) -> None:
    original = files.names

    def raise_killed(folder: str) -> list[str]:
        files.names = original  # type: ignore[method-assign]
        raise Killed

    files.names = raise_killed  # type: ignore[method-assign]
    writer.commit(put("killed"))


def wait_until_queued(writer: CheckpointWriter, count: int) -> None:
    """Until so many callers stand behind the one that seals; each gives its lock away only once it is in the queue."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with writer._changed:
            if len(writer._queue) >= count:
                return
    raise AssertionError(f"{count} callers did not queue up")


class TestFence:
    def test_a_superseded_writer_acknowledges_nothing(self, files: FaultyFiles) -> None:
        writer = begin(files)
        begin_marker_only(files, CONTEXT, 2, "t2")
        with pytest.raises(Superseded) as seen:
            writer.commit(put("a"))
        assert seen.value.epoch == 2
        assert "a" not in writer.objects()

    def test_once_superseded_it_does_not_even_seal(self, files: FaultyFiles) -> None:
        writer = begin(files)
        begin(files, 2)
        for _ in range(2):
            with pytest.raises(Superseded):
                writer.commit(put("a"))
        assert [manifest.name for manifest in manifests(files) if manifest.epoch == 1] == [
            layout.manifest_name(1, 0),
            layout.manifest_name(1, 1),
        ]

    def test_a_writer_whose_own_marker_is_gone_acknowledges_nothing(self, files: FaultyFiles) -> None:
        writer = begin(files)
        files.remove(layout.marker_path(CONTEXT, 1, "t1"))
        with pytest.raises(Superseded):
            writer.commit(put("a"))

    def test_looking_at_the_markers_finds_a_higher_one(self, files: FaultyFiles) -> None:
        writer = begin(files)
        writer.check()
        assert writer.replaced_by() is None
        begin_marker_only(files, CONTEXT, 2, "t2")
        with pytest.raises(Superseded):
            writer.check()
        assert writer.replaced_by() is None
        begin_epoch(files, CONTEXT, 3, "t3", SECRET)
        assert writer.replaced_by() == 3

    def test_two_writers_of_one_epoch_do_not_both_go_on(self, files: FaultyFiles) -> None:
        base = begin_epoch(files, CONTEXT, 1, "t", SECRET)
        one, other = (CheckpointWriter(files, CONTEXT, 1, "t", base, SECRET) for _ in range(2))
        one.commit(put("a"))
        with pytest.raises(Superseded):
            other.commit(put("b"))


class TestUnknownOutcomes:
    @pytest.mark.parametrize("fault", [Fault.DOWN, Fault.FULL, Fault.LOST_REPLY])
    def test_one_failed_write_is_no_failed_commit(self, files: FaultyFiles, fault: Fault) -> None:
        writer = begin(files)
        files.inject(fault)
        name = writer.commit(put("a"))
        assert list(load(files, CONTEXT, name, SECRET).objects) == ["a"]

    def test_a_store_that_is_away_fails_the_commit_clearly_and_the_next_one_succeeds(
        self, files: FaultyFiles
    ) -> None:
        writer = begin(files)
        files.inject(Fault.DOWN, times=TRIES)
        with pytest.raises(StoreUnavailable):
            writer.commit(put("a"))
        assert writer.objects() == {}
        writer.commit(put("b"))
        assert list(begin_epoch(files, CONTEXT, 2, "t", SECRET).objects) == ["b"]

    def test_a_failed_seal_that_arrives_late_is_in_no_later_base(self, files: FaultyFiles) -> None:
        writer = begin(files)
        files.inject(Fault.LATE, times=TRIES)
        with pytest.raises(StoreUnavailable):
            writer.commit(put("late"))
        files.land()
        writer.commit(put("b"))
        assert manifests(files)[-1].full
        assert list(begin_epoch(files, CONTEXT, 2, "t", SECRET).objects) == ["b"]

    def test_what_was_sealed_while_the_markers_could_not_be_read_is_not_acknowledged(
        self, files: FaultyFiles
    ) -> None:
        writer = begin(files)
        files.inject(Fault.DOWN, "names", "/marker", times=TRIES)
        with pytest.raises(StoreUnavailable):
            writer.commit(put("a"))
        assert writer.objects() == {}
        writer.commit(put("b"))
        assert list(begin_epoch(files, CONTEXT, 2, "t", SECRET).objects) == ["b"]

    def test_a_torn_seal_is_never_acknowledged_nor_built_upon(self, files: FaultyFiles) -> None:
        writer = begin(files)
        writer.commit(put("a"))
        files.inject(Fault.TORN)
        with pytest.raises(StoreUnavailable, match="torn"):
            writer.commit(put("torn"))
        base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
        assert list(base.objects) == ["a"]
        assert base.damaged[0].manifest == layout.manifest_name(1, 2)

    def test_after_a_torn_seal_the_next_one_needs_nothing_of_it(self, files: FaultyFiles) -> None:
        writer = begin(files)
        files.inject(Fault.TORN)
        with pytest.raises(StoreUnavailable):
            writer.commit(put("torn"))
        writer.commit(put("b"))
        base = begin_epoch(files, CONTEXT, 2, "t", SECRET)
        assert (list(base.objects), base.damaged) == (["b"], ())


class TestAdoption:
    def test_the_new_epoch_is_marked_at_its_first_seal_which_is_full(self, files: FaultyFiles) -> None:
        writer = begin(files)
        writer.commit(put("a"))
        writer.readopt(4, "t4")
        assert layout.marker_path(CONTEXT, 4, "t4") not in files.content
        assert writer.commit(put("b")) == layout.manifest_name(4, 0)
        assert layout.marker_path(CONTEXT, 4, "t4") in files.content
        assert manifests(files)[-1].full
        assert writer.commit(put("c")) == layout.manifest_name(4, 1)
        assert sorted(begin_epoch(files, CONTEXT, 5, "t", SECRET).objects) == ["a", "b", "c"]

    def test_a_writer_that_holds_goes_on_when_it_is_adopted(self, files: FaultyFiles) -> None:
        writer = begin(files)
        begin_marker_only(files, CONTEXT, 2, "dead owner")
        with pytest.raises(Superseded):
            writer.commit(put("a"))
        writer.readopt(3, "t3")
        assert writer.commit(put("b")) == layout.manifest_name(3, 0)
        assert list(writer.objects()) == ["b"]

    def test_an_adoption_during_a_seal_is_not_undone_by_what_that_seal_finds(
        self, files: FaultyFiles
    ) -> None:
        writer = begin(files)
        held = files.hold("names", "/marker")
        with ThreadPoolExecutor(1) as pool:
            committing = pool.submit(writer.commit, put("a"))
            assert held.reached.wait(10)
            begin_marker_only(files, CONTEXT, 2, "dead owner")
            writer.readopt(3, "t3")
            held.release()
            assert isinstance(committing.exception(10), Superseded)
        assert writer.commit(put("b")) == layout.manifest_name(3, 0)

    def test_it_is_not_adopted_under_an_epoch_that_is_not_higher(self, files: FaultyFiles) -> None:
        writer = begin(files, 2)
        for epoch in (1, 2):
            with pytest.raises(Superseded):
                writer.readopt(epoch, "t")

    def test_it_never_overtakes_an_epoch_that_another_driver_began(self, files: FaultyFiles) -> None:
        writer = begin(files)
        begin(files, 2).commit(put("theirs"))
        writer.readopt(3, "t3")
        for _ in range(2):
            with pytest.raises(Superseded) as seen:
                writer.commit(put("ours"))
            assert seen.value.epoch == 2
        assert [manifest.epoch for manifest in manifests(files)] == [1, 2, 2]

    def test_a_second_adoption_works_as_the_first(self, files: FaultyFiles) -> None:
        writer = begin(files)
        for epoch in (3, 4, 9):
            writer.readopt(epoch, f"t{epoch}")
            assert writer.commit(put(f"o{epoch}")) == layout.manifest_name(epoch, 0)
        writer.check()
        assert writer.replaced_by() is None

    def test_looking_at_the_markers_before_the_first_seal_knows_the_own_old_one(
        self, files: FaultyFiles
    ) -> None:
        writer = begin(files)
        writer.readopt(3, "t3")
        writer.check()
        begin_marker_only(files, CONTEXT, 2, "older than our adoption")
        writer.check()
        begin_marker_only(files, CONTEXT, 4, "newer")
        with pytest.raises(Superseded):
            writer.check()

    def test_trouble_while_the_marker_is_made_is_tried_again_by_the_next_commit(
        self, files: FaultyFiles
    ) -> None:
        writer = begin(files)
        writer.readopt(3, "t3")
        files.inject(Fault.LOST_REPLY, match="/marker/")
        files.inject(Fault.DOWN, "names", "/manifest", times=TRIES)
        with pytest.raises(StoreUnavailable):
            writer.commit(put("a"))
        assert writer.commit(put("b")) == layout.manifest_name(3, 0)


def test_versions_and_progress_paths_are_never_given_twice(files: FaultyFiles) -> None:
    writer = begin(files)
    given = [writer.next_version() for _ in range(3)] + [writer.next_progress_path("j", 1) for _ in range(3)]
    writer.readopt(2, "t2")
    given += [writer.next_version(), writer.next_progress_path("j", 1)]
    assert len(set(given)) == len(given)
    assert given[0].startswith("000000000001-")
    assert given[6].startswith("000000000002-")


def test_a_writer_whose_base_is_not_its_own_pin_seals_a_full_manifest_first(files: FaultyFiles) -> None:
    begin(files).commit(put("a"))
    base = load(files, CONTEXT, layout.manifest_name(1, 1), SECRET)
    begin_marker_only(files, CONTEXT, 2, "t2")
    writer = CheckpointWriter(files, CONTEXT, 2, "t2", base, SECRET)
    assert writer.commit(put("b")) == layout.manifest_name(2, 0)
    assert manifests(files)[-1].full
    assert sorted(writer.objects()) == ["a", "b"]


def test_a_manifest_in_our_place_that_is_not_ours_stops_us(files: FaultyFiles) -> None:
    writer = begin(files)
    other = Manifest(CONTEXT, 1, 1, None, full=True)
    files.write_new(layout.manifest_path(CONTEXT, other.name), encode(other, SECRET))
    with pytest.raises(Superseded):
        writer.commit(put("a"))
