"""The checker of workloads finds each way in which a promise can be broken, and nothing in a good history."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.drills.checker import JobSeen, Operation, faults, longest_pause, unsettled

SYNC = Operation(1, "k-1", True, [1], 0.0, 1.0, "a", [1])
ASYNC = Operation(2, "k-2", False, [2], 0.5, 1.0, "b")
UNKNOWN = Operation(3, "k-3", False, [3], 0.5, 9.0, None)
JOBS = {"a": JobSeen("a", "FINISHED", [1]), "b": JobSeen("b", "FINISHED", [2])}


def test_what_is_as_promised_has_no_fault():
    assert faults([SYNC, ASYNC], JOBS) == []
    assert faults([SYNC, ASYNC, UNKNOWN], JOBS) == []
    assert faults([SYNC, ASYNC, UNKNOWN], {**JOBS, "c": JobSeen("c", "FINISHED", [3])}) == []


@pytest.mark.parametrize(
    ("history", "jobs", "fault"),
    [
        ([SYNC, ASYNC], {"a": JOBS["a"]}, "acknowledged as b and is lost"),
        ([SYNC, ASYNC], {**JOBS, "b": JobSeen("b", "RUNNING")}, "is RUNNING"),
        ([SYNC, ASYNC], {**JOBS, "b": JobSeen("b", "FINISHED", [9])}, r"with \[9\]"),
        ([SYNC, ASYNC], {**JOBS, "b": JobSeen("b", "ERROR")}, "is ERROR"),
        ([replace(SYNC, result=[7]), ASYNC], JOBS, r"answered \[7\]"),
        ([SYNC, replace(ASYNC, job_id="a")], JOBS, "the same id a"),
        ([SYNC, ASYNC], {**JOBS, "c": JobSeen("c", "FINISHED", [2])}, "no client knows of"),
        ([SYNC, UNKNOWN], {"a": JOBS["a"], "c": JobSeen("c", "RUNNING")}, "for ever"),
        ([SYNC, replace(ASYNC, fault="500", job_id=None)], JOBS, "500"),
    ],
)
def test_every_broken_promise_is_a_fault(history, jobs, fault):

    assert any(re.search(fault, found) for found in faults(history, jobs)), faults(history, jobs)


def test_jobs_that_are_still_to_be_waited_for_are_named():
    assert unsettled([SYNC, ASYNC, UNKNOWN], {"a": JOBS["a"], "b": JobSeen("b", "RUNNING")}) == {"b"}
    assert unsettled([SYNC, ASYNC], {"a": JOBS["a"]}) == {"b"}


def test_the_longest_pause_is_between_answers_or_at_the_ends():
    history = [replace(SYNC, ended=at) for at in (1.0, 1.5, 4.0)]
    assert longest_pause(history, 1.0, 4.5) == 2.5
    assert longest_pause(history, 0.0, 9.0) == 5.0
