"""Data files: names that are taken once, paths that lead nowhere else, and copies where the store is not a directory."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from checkpoint.files import FileStore
from checkpoint.local import LocalFiles
from jobserver.data_files import DataFiles, check_prefix, file_name
from jobserver.driver.data_files import DataFiles as DriverDataFiles
from jobserver.errors import BadRequest, StoreUnavailable
from tests.fakes.files import FaultyFiles

AT = datetime(2016, 7, 4, 3, 39, 57, 928_123, tzinfo=UTC)


class RemoteFiles(FaultyFiles):
    """A store that no path of this machine reaches."""

    def url(self, path: str) -> str:
        return f"hdfs://nn/{path}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def bytes_of(path: str) -> bytes:
    return Path(path).read_bytes()


def desk(root: Path) -> DataFiles:
    return DataFiles(LocalFiles(root), lambda: AT, UTC)


def test_a_name_tells_the_time_in_the_servers_zone() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert file_name("in", AT, zone) == "in-2016-07-04T09_09_57.928+05_30.dat"
    assert file_name("in", AT, UTC) == "in-2016-07-04T03_39_57.928Z.dat"


async def test_an_upload_can_be_opened_under_the_path_that_was_answered(root: Path) -> None:
    shown = await desk(root).upload("in", b"\0bytes")
    assert bytes_of(shown) == b"\0bytes"
    assert await desk(root).all() == [shown]


async def test_uploads_of_one_prefix_in_one_millisecond_get_different_names(root: Path) -> None:
    shown = {await desk(root).upload("in", data) for data in (b"a", b"b", b"c")}
    assert len(shown) == 3
    assert sorted(await desk(root).all()) == sorted(shown)


@pytest.mark.parametrize(
    "prefix", ["", "../x", "a/b", "..", ".hidden", "_x", "a b", "a:b", "a\0", "a*", "x" * 101]
)
def test_a_prefix_that_would_leave_the_folder_or_break_a_path_is_refused(prefix: str) -> None:
    with pytest.raises(BadRequest):
        check_prefix(prefix)


async def test_only_listed_files_can_be_deleted(root: Path) -> None:
    shown = await desk(root).upload("in", b"x")
    secret = root / "binaries" / "other.dat"
    secret.parent.mkdir()
    secret.write_bytes(b"keep")
    elsewhere = str(root / "data" / ".." / "binaries" / "other.dat")
    for path in (str(secret), elsewhere, Path(shown).name, "", "/", shown + "/"):
        with pytest.raises(BadRequest, match="Unable to delete data file"):
            await desk(root).delete(path)
    assert secret.read_bytes() == b"keep"
    await desk(root).delete(shown)
    assert await desk(root).all() == []
    with pytest.raises(BadRequest):
        await desk(root).delete(shown)


async def test_a_reset_deletes_every_data_file_and_nothing_else(root: Path) -> None:
    await desk(root).upload("a", b"x")
    await desk(root).upload("b", b"x")
    LocalFiles(root).write_new("binaries/kept", b"y")
    await desk(root).reset()
    assert await desk(root).all() == []
    assert (root / "binaries" / "kept").exists()


async def test_a_store_that_is_away_is_said_to_be_away(root: Path) -> None:
    files = desk(root)
    shutil.rmtree(root)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await files.upload("in", b"x")


async def test_a_job_opens_the_stores_own_file_where_that_is_a_local_one(root: Path, tmp_path: Path) -> None:
    shown = await desk(root).upload("in", b"x")
    found = DriverDataFiles(lambda: LocalFiles(root), tmp_path / "copies")
    assert found.local(shown) == shown
    assert found.local(Path(shown).name) == shown
    for unknown in ("/etc/passwd", "..", "", "x.dat"):
        with pytest.raises(FileNotFoundError):
            found.local(unknown)


async def test_a_job_gets_a_copy_where_the_store_is_elsewhere(tmp_path: Path) -> None:
    remote: FileStore = RemoteFiles()
    shown = await DataFiles(remote, lambda: AT, UTC).upload("in", b"far away")
    found = DriverDataFiles(lambda: remote, tmp_path / "copies")
    assert shown.startswith("hdfs://nn/data/in-")
    copy = found.local(shown)
    assert bytes_of(copy) == b"far away"
    assert found.local(shown) == copy
    with pytest.raises(FileNotFoundError):
        found.local("hdfs://nn/data/other.dat")
