"""The promises of a checkpoint store, kept by every implementation and by the fake that other tests use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkpoint.errors import AlreadyExists, Missing, StoreUnavailable
from checkpoint.files import FileStore
from checkpoint.local import LocalFiles
from tests.fakes.files import FaultyFiles


class FileStorePromises:
    """One class of promises for every store; `again` is another client of the store `files`."""

    def test_what_was_written_is_read_back_whole(self, files: FileStore) -> None:
        data = bytes(range(256)) * 300
        files.write_new("c/manifest/1.json", data)
        assert files.read("c/manifest/1.json") == data
        assert files.size("c/manifest/1.json") == len(data)

    def test_a_folder_shared_with_another_user_is_still_our_own(self, files: FileStore) -> None:
        files.share("c/objects/a", "somebody")
        files.write_new("c/objects/a/1/value", b"x")
        files.share("c/objects/a", "somebody")
        assert files.read("c/objects/a/1/value") == b"x"
        assert files.seal_tree("c/objects/a") == {"1/value": 1}
        files.remove("c")
        assert files.names("c/objects/a") == []

    def test_an_empty_file_is_a_file(self, files: FileStore) -> None:
        files.write_new("c/marker/1", b"")
        assert files.read("c/marker/1") == b""
        assert files.names("c/marker") == ["1"]

    def test_a_name_is_taken_once(self, files: FileStore) -> None:
        files.write_new("a/b", b"first")
        with pytest.raises(AlreadyExists):
            files.write_new("a/b", b"second")
        assert files.read("a/b") == b"first"

    def test_of_many_that_write_one_name_exactly_one_wins(self, files: FileStore) -> None:
        barrier = threading.Barrier(8)

        def attempt(number: int) -> bool:
            barrier.wait()
            try:
                files.write_new("race/name", b"%d" % number * 1000)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = [number for number, result in enumerate(pool.map(attempt, range(8))) if result]
        assert len(won) == 1
        assert files.read("race/name") == b"%d" % won[0] * 1000

    def test_what_is_absent_is_missing_and_not_trouble(self, files: FileStore) -> None:
        for ask in (files.read, files.size, files.seal_tree):
            with pytest.raises(Missing):
                ask("never/was")

    def test_a_file_that_is_no_folder_holds_nothing_to_read(self, files: FileStore) -> None:
        files.write_new("a/file", b"x")
        with pytest.raises(Missing):
            files.read("a/file/below")

    def test_names_are_those_directly_in_the_folder_and_sorted(self, files: FileStore) -> None:
        for path in ("f/b", "f/a", "f/sub/deep", "g/c"):
            files.write_new(path, b"x")
        assert files.names("f") == ["a", "b", "sub"]

    def test_what_one_client_has_written_the_listing_of_another_shows(
        self, files: FileStore, again: FileStore
    ) -> None:
        for number in range(20):
            one, other = (files, again) if number % 2 else (again, files)
            assert len(other.names("m")) == number
            one.write_new(f"m/{number:02d}", b"x")
            assert other.names("m")[-1] == f"{number:02d}"

    def test_an_absent_folder_has_no_names(self, files: FileStore) -> None:
        assert files.names("nothing/here") == []

    def test_removing_takes_a_file_or_a_tree_and_forgives_absence(self, files: FileStore) -> None:
        for path in ("t/one", "t/two/three", "tt"):
            files.write_new(path, b"x")
        files.remove("t/one")
        assert files.names("t") == ["two"]
        files.remove("t")
        files.remove("t")
        assert files.names("t") == []
        assert files.read("tt") == b"x"

    def test_a_folder_goes_alone_only_when_nothing_is_in_it(self, files: FileStore) -> None:
        files.write_new("t/full/one", b"x")
        files.write_new("t/empty/one", b"x")
        files.remove("t/empty/one")
        for folder in ("t/full", "t/empty", "t/empty", "t/absent"):
            files.remove_empty(folder)
        assert files.names("t") == ["full"]
        assert files.read("t/full/one") == b"x"
        files.write_new("t/empty/one", b"y")
        assert files.read("t/empty/one") == b"y"

    def test_a_folder_can_be_filled_again_after_it_was_removed(self, files: FileStore) -> None:
        files.write_new("t/one", b"x")
        files.remove("t")
        files.write_new("t/one", b"y")
        assert files.read("t/one") == b"y"

    def test_a_copy_has_the_bytes_and_a_name_that_is_taken_once(self, files: FileStore) -> None:
        data = bytes(range(256)) * 9000
        files.write_new("a/from", data)
        files.write_new("a/empty", b"")
        files.copy("a/from", "b/deep/to")
        files.copy("a/empty", "b/empty")
        assert (files.read("b/deep/to"), files.read("b/empty")) == (data, b"")
        with pytest.raises(AlreadyExists):
            files.copy("a/empty", "b/deep/to")
        with pytest.raises(Missing):
            files.copy("a/none", "b/none")
        files.remove("a")
        assert files.read("b/deep/to") == data
        assert files.names("b") == ["deep", "empty"]

    def test_the_top_is_what_lies_directly_below_the_root(self, files: FileStore) -> None:
        assert files.top() == []
        for path in ("one/file", "two/sub/file"):
            files.write_new(path, b"x")
        assert files.top() == ["one", "two"]

    def test_sealing_a_tree_tells_each_file_and_its_length(self, files: FileStore) -> None:
        files.write_new("d/part-0", b"12345")
        files.write_new("d/sub/part-1", b"1")
        assert files.seal_tree("d") == {"part-0": 5, "sub/part-1": 1}

    def test_no_path_leads_out_of_the_root(self, files: FileStore) -> None:
        for path in ("../x", "a/../../x", "/etc/passwd", "", "a\0b"):
            with pytest.raises(ValueError, match="no path below"):
                files.read(path)
            with pytest.raises(ValueError, match="no path below"):
                files.write_new(path, b"")

    def test_discarding_what_is_unfinished_disturbs_no_write_of_the_same_client(
        self, files: FileStore
    ) -> None:
        files.write_new("m/0", b"")
        written = threading.Event()

        def write(thread: int) -> None:
            for number in range(10):
                files.write_new(f"m/{thread}-{number}", b"x" * 1000)

        def discard() -> None:
            while not written.is_set():
                files.discard_unfinished("m")

        with ThreadPoolExecutor(5) as pool:
            discarding = pool.submit(discard)
            writing = [pool.submit(write, thread) for thread in range(4)]
            try:
                for one in writing:
                    one.result()
            finally:
                written.set()
            discarding.result()
        assert len(files.names("m")) == 41

    def test_discarding_what_is_unfinished_leaves_what_is_finished(self, files: FileStore) -> None:
        files.write_new("m/done", b"x")
        files.discard_unfinished("m")
        files.discard_unfinished("absent")
        assert files.names("m") == ["done"]

    def test_urls_keep_the_path_as_it_is(self, files: FileStore) -> None:
        assert files.url("c/objects/a~2fb/1").endswith("/c/objects/a~2fb/1")
        assert files.url("c").startswith(("file:///", "hdfs://"))


class TestFakeKeepsThePromises(FileStorePromises):
    @pytest.fixture
    def files(self) -> FileStore:
        return FaultyFiles()

    @pytest.fixture
    def again(self, files: FileStore) -> FileStore:
        return files


class TestLocalFilesKeepThePromises(FileStorePromises):
    @pytest.fixture
    def files(self, tmp_path: Path) -> FileStore:
        return LocalFiles(tmp_path / "root with blank")

    @pytest.fixture
    def again(self, files: FileStore, tmp_path: Path) -> FileStore:
        return LocalFiles(tmp_path / "root with blank")

    def test_a_root_with_blanks_is_not_escaped_for_spark(self, files: FileStore, tmp_path: Path) -> None:
        assert files.url("c/x") == f"file://{tmp_path}/root with blank/c/x"

    def test_an_unfinished_write_is_never_listed(self, files: FileStore, tmp_path: Path) -> None:
        files.write_new("m/done", b"x")
        debris = tmp_path / "root with blank" / "m" / ".dead.unfinished"
        debris.write_bytes(b"half")
        assert files.names("m") == ["done"]
        files.discard_unfinished("m")
        assert not debris.exists()

    def test_a_write_leaves_no_debris_whether_it_wins_or_not(self, files: FileStore, tmp_path: Path) -> None:
        files.write_new("m/name", b"x")
        with pytest.raises(AlreadyExists):
            files.write_new("m/name", b"y")
        assert [entry.name for entry in (tmp_path / "root with blank" / "m").iterdir()] == ["name"]

    def test_a_root_that_went_away_is_trouble_and_not_emptiness(
        self, files: FileStore, tmp_path: Path
    ) -> None:
        files.write_new("m/name", b"x")
        (tmp_path / "root with blank").rename(tmp_path / "elsewhere")
        for ask in (files.read, files.names, files.size, files.remove, files.seal_tree):
            with pytest.raises(StoreUnavailable):
                ask("m/name")
        with pytest.raises(StoreUnavailable):
            files.write_new("m/other", b"x")
        assert not (tmp_path / "root with blank").exists()

    def test_a_refusal_of_the_disk_is_trouble(
        self, files: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="ENOSPC"):
            files.write_new("m/name", b"x")

    def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(
        self, files: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        story = _recorded(monkeypatch)
        files.write_new("m/name", b"x")
        link = story.index("link name")
        assert any(step.startswith("sync .") for step in story[:link])
        assert "sync m" in story[link:]
        assert {"sync root with blank"} <= set(story[:link])

    def test_who_is_told_that_a_name_is_taken_may_rely_on_its_bytes(
        self, files: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.write_new("m/name", b"x")
        story = _recorded(monkeypatch)
        with pytest.raises(AlreadyExists):
            files.write_new("m/name", b"x")
        assert story[story.index("link name") + 1 :] == ["sync name", "sync m"]

    def test_sealing_a_tree_syncs_hidden_files_and_every_folder(
        self, files: FileStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        inner = tmp_path / "root with blank" / "c" / "d" / "sub"
        inner.mkdir(parents=True)
        (inner / "part-0").write_bytes(b"123")
        (inner / ".part-0.crc").write_bytes(b"1")
        story = _recorded(monkeypatch)
        assert files.seal_tree("c/d") == {"sub/part-0": 3}
        assert {"sync part-0", "sync .part-0.crc", "sync sub", "sync d", "sync c"} <= set(story)


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of syncs and links from now on, by the last component of each path."""
    story: list[str] = []
    fsync, link = os.fsync, os.link

    def spy_sync(handle: int) -> None:
        story.append("sync " + Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def spy_link(source: Path, target: Path) -> None:
        story.append(f"link {target.name}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    replacement: Callable[[Path, Path], None] = spy_link
    monkeypatch.setattr(os, "link", replacement)
    return story
