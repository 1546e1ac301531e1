"""Admission: order, slots, and jobs that run alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobserver.admission import Admission


def taken(admission):
    """Everything that may start now, in order."""
    jobs = []
    while (job := admission.next()) is not None:
        jobs.append(job)
    return jobs


def test_priority_comes_first_then_the_order_of_arrival():
    admission = Admission(max_jobs=3)
    for job, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        admission.arrive(job, priority=priority)
    assert taken(admission) == ["b", "d", "a"]


def test_a_freed_slot_goes_to_the_next():
    admission = Admission(max_jobs=1)
    admission.arrive("a")
    admission.arrive("b")
    assert taken(admission) == ["a"]
    admission.release("a")
    assert taken(admission) == ["b"]


def test_a_message_that_comes_twice_starts_a_job_once():
    admission = Admission(max_jobs=2)
    admission.arrive("a")
    admission.arrive("a")
    assert taken(admission) == ["a"]


def test_a_job_killed_in_the_queue_never_starts():
    admission = Admission(max_jobs=1)
    for job in "abc":
        admission.arrive(job)
    assert taken(admission) == ["a"]
    admission.release("b")
    assert admission.waiting == 1
    admission.release("a")
    assert taken(admission) == ["c"]


def test_a_job_that_took_two_drivers_with_it_runs_alone():
    admission = Admission(max_jobs=4)
    admission.arrive("quiet")
    admission.arrive("deadly", deaths=2)
    admission.arrive("later")
    assert taken(admission) == ["quiet"]
    admission.release("quiet")
    assert taken(admission) == ["deadly"]
    admission.release("deadly")
    assert taken(admission) == ["later"]


@given(st.lists(st.tuples(st.sampled_from(["arrive", "release", "take"]), st.integers(0, 6)), max_size=60))
def test_slots_are_never_exceeded_and_never_leak(steps):
    admission = Admission(max_jobs=2)
    for action, number in steps:
        job = f"j{number}"
        if action == "arrive":
            admission.arrive(job, deaths=number // 3)
        elif action == "release":
            admission.release(job)
        else:
            admission.next()
        assert len(admission.running) <= 2
        assert admission.waiting >= 0
    for job in list(admission.running):
        admission.release(job)
    for _ in range(10):
        for job in taken(admission):
            admission.release(job)
    assert not admission.running
    assert admission.waiting == 0


def test_a_job_that_runs_alone_in_an_adopted_driver_still_does():
    admission = Admission(max_jobs=4)
    admission.attach("deadly", deaths=2)
    admission.arrive("later")
    assert taken(admission) == []
    admission.release("deadly")
    assert taken(admission) == ["later"]
