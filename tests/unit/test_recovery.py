"""The recovery plan: one decision for each unfinished job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobserver.model import AttemptOutcome, AttemptRef, JobRecord, JobSpec, JobState, OnFailover, OutcomeKind
from jobserver.recovery import Accept, Attached, Deliver, Fail, Queue, Rerun, after_loss, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(state, attempt=1, *, on_failover=OnFailover.RERUN, max_attempts=3):
    spec = JobSpec("m:f", (), max_attempts=max_attempts, on_failover=on_failover)
    return JobRecord("j", "c", "ctx", spec, state, NOW, attempt=attempt)


def test_a_job_that_never_ran_just_waits_for_a_slot():
    for state in (JobState.QUEUED, JobState.RESTARTING):
        waiting = job(state, 0)
        assert plan([waiting], None) == [Queue(waiting)]
        assert plan([waiting], {}) == [Queue(waiting)]


def test_a_running_attempt_in_an_adopted_driver_goes_on():
    running = job(JobState.RUNNING)
    assert plan([running], {AttemptRef("j", 1): None}) == [Attached(running)]


def test_an_outcome_that_waited_in_an_adopted_driver_is_accepted():
    running = job(JobState.RUNNING)
    outcome = AttemptOutcome("j", 1, OutcomeKind.FINISHED, result="1")
    assert plan([running], {AttemptRef("j", 1): outcome}) == [Accept(running, outcome)]


@pytest.mark.parametrize("on_failover", list(OnFailover))
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_an_attempt_the_adopted_driver_never_heard_of_is_given_to_it_under_its_number(attempt, on_failover):
    running = job(JobState.RUNNING, attempt, on_failover=on_failover)
    assert plan([running], {AttemptRef("j", attempt - 1): None}) == [Deliver(running)]


def test_an_attempt_that_the_driver_began_and_lost_counts_as_an_attempt_and_as_no_death():
    lost = after_loss(job(JobState.RUNNING, 2))
    assert isinstance(lost, Rerun)
    assert not lost.died
    assert isinstance(after_loss(job(JobState.RUNNING, 3)), Fail)
    assert isinstance(after_loss(job(JobState.RUNNING, 1, on_failover=OnFailover.FAIL)), Fail)


def test_a_dead_driver_counts_against_the_job():
    (decision,) = plan([job(JobState.RUNNING, 1)], None)
    assert isinstance(decision, Rerun)
    assert decision.died


def test_after_max_attempts_the_job_fails_and_says_so():
    (decision,) = plan([job(JobState.RUNNING, 3)], None)
    assert isinstance(decision, Fail)
    assert "max_attempts is 3" in decision.error.message


def test_a_job_that_must_not_run_twice_fails_with_a_reason():
    (decision,) = plan([job(JobState.RUNNING, 1, on_failover=OnFailover.FAIL)], None)
    assert isinstance(decision, Fail)
    assert "on_failover is fail" in decision.error.message
