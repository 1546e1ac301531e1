"""Jobs that end badly, and results that cannot be given: each is the job's error, and harms nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from live_cluster import Live

from test_bad_jobs.answers import error_of


@pytest.mark.parametrize(
    ("what", "error_class", "text"),
    [
        ("key", "KeyError", "'k'"),
        ("exit", "SystemExit", "3"),
        ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("base", "BaseException", "b"),
        ("unprintable", "bad.Unprintable", "Unprintable"),
        ("stop", "StopIteration", "1"),
        ("group", "ExceptionGroup", "two"),
        ("long", "RuntimeError", "xxx"),
        ("surrogate", "RuntimeError", " and "),
        ("generator", "GeneratorExit", ""),
    ],
)
def test_whatever_a_job_raises_is_its_error(
    live: Live, code: str, place: str, unharmed: None, what: str, error_class: str, text: str
) -> None:
    reply = live.submit(code, "bad:raise_it", place, {"what": what}, timeout=20)
    error = error_of(reply)
    assert error["errorClass"] == error_class
    assert text in error["message"]
    assert len(reply.body) < 1_000_000
    assert live.job(reply.json["jobId"])["result"] == error


@pytest.mark.parametrize(
    ("main", "text"),
    [
        ("bad.ValidateRaises", "validate broke"),
        ("bad:spark_error", "ZeroDivisionError"),
        ("bad:exit_on_executor", "Python worker exited unexpectedly"),
        ("bad:recurse", "maximum recursion depth exceeded"),
    ],
)
def test_a_job_that_breaks_at_its_work_says_so(
    live: Live, code: str, place: str, unharmed: None, main: str, text: str
) -> None:
    assert text in error_of(live.submit(code, main, place))["message"]


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("nan", [None, None, 1.5]),
        ("object", ["an opaque thing", "<class 'bad.Opaque'>", "/wA=", {"(1, 2)": "an opaque thing"}]),
        ("nul", "a\x00b"),
        ("surrogate", "\ud800"),
    ],
)
def test_what_json_does_not_know_has_a_plain_stand_in(
    live: Live, code: str, place: str, unharmed: None, what: str, result: Any
) -> None:
    reply = live.submit(code, "bad:returns", place, {"what": what})
    assert (reply.status, reply.json.get("result")) == (200, result), str(reply)
    assert live.job(reply.json["jobId"])["result"] == result


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("cycle", "the result contains itself"),
        ("deep", "nested deeper than"),
        ("huge", "the limit is"),
        ("silent", "str() of a Silent in the result failed"),
        ("number", "cannot be written as JSON"),
        ("frame", "collect()"),
    ],
)
def test_a_result_that_cannot_be_given_is_a_clear_error(
    live: Live, code: str, place: str, unharmed: None, what: str, text: str
) -> None:
    assert text in error_of(live.submit(code, "bad:returns", place, {"what": what}))["message"]
