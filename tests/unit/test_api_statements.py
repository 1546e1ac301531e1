"""SQL jobs as clients submit them: what counts as one, and what is refused."""

import json

import pytest

from jobserver.api.limits import ApiLimits
from jobserver.api.submissions import Asker, Waiting, submission
from jobserver.errors import JobServerError
from jobserver.model import Pool, SqlQuery

LIMITS = ApiLimits(max_sql=50, default_rows=7)


def asked(query=None, config=None):
    return submission(query or {}, config or {}, Waiting(True, 1.0), Asker("me"), LIMITS)


def test_sql_in_the_query_or_in_the_body_makes_an_sql_job():
    for query, config in (({"sql": "select 1"}, {}), ({}, {"sql": "select 1"})):
        made = asked(query, config)
        assert (made.main_class, made.binaries) == ("sql", ())
        assert made.sql == SqlQuery("select 1", "{}", 7)


def test_the_query_wins_over_the_body_and_brings_its_own_limit():
    made = asked(
        {"sql": "select :n", "limit": "3"}, {"sql": "select 2", "limit": 5, "args": {"n": [1, None]}}
    )
    assert made.sql is not None
    assert (made.sql.text, made.sql.limit, json.loads(made.sql.args)) == ("select :n", 3, {"n": [1, None]})


def test_a_job_of_code_may_have_a_key_sql_of_its_own():
    made = asked({"appName": "a", "classPath": "m.C"}, {"sql": "select 1"})
    assert (made.sql, made.main_class) == (None, "m.C")
    assert asked({}, {"cp": "a", "mainClass": "m.C", "sql": 3}).sql is None


@pytest.mark.parametrize(
    ("query", "config", "sentence"),
    [
        ({"sql": "select 1", "cp": "a"}, {}, "sql and cp exclude each other"),
        ({"sql": "  "}, {}, "sql must be the text"),
        ({}, {"sql": ["select 1"]}, "sql must be the text"),
        ({"sql": "x" * 51}, {}, "at most 50 characters"),
        ({"sql": "select 1"}, {"args": "1"}, "args must be an object"),
        ({"sql": "select 1"}, {"args": {"a": {"b": 1}}}, "the value of a must be"),
        ({"sql": "select 1"}, {"args": [[[1]]]}, "the value of 0 must be"),
        ({"sql": "select 1", "limit": "100000001"}, {}, "limit must be from 0 to 100000000"),
        ({"sql": "select 1"}, {"limit": True}, "limit must be a whole number"),
        ({"sql": "select 1"}, {"limit": -1}, "limit must be from 0 to 100000000"),
        ({}, {}, "appName or cp"),
    ],
)
def test_what_is_no_query_is_refused_with_a_sentence(query, config, sentence):
    with pytest.raises(JobServerError, match=sentence) as refused:
        asked(query, config)
    assert refused.value.http_status == 400


def test_pool_and_time_limit_come_from_the_query_or_from_the_block_of_the_body():
    plain = asked({"sql": "select 1"})
    assert (plain.pool, plain.time_limit) == (Pool.INTERACTIVE, None)
    block = {"jobserver": {"pool": "background", "timeout-run": 9}}
    assert (asked({"sql": "select 1"}, block).pool, asked({"sql": "select 1"}, block).time_limit) == (
        Pool.BACKGROUND,
        9.0,
    )
    made = asked({"sql": "select 1", "pool": "batch", "timeoutRun": "2"}, block)
    assert (made.pool, made.time_limit) == (Pool.BATCH, 2.0)


@pytest.mark.parametrize(
    ("query", "block"),
    [
        ({"pool": "huge"}, {}),
        ({}, {"pool": 3}),
        ({"timeoutRun": "0"}, {}),
        ({}, {"timeout-run": 1.5}),
        ({}, {"timeout-run": 10**9}),
    ],
)
def test_unknown_pools_and_impossible_limits_are_refused(query, block):
    with pytest.raises(JobServerError) as refused:
        asked({"sql": "select 1", **query}, {"jobserver": block})
    assert refused.value.http_status == 400
