"""Cursors of lists: they say where a page ended, and refuse what no page made."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.errors import BadRequest
from jobserver.listing import Place, place_of

TIMES = st.integers(0, 2**53 - 1).map(lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n))


@given(TIMES, st.uuids())
def test_a_cursor_leads_back_to_its_place(at, job_id):
    place = Place(at, str(job_id))
    assert place_of(place.cursor()) == place


@given(st.text(max_size=200))
def test_no_other_text_does_worse_than_be_refused(text):
    with contextlib.suppress(BadRequest):
        assert place_of(text).cursor()


@pytest.mark.parametrize("text", ["", "x", "1", "1.", ".j1", "-1.j1", "1e3.j1", "9" * 30 + ".j1"])
def test_what_names_no_place_is_refused(text):
    cursor = base64.urlsafe_b64encode(text.encode()).decode()
    with pytest.raises(BadRequest):
        place_of(cursor)


def test_a_cursor_of_any_length_is_refused_without_being_read():
    with pytest.raises(BadRequest):
        place_of("A" * 10_000_000)
