"""Two files of one name would fail all tasks of a driver: the second one is refused."""

from typing import Any

import pytest

from jobserver.driver.added_files import AddedFiles, paths_in


def added() -> int:
    return 7


def refused() -> None:
    raise OSError("there is no such file")


def test_a_file_whose_name_is_free_is_added_and_may_be_added_again():
    files = AddedFiles()
    assert [files.adding(["/one/x.txt"], added) for _ in range(2)] == [7, 7]


@pytest.mark.parametrize("other", ["/two/x.txt", "hdfs://host/x.txt", "/two/else.zip#x.txt", "/two/x.txt/"])
def test_another_file_of_that_name_is_refused_with_what_to_do(other: str):
    files = AddedFiles()
    files.adding(["/one/x.txt"], added)
    with pytest.raises(
        ValueError, match=r"x\.txt was added to this context before, from /one/x\.txt: .* another name"
    ):
        files.adding([other], added)


def test_a_name_is_free_again_when_its_file_could_not_be_added():
    files = AddedFiles()
    with pytest.raises(OSError, match="no such file"):
        files.adding(["/one/x.txt"], refused)
    assert files.adding(["/two/x.txt"], added) == 7


def test_what_was_added_before_stays_taken_when_it_cannot_be_added_again():
    files = AddedFiles()
    files.adding(["/one/x.txt"], added)
    with pytest.raises(OSError, match="no such file"):
        files.adding(["/one/x.txt"], refused)
    with pytest.raises(ValueError, match="before"):
        files.adding(["/two/x.txt"], added)


def test_of_several_of_which_one_is_refused_none_is_taken():
    files = AddedFiles()
    files.adding(["/one/x.txt"], added)
    with pytest.raises(ValueError, match="before"):
        files.adding(["/two/y.txt", "/two/x.txt"], added)
    assert files.adding(["/three/y.txt"], added) == 7


@pytest.mark.parametrize(
    ("sql", "paths"),
    [
        ("add file '/one/x y.txt'", ["/one/x y.txt"]),
        (' ADD  JARS "/a.jar" /b.jar;', ["/a.jar", "/b.jar"]),
        ("add archive\n/c.zip#c ;", ["/c.zip#c"]),
        ("select add, file from added", []),
        ("add", []),
    ],
)
def test_paths_are_found_in_statements_that_add(sql: str, paths: Any):
    assert paths_in(sql) == paths
