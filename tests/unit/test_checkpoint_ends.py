"""What becomes of a checkpoint when its context ends: kept, copied into a new context, removed; each can break anywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from checkpoint import catalog, layout, removal
from checkpoint.data import check_data, seal_data
from checkpoint.epoch import begin_epoch, list_manifests
from checkpoint.errors import CheckpointError, Damaged, Missing, StoreUnavailable, Superseded
from checkpoint.manifest import Kind, NamedObject, Progress
from checkpoint.transplant import Source, load_source, source_of, transplant
from checkpoint.writer import Changes, CheckpointWriter
from tests.fakes.files import Fault, FaultyFiles

SECRET = b"secret"


def written(files: FaultyFiles, context_id: str, name: str, version: str, data: bytes) -> NamedObject:
    path = layout.object_path(name, version)
    files.write_new(layout.in_context(context_id, f"{path}/part-0"), data)
    entries = seal_data(files, context_id, path, digests=True)
    size = sum(entry.size for entry in entries)
    return NamedObject(
        name, Kind.DATAFRAME, version, "materialize", "sync", path=path, files=entries, size=size
    )


def lived(files: FaultyFiles, context_id: str = "old", epoch: int = 1) -> CheckpointWriter:
    """A context with two objects, one of them updated, and the progress of a job."""
    base = begin_epoch(files, context_id, epoch, "t", SECRET)
    writer = CheckpointWriter(files, context_id, epoch, "t", base, SECRET)
    for name, data in (("a", b"first"), ("b", b"bee"), ("a", b"second")):
        writer.commit(Changes(put=[written(files, context_id, name, writer.next_version(), data)]))
    inline = NamedObject("v", Kind.VALUE, writer.next_version(), "materialize", "sync", inline=b"x")
    writer.commit(Changes(put=[inline], progress={"job": Progress(1, inline=b"p")}))
    return writer


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


def until_done(step: Callable[[], None]) -> None:
    """Again and again, as the leader or the next owner does."""
    for _ in range(20):
        try:
            return step()
        except StoreUnavailable:
            continue
    raise AssertionError("it never ends")


class TestCatalog:
    def test_it_tells_what_a_restore_would_find(self, files: FaultyFiles) -> None:
        lived(files)
        files.write_new("binaries/00", b"code")
        for path in (
            layout.data_path("file"),
            f"{layout.log_folder('job', 1)}/0",
            f"{layout.result_folder('job', 1)}/0",
        ):
            files.write_new(path, b"no context's")
        assert catalog.contexts(files) == ["old"]
        found = catalog.find(files, "old", SECRET)
        assert (found.epoch, found.kept, found.being_removed, found.faults) == (1, False, False, ())
        assert set(found.base.objects) == {"a", "b", "v"}
        assert found.size == len(b"second") + len(b"bee")
        assert list(catalog.verify(files, "old", SECRET)) == []

    def test_every_damage_is_a_sentence_and_hides_no_other(self, files: FaultyFiles) -> None:
        writer = lived(files)
        item = writer.objects()["b"]
        files.damage(layout.in_context("old", f"{item.path}/part-0"), b"bea")
        first = list_manifests(files, "old")[0]
        files.damage(layout.manifest_path("old", first), b"torn")
        sentences = "\n".join(catalog.verify(files, "old", SECRET))
        assert f"manifest is damaged (manifest {first})" in sentences
        assert "not those that were sealed" in sentences

    def test_another_clusters_checkpoint_is_told_as_such(self, files: FaultyFiles) -> None:
        lived(files)
        assert "not sealed with this cluster's secret" in catalog.find(files, "old", b"other").faults[0]

    def test_a_store_in_trouble_is_no_damage(self, files: FaultyFiles) -> None:
        lived(files)
        files.inject(Fault.DOWN, "read", "manifest", times=100)
        with pytest.raises(StoreUnavailable):
            list(catalog.verify(files, "old", SECRET))


class TestRemoval:
    def test_nothing_is_left_and_no_other_context_is_touched(self, files: FaultyFiles) -> None:
        lived(files)
        lived(files, "old2")
        other = {path: data for path, data in files.content.items() if path.startswith("old2/")}
        removal.remove(files, "old")
        assert files.content == other

    def test_a_break_at_any_step_leaves_something_that_is_finished_next_time(
        self, files: FaultyFiles
    ) -> None:
        lived(files)
        steps = len(files.calls)
        removal.remove(files, "old")
        for number in range(steps, len(files.calls)):
            broken = FaultyFiles()
            lived(broken)
            for again in range(3):  # persist tries so often
                broken.inject_at(number + again, Fault.DOWN)
            until_done(lambda broken=broken: removal.remove(broken, "old"))  # type: ignore[misc]
            assert broken.content == {}

    def test_a_writer_that_lives_on_acknowledges_nothing_at_any_step(self, files: FaultyFiles) -> None:
        writer = lived(files)
        held = files.hold("remove", "manifest")
        import threading

        removing = threading.Thread(target=removal.remove, args=(files, "old"))
        removing.start()
        assert held.reached.wait(20)
        with pytest.raises(Superseded):
            writer.commit(
                Changes(put=[NamedObject("z", Kind.VALUE, "v", "materialize", "sync", inline=b"z")])
            )
        held.release()
        removing.join(20)
        with pytest.raises(CheckpointError):
            writer.commit(Changes(remove=["a"]))

    def test_what_is_kept_says_so_however_often(self, files: FaultyFiles) -> None:
        lived(files)
        assert not catalog.is_kept(files, "old")
        files.inject(Fault.LOST_REPLY, match="kept")
        removal.keep(files, "old")
        removal.keep(files, "old")
        assert catalog.is_kept(files, "old")


class TestTransplant:
    def test_the_new_context_begins_with_equal_data_of_its_own(self, files: FaultyFiles) -> None:
        lived(files)
        transplant(files, Source("old"), "new", SECRET)
        removal.remove(files, "old")
        base = begin_epoch(files, "new", 1, "t", SECRET)
        assert set(base.objects) == {"a", "b", "v"}
        assert base.progress == {}
        for item in base.objects.values():
            check_data(files, "new", item, "")
        assert files.read(layout.in_context("new", f"{base.objects['a'].path}/part-0")) == b"second"
        writer = CheckpointWriter(files, "new", 1, "t", base, SECRET)
        writer.commit(Changes(put=[written(files, "new", "a", writer.next_version(), b"third")]))
        assert list(catalog.verify(files, "new", SECRET)) == []

    def test_an_older_manifest_can_be_chosen(self, files: FaultyFiles) -> None:
        lived(files)
        second = list_manifests(files, "old")[1]
        transplant(files, source_of(f"old/{second}"), "new", SECRET)
        found = catalog.find(files, "new", SECRET).base.objects
        assert set(found) == {"a"}
        assert files.read(layout.in_context("new", f"{found['a'].path}/part-0")) == b"first"

    @pytest.mark.parametrize("fault", [Fault.DOWN, Fault.LOST_REPLY, Fault.LATE])
    def test_a_break_at_any_step_is_finished_by_whoever_comes_next(self, fault: Fault) -> None:
        clean = FaultyFiles()
        lived(clean)
        start = len(clean.calls)
        transplant(clean, Source("old"), "new", SECRET)
        for number in range(start, len(clean.calls)):
            files = FaultyFiles()
            lived(files)
            for again in range(3):
                files.inject_at(number + again, fault)
            until_done(lambda files=files: transplant(files, Source("old"), "new", SECRET))  # type: ignore[misc]
            files.land()
            assert list(catalog.verify(files, "new", SECRET)) == []
            base = begin_epoch(files, "new", 1, "t", SECRET)
            assert set(base.objects) == {"a", "b", "v"}

    def test_a_context_that_has_begun_is_left_as_it_is(self, files: FaultyFiles) -> None:
        lived(files)
        lived(files, "new")
        before = dict(files.content)
        transplant(files, Source("old"), "new", SECRET)
        assert files.content == before

    def test_what_is_damaged_is_not_taken_over_silently(self, files: FaultyFiles) -> None:
        lived(files)
        newest = list_manifests(files, "old")[-1]
        files.damage(layout.manifest_path("old", newest), b"torn")
        with pytest.raises(Damaged, match="name an older manifest, as old/"):
            load_source(files, Source("old"), SECRET)
        item = load_source(files, Source("old", list_manifests(files, "old")[-2]), SECRET).objects["b"]
        files.damage(layout.in_context("old", f"{item.path}/part-0"), None)
        with pytest.raises(Damaged, match="old/objects/b"):
            transplant(files, Source("old", list_manifests(files, "old")[-2]), "new", SECRET)
        assert list_manifests(files, "new") == ()
        with pytest.raises(Missing, match="no checkpoint of context nobody"):
            load_source(files, Source("nobody"), SECRET)

    @pytest.mark.parametrize("text", ["", "/", "old/", "old/1-2", "/000000000001-000000000001"])
    def test_a_source_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="neither a context's id nor"):
            source_of(text)
