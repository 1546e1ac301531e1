"""Names and paths: any text is a safe folder, sorted names are sorted numbers, and strangers are not parsed."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkpoint import layout

texts = st.text(st.characters(), max_size=60)  # with lone surrogates, control characters and all
numbers = st.integers(min_value=0, max_value=10**layout.WIDTH - 1)


@settings(deadline=None)
@given(texts)
@example("")
@example("..")
@example("../../etc/passwd")
@example("a/b")
@example("~2f")
@example("~")
@example("_hidden")
@example("k=v")
@example("%2F")
@example("\0\n{*}[?]")
def test_any_text_is_a_safe_component_and_comes_back(text: str) -> None:
    name = layout.component(text)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~")
    assert name
    assert not name.startswith("_")
    assert len(name) <= 200
    if not name.startswith("~~"):
        assert layout.text_of(name) == text


@settings(deadline=None)
@given(texts, texts)
def test_two_texts_never_share_a_component(one: str, other: str) -> None:
    assert (layout.component(one) == layout.component(other)) == (one == other)


def test_very_long_names_stay_apart_and_short_enough_for_a_file_system() -> None:
    long = "ü" * 5000
    assert len(layout.component(long)) < 100
    assert layout.component(long) != layout.component(long + "x")
    assert layout.text_of(layout.component(long)) is None


@pytest.mark.parametrize("name", ["%41", "~4", "~zz", "a.b", "a/b", "~2F", "~61", "_x", "~~", "~ff"])
def test_what_component_did_not_make_is_not_read_back(name: str) -> None:
    assert layout.text_of(name) is None


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), max_size=8))
def test_names_sort_as_their_numbers_do(pairs: list[tuple[int, int]]) -> None:
    names = sorted(layout.pair(*numbers) for numbers in pairs)
    assert [layout.parse_pair(name) for name in names] == sorted(pairs)


def test_a_number_that_does_not_fit_is_refused() -> None:
    for first, second in ((-1, 0), (0, -1), (10**layout.WIDTH, 0)):
        with pytest.raises(ValueError, match="between"):
            layout.pair(first, second)


@settings(deadline=None)
@given(numbers, texts)
def test_a_marker_is_read_back_from_its_file_name(epoch: int, token: str) -> None:
    file_name = layout.marker_path("c", epoch, token).split("/")[-1]
    if "~~" not in file_name:
        assert layout.parse_marker(file_name) == (epoch, token)


@pytest.mark.parametrize(
    "name", ["", "1-0", "x.json", "000000000001-0.json", ".000000000001-000000000000.json"]
)
def test_strange_files_are_no_manifests_and_no_markers(name: str) -> None:
    assert layout.parse_manifest(name) is None
    assert layout.parse_marker(name) is None


def test_paths_lie_where_the_design_says() -> None:
    assert (
        layout.manifest_path("c", layout.manifest_name(3, 7)) == "c/manifest/000000000003-000000000007.json"
    )
    assert layout.marker_path("c", 3, "t") == "c/marker/000000000003-t"
    assert layout.object_path("a/b", layout.version(3, 1)) == "objects/a~2fb/000000000003-000000000001"
    assert layout.progress_path("j", 2, 5) == "progress/j/000000000002-000000000005"
    assert layout.result_folder("j", 2) == "results/j/000000000002"
    assert layout.log_folder("j/k", 1) == "logs/j~2fk/000000000001"
    assert layout.binary_path("ab12") == "binaries/ab12"
    assert layout.parse_manifest("000000000003-000000000007.json") == layout.manifest_name(3, 7)
