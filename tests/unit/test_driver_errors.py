"""A job may raise anything: what clients see of it always exists, and is bounded."""

from __future__ import annotations

import pytest

from jobserver.driver.loading import MESSAGE_LIMIT, STACK_LIMIT, error_info


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class BrokenNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


def test_an_exception_without_a_text_is_named_by_its_class() -> None:
    info = error_info(Unprintable())
    assert info.message == "Unprintable (its text cannot be had: ValueError)"
    assert info.error_class.endswith("Unprintable")


def test_an_exception_that_cannot_be_formatted_has_a_message_still() -> None:
    info = error_info(BrokenNotes("why"))
    assert info.message == "why"
    assert info.stack


@pytest.mark.parametrize("length", [MESSAGE_LIMIT, MESSAGE_LIMIT + 1, 50_000_000])
def test_a_message_of_any_length_keeps_its_start_and_end_and_is_bounded(length: int) -> None:
    info = error_info(RuntimeError("<" + "x" * (length - 2) + ">"))
    assert (info.message[0], info.message[-1]) == ("<", ">")
    assert len(info.message) <= MESSAGE_LIMIT + 100
    assert len(info.stack) <= STACK_LIMIT + 100
    assert ("characters left out" in info.message) is (length > MESSAGE_LIMIT)
