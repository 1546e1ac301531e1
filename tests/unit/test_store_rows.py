"""Rows and records: what is written comes back the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from jobserver.store.rows import instant, micros, storable, storable_json

times = st.datetimes(timezones=st.just(UTC))
texts = st.text(alphabet=st.characters(exclude_categories=()))


@given(times)
def test_a_time_comes_back_to_the_microsecond(at: datetime) -> None:
    assert instant(micros(at)) == at


@given(times, times)
def test_stored_times_sort_as_the_times_do(one: datetime, two: datetime) -> None:
    assert (micros(one) < micros(two)) == (one < two)


def test_a_time_in_another_zone_is_the_same_instant() -> None:
    at = datetime(2026, 7, 1, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert instant(micros(at)) == at
    assert instant(micros(at)).tzinfo is UTC


@given(st.recursive(texts | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_json_made_storable_can_be_encoded_and_means_the_same(value: object) -> None:
    text = storable_json(json.dumps(value, ensure_ascii=False))
    assert text is not None
    assert json.loads(text.encode().decode()) == value


@given(texts)
def test_a_text_is_storable_exactly_when_it_has_an_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        assert not storable(text)
    else:
        assert storable(text)
