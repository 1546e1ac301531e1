"""The recovery plan: one decision for each unfinished job."""

from __future__ import annotations

from datetime import UTC, datetime

from jobserver.model import AttemptOutcome, AttemptRef, JobRecord, JobSpec, JobState, OnFailover, OutcomeKind
from jobserver.recovery import Accept, Attached, Fail, Queue, Rerun, plan

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


def test_an_attempt_the_adopted_driver_never_heard_of_runs_again_and_counts_as_no_death():
    running = job(JobState.RUNNING, 2)
    (decision,) = plan([running], {AttemptRef("j", 1): None})
    assert isinstance(decision, Rerun)
    assert not decision.died


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
