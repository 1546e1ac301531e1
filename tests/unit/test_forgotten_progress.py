"""Saved progress leaves the checkpoint whichever way its job ended, also where the driver of its end is dead, and not before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from jobserver.contexts.jobs import ContextJobs
from jobserver.contexts.waiters import JobWaiters
from jobserver.model import AttemptOutcome, AttemptRef, Fence, JobRecord, JobSpec, JobState, OutcomeKind
from jobserver.protocol import Request

Told = tuple[Request, str, int, bool]
"""A request of the owner: its kind, job and attempt, and whether it says that the job has ended."""
AT = datetime(2026, 1, 1, tzinfo=UTC)
FENCE = Fence("c", 1, "t")
RUNNING = JobRecord("j", "c", "ctx", JobSpec("m.C", ()), JobState.RUNNING, AT, attempt=3)
WAITS = replace(RUNNING, id="w", state=JobState.RESTARTING, attempt=2)


class Store:
    """Holds jobs of one context; every guarded write succeeds."""

    def __init__(self, *jobs: JobRecord) -> None:
        self._jobs = list(jobs)

    async def unfinished_jobs(self, context_id: str) -> list[JobRecord]:
        return self._jobs

    async def finish_job(self, *_: object) -> bool:
        return True

    async def restart_job(self, *_: object, **__: object) -> bool:
        return True

    async def end_waiting_job(self, *_: object) -> bool:
        return True


@pytest.fixture
def told() -> list[Told]:
    return []


def jobs_on(store: Store, told: list[Told]) -> ContextJobs:
    link = SimpleNamespace(
        listen=lambda take: None,
        tell=lambda kind, job_id, attempt, ended=False: told.append((kind, job_id, attempt, ended)),
        tell_soon=lambda kind, job_id, attempt, ended: told.append((kind, job_id, attempt, ended)),
    )
    return ContextJobs(
        SimpleNamespace(id="c", name="ctx"),  # type: ignore[arg-type]
        FENCE,
        link,  # type: ignore[arg-type]
        store,  # type: ignore[arg-type]
        JobWaiters(),
        SimpleNamespace(max_jobs=2),  # type: ignore[arg-type]
        binary_path=lambda ref: None,
        superseded=lambda why: None,
        job_ended=lambda job: None,
    )


async def test_of_a_job_that_ended_before_its_driver_heard_so(told: list[Told]) -> None:
    await jobs_on(Store(WAITS), told).recover(None, {"long gone": 4, "w": 2})
    assert told == [(Request.ACK, "long gone", 4, True)]


async def test_of_a_job_that_the_recovery_plan_ends(told: list[Told]) -> None:
    await jobs_on(Store(RUNNING), told).recover(None, {"j": 3})
    assert told == [(Request.ACK, "j", 3, True)]


async def test_of_a_job_that_is_killed_while_it_waits_for_its_next_attempt(
    told: list[Told],
) -> None:
    jobs = jobs_on(Store(WAITS), told)
    await jobs.recover(None, {"w": 2})
    assert told == []
    killed = await jobs.kill("w")
    assert killed is not None
    assert killed.state is JobState.KILLED
    assert told == [(Request.ACK, "w", 2, True)]


async def test_what_a_job_saved_stays_for_its_next_attempt_when_it_is_put_back(told: list[Told]) -> None:
    jobs = jobs_on(Store(RUNNING), told)
    await jobs.recover({AttemptRef("j", 3): None})
    await jobs.put_back("The context moved")
    assert told == [(Request.KILL, "j", 3, False)]
    told.clear()
    await jobs._outcomes.finish(AttemptOutcome("j", 3, OutcomeKind.KILLED))
    assert told == [(Request.ACK, "j", 3, False)]


async def test_what_a_job_saved_is_forgotten_when_its_end_meets_a_kill(told: list[Told]) -> None:
    class KilledMeanwhile(Store):
        async def finish_job(self, *_: object) -> bool:
            return False

        async def fence(self, context_id: str) -> Fence:
            return FENCE

        async def job(self, job_id: str) -> JobRecord:
            return replace(RUNNING, state=JobState.KILLED)

    jobs = jobs_on(KilledMeanwhile(RUNNING), told)
    await jobs.recover({AttemptRef("j", 3): None})
    await jobs._outcomes.finish(AttemptOutcome("j", 3, OutcomeKind.FINISHED, "7"))
    assert (Request.ACK, "j", 3, True) in told


async def test_what_a_job_saved_is_forgotten_with_the_end_of_its_last_attempt(told: list[Told]) -> None:
    jobs = jobs_on(Store(replace(RUNNING, attempt=4)), told)
    await jobs.recover({AttemptRef("j", 4): None, AttemptRef("j", 3): None})
    assert told == [(Request.KILL, "j", 3, False)]
    told.clear()
    await jobs._outcomes.finish(AttemptOutcome("j", 3, OutcomeKind.KILLED))
    await jobs._outcomes.finish(AttemptOutcome("j", 4, OutcomeKind.FINISHED, "7"))
    assert told == [(Request.ACK, "j", 3, False), (Request.ACK, "j", 4, True)]
