"""Two files of one name in one folder: the second one is refused, unless it is the same."""

import time
from pathlib import Path

import pytest

from jobserver.driver.added_files import AddedFiles, archive_name, file_name, paths_in


def added() -> int:
    return 7


def refused() -> None:
    raise OSError("there is no such file")


@pytest.fixture
def files(tmp_path: Path) -> AddedFiles:
    """Spark's folder has a copy of x.txt, which was added."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x.txt").write_text("one")
    made = AddedFiles(lambda: str(tmp_path / "kept"))
    made.adding({"x.txt": "/one/x.txt"}, added)
    return made


def test_a_file_may_be_added_again_and_others_beside_it(files: AddedFiles):
    for path in ("/one/x.txt", "/two/y.txt"):
        assert files.adding({file_name(path): path}, added) == 7


@pytest.mark.parametrize("other", ["/two/x.txt", "hdfs://host/x.txt", "/two/x.txt/"])
def test_another_file_of_that_name_is_refused_with_what_to_do(files: AddedFiles, other: str):
    calls: list[int] = []
    with pytest.raises(
        ValueError, match=r"x\.txt was added to this context before, from /one/x\.txt: .* another name"
    ):
        files.adding({"y.txt": "/two/y.txt", file_name(other): other}, lambda: calls.append(1))
    assert calls == []


@pytest.mark.parametrize("prefix", ["", "file:", "file://"])
def test_a_copy_with_the_same_content_is_welcome_and_another_is_not(
    files: AddedFiles, tmp_path: Path, prefix: str
):
    other = tmp_path / "x.txt"
    other.write_text("one")
    assert files.adding({"x.txt": f"{prefix}{other}"}, added) == 7
    other.write_text("two")
    with pytest.raises(ValueError, match="before"):
        files.adding({"x.txt": f"{prefix}{tmp_path}/./x.txt"}, added)


def test_a_name_stays_free_when_its_file_could_not_be_added(files: AddedFiles):
    with pytest.raises(OSError, match="no such file"):
        files.adding({"y.txt": "/one/y.txt"}, refused)
    assert files.adding({"y.txt": "/two/y.txt"}, added) == 7


def test_an_archive_may_be_named_and_a_file_not():
    assert archive_name("/a/b.zip#c") == "c"
    assert archive_name("/a/b.zip") == file_name("/a/b.zip#c") == "b.zip"


@pytest.mark.parametrize(
    ("sql", "paths"),
    [
        ("add file '/one/x y.txt'", {"x y.txt": "/one/x y.txt"}),
        (' ADD  JARS "/a.jar" /d/b.jar;', {"a.jar": "/a.jar", "b.jar": "/d/b.jar"}),
        ("add archive\n/e.zip#c ;", {"c": "/e.zip#c"}),
        ("-- mine\n/* and\n yours */ add file /x.txt", {"x.txt": "/x.txt"}),
        ("select add, file from added", {}),
        ("-- add file /x.txt\nselect 1", {}),
        ("add", {}),
    ],
)
def test_paths_are_found_in_statements_that_add(sql: str, paths: dict[str, str]):
    assert paths_in(sql) == paths


def test_a_text_that_begins_with_many_comments_is_read_in_no_time():
    begun = time.process_time()
    assert paths_in("/* c */ " * 24 + "select 1") == {}
    assert time.process_time() - begun < 1  # each comment more doubled it once
