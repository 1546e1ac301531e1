"""Results of jobs as JSON text."""

import datetime
import json
from collections import namedtuple
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.driver.results import MAX_DEPTH, ResultTooDeep, ResultTooLarge, UnusableResult, to_json

Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (Point(1, 2.5), [1, 2.5]),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
        ({(1, 2): "a"}, {"(1, 2)": "a"}),
        ({1.5: "a"}, {"1.5": "a"}),
        (float("nan"), None),
        ([1.0, float("inf"), {"a": float("-inf")}], [1.0, None, {"a": None}]),
        (b"\x00\xff", "AP8="),
        (Decimal("1.10"), "1.10"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Colour.RED, "Colour.RED"),
        ({"nan": float("nan"), "odd": [Decimal(1), b"a"]}, {"nan": None, "odd": ["1", "YQ=="]}),
        (2**80, 2**80),
        ("\ud800", "\ud800"),
    ],
)
def test_a_result_becomes_the_json_value_that_the_contract_names(value, expected):
    assert json.loads(to_json(value)) == expected


def test_numpy_scalars_and_arrays_become_numbers_and_arrays():
    scalar = type("float64", (), {"__module__": "numpy", "tolist": lambda self: 1.5})
    array = type("ndarray", (), {"__module__": "numpy", "tolist": lambda self: [[1, 2], [3, float("nan")]]})
    assert json.loads(to_json([scalar(), array()])) == [1.5, [[1, 2], [3, None]]]


def test_a_dataframe_is_refused_with_the_advice_to_collect():
    frame = type("DataFrame", (), {"__module__": "pyspark.sql.classic.dataframe"})
    with pytest.raises(UnusableResult, match="collect"):
        to_json({"df": frame()})


def test_a_result_that_contains_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ResultTooDeep, match="itself"):
        to_json(loop)


def test_a_result_nested_too_deeply_for_json_is_refused():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ResultTooDeep, match=str(MAX_DEPTH)):
        to_json(deep)


def test_the_same_list_twice_is_no_cycle():
    shared = [float("nan")]
    assert json.loads(to_json([shared, shared])) == [[None], [None]]


def test_a_result_over_the_limit_is_refused_and_one_at_the_limit_is_not():
    assert to_json("x" * 8, limit=10) == '"xxxxxxxx"'
    with pytest.raises(ResultTooLarge, match="11 bytes"):
        to_json("x" * 9, limit=10)


def test_a_value_whose_str_fails_is_refused_and_not_raised_as_it_is():
    class Rude:
        def __str__(self):
            raise OSError("no")

    with pytest.raises(UnusableResult, match="Rude"):
        to_json([Rude()])


def test_an_integer_with_too_many_digits_is_refused():
    with pytest.raises(UnusableResult, match="digits"):
        to_json(10**5000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    )
)
def test_every_plain_value_has_json_that_strict_parsers_read(value):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(to_json(value), parse_constant=refuse)
