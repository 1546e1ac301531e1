"""How an object was made: what is remembered of it comes back, and what `auto` makes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.driver.object_options import STRATEGIES, choose
from jobserver.driver.origins import Origin, Recipe, Source, Upload, origin_of
from jobserver.model import BinaryType

texts = st.text(max_size=8)
uploads = st.builds(Upload, texts, st.sampled_from(BinaryType), texts)
recipes = st.builds(Recipe, texts, st.lists(uploads, max_size=2).map(tuple), texts)
paths = st.lists(texts, max_size=2).map(tuple)
sources = st.builds(Source, texts, paths, st.dictionaries(texts, texts, max_size=2), texts)
origins = st.builds(Origin, st.none() | recipes, st.none() | sources, st.booleans())

SHARED = Source("parquet", ("hdfs://h:1/data",))


@given(origins)
def test_what_is_remembered_comes_back(origin):
    assert origin_of(origin.text()) == origin


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "7", "null", '{"recipe":{}}', '{"source":{"paths":3}}']
)
def test_an_unreadable_origin_says_nothing_and_breaks_nothing(text):
    assert origin_of(text) == Origin()


def test_a_newer_release_may_say_more():
    plain = {**json.loads(Origin(source=SHARED).text()), "colour": "blue"}
    assert origin_of(json.dumps(plain)).source == SHARED


@pytest.mark.parametrize(
    ("source", "chosen"),
    [
        (None, "materialize"),
        (SHARED, "source"),
        (Source("csv", ("s3a://bucket/a", "s3a://bucket/b")), "source"),
        (Source("csv", ("file:/data/a.csv",)), "materialize"),
        (Source("csv", ("s3a://bucket/a", "/data/b.csv")), "materialize"),
    ],
)
def test_auto_reads_shared_files_again_and_writes_everything_else(source, chosen):
    assert choose("auto", source) == chosen


@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each != "auto"])
def test_a_strategy_that_is_named_is_kept(strategy):
    assert choose(strategy, SHARED) == strategy


def test_a_source_that_is_none_is_refused_with_what_to_use():
    with pytest.raises(ValueError, match="use 'materialize'"):
        choose("source", None)
