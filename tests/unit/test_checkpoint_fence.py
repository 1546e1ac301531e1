"""Who may acknowledge, and what an epoch starts from: the rules as tables."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import fence, layout
from checkpoint.fence import Marker

MINE = Marker(3, "mine")


@pytest.mark.parametrize(
    ("markers", "higher"),
    [
        ([MINE], None),
        ([Marker(1, "a"), Marker(2, "b"), MINE], None),
        ([MINE, Marker(4, "a")], 4),
        ([MINE, Marker(4, "a"), Marker(9, "b")], 9),
        ([MINE, Marker(3, "another")], 3),  # nobody else may have our epoch: then neither of us acknowledges
        ([Marker(1, "a")], 3),  # ours was swept
        ([], 3),
        ([Marker(4, "a")], 4),
    ],
)
def test_only_the_highest_marker_may_acknowledge(markers: list[Marker], higher: int | None) -> None:
    assert fence.superseded_by(markers, MINE) == higher
    assert fence.may_acknowledge(markers, MINE) is (higher is None)


@settings(deadline=None)
@given(st.sets(st.builds(Marker, st.integers(0, 5), st.sampled_from("ab"))))
def test_at_most_one_of_all_may_acknowledge(markers: set[Marker]) -> None:
    allowed = [marker for marker in markers if fence.may_acknowledge(markers, marker)]
    assert len(allowed) <= 1
    assert allowed in ([], [fence.highest(markers)])


def test_there_is_no_highest_of_none() -> None:
    assert fence.highest([]) is None


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 20))), st.integers(0, 8))
def test_the_base_is_the_newest_manifest_of_all_older_epochs(names: set[tuple[int, int]], epoch: int) -> None:
    older = [numbers for numbers in names if numbers[0] < epoch]
    chosen = fence.choose_base([layout.pair(*numbers) for numbers in names], epoch)
    assert chosen == (layout.pair(*max(older)) if older else None)


def test_strange_files_are_no_manifests_and_no_markers() -> None:
    good = layout.pair(1, 2)
    assert fence.manifests_in([good + ".json", "x", good, ".tmp", good + ".json.crc"]) == (good,)
    assert fence.markers_in([f"{layout.pair(7, 0)[:12]}-t", "x", "7-t"]) == (Marker(7, "t"),)


@pytest.mark.parametrize(
    ("epochs", "held", "foreign"),
    [
        ([1, 2], {2}, None),
        ([1, 2, 3], {2}, 3),
        ([1, 2, 3, 5], {2, 5}, 3),
        ([1, 2, 5], {2, 5}, None),
        ([], {2}, None),
    ],
)
def test_a_manifest_of_an_epoch_never_held_is_another_lineage(
    epochs: list[int], held: set[int], foreign: int | None
) -> None:
    assert fence.foreign_epoch([layout.pair(epoch, 0) for epoch in epochs], held) == foreign
