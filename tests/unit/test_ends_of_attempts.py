"""What ends of attempts come to where they meet something else: a lost driver, a refused move, a kill, an adoption."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from jobserver.contexts import job_writes
from jobserver.contexts.jobs import ContextJobs
from jobserver.contexts.waiters import JobWaiters, Until
from jobserver.errors import StoreUnavailable
from jobserver.model import (
    AttemptOutcome,
    AttemptRef,
    Fence,
    JobRecord,
    JobSpec,
    JobState,
    OutcomeKind,
)
from jobserver.protocol import Request

AT = datetime(2026, 1, 1, tzinfo=UTC)
FENCE = Fence("c", 1, "t")
RUNNING = JobRecord("j", "c", "ctx", JobSpec("m.C", ()), JobState.RUNNING, AT, attempt=1)
LIMIT = 10.0


class Store:
    """Rows of one context, changed as SQL would: a job that is not as expected is left alone."""

    def __init__(self, *jobs: JobRecord) -> None:
        self.rows = {job.id: job for job in jobs}
        self.away = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def unfinished_jobs(self, context_id: str) -> list[JobRecord]:
        return [job for job in self.rows.values() if not job.state.final]

    async def fence(self, context_id: str) -> Fence:
        return FENCE

    async def job(self, job_id: str) -> JobRecord | None:
        return self.rows.get(job_id)

    async def finish_job(self, _: Fence, outcome: AttemptOutcome, state: JobState, at: datetime) -> bool:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        job = self.rows[outcome.job_id]
        fits = job.attempt == outcome.attempt and not job.state.final
        if fits:
            self.rows[job.id] = replace(job, state=state, result=outcome.result, outcome=outcome.kind)
        await self.answers.wait()
        return fits

    async def restart_job(self, _: Fence, job_id: str, attempt: int, **__: object) -> bool:
        job = self.rows[job_id]
        fits = job.attempt == attempt and job.state is JobState.RUNNING
        if fits:
            self.rows[job_id] = replace(job, state=JobState.RESTARTING)
        return fits

    async def start_attempt(self, _: Fence, job_id: str, attempt: int, at: datetime) -> bool:
        job = self.rows[job_id]
        fits = job.attempt == attempt - 1 and job.state in (JobState.QUEUED, JobState.RESTARTING)
        if fits:
            self.rows[job_id] = replace(job, state=JobState.RUNNING, attempt=attempt)
        return fits


class Link:
    """Notes what the driver is told, and says yes."""

    def __init__(self) -> None:
        self.told: list[tuple[Request, str, int]] = []
        self.ended: list[tuple[int, bool]] = []

    def listen(self, take: object) -> None:
        return

    def tell(self, kind: Request, job_id: str, attempt: int, *, ended: bool | None = None) -> None:
        self.told.append((kind, job_id, attempt))
        if ended is not None:
            self.ended.append((attempt, ended))

    tell_soon = tell

    async def request(self, kind: Request, **fields: Any) -> dict[str, Any]:
        self.tell(kind, fields["job_id"], fields["attempt"])
        return {}


def jobs_on(store: Store, link: Link, waiters: JobWaiters, max_jobs: int = 2) -> ContextJobs:
    return ContextJobs(
        SimpleNamespace(id="c", name="ctx"),  # type: ignore[arg-type]
        FENCE,
        link,  # type: ignore[arg-type]
        store,  # type: ignore[arg-type]
        waiters,
        SimpleNamespace(max_jobs=max_jobs),  # type: ignore[arg-type]
        binary_path=lambda ref: None,
        superseded=lambda why: None,
        job_ended=lambda job: None,
    )


def finished(attempt: int, result: str) -> AttemptOutcome:
    return AttemptOutcome("j", attempt, OutcomeKind.FINISHED, result)


async def until(condition: Any) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0)


async def test_who_waits_hears_of_an_end_that_was_committed_for_an_owner_which_lost_its_driver_meanwhile() -> (
    None
):
    store, waiters = Store(RUNNING), JobWaiters()
    store.answers.clear()
    jobs = jobs_on(store, Link(), waiters)
    await jobs.recover({AttemptRef("j", 1): None})
    news = waiters.add("j", Until.ENDED)
    finishing = asyncio.create_task(jobs._outcomes.finish(finished(1, "7")))
    await until(lambda: store.rows["j"].state is JobState.FINISHED)
    jobs.close()
    finishing.cancel()
    following = jobs_on(store, Link(), waiters)
    await following.recover(None)
    following.open_gate()
    await following.sweep()
    assert news.done()
    assert news.result().job.result == "7"


async def test_an_end_that_is_written_after_its_job_was_put_back_and_began_again_leaves_that_alone(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(job_writes, "STORE_RETRY", 0.0)
    store, link, waiters = Store(RUNNING), Link(), JobWaiters()
    jobs = jobs_on(store, link, waiters)
    await jobs.recover({AttemptRef("j", 1): None})
    jobs.open_gate()
    store.away = 10**9
    finishing = asyncio.create_task(jobs._outcomes.finish(finished(1, "7")))
    await until(lambda: store.away < 10**9)
    jobs.pause()
    await jobs.put_back("The context moved")
    jobs.open_gate()  # the move was refused
    await until(lambda: store.rows["j"].attempt == 2)
    store.away = 0
    await finishing
    assert jobs.running == {"j"}, "the second attempt has its slot"
    assert (1, False) in link.ended, "what the job saved stays for the second attempt"
    await jobs._outcomes.finish(finished(2, "8"))
    assert (store.rows["j"].state, store.rows["j"].result) == (JobState.FINISHED, "8")
    assert jobs.running == frozenset()


async def test_a_kill_that_is_written_after_its_job_was_put_back_and_began_again_kills_that(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(job_writes, "STORE_RETRY", 0.0)
    store, link = Store(RUNNING), Link()
    jobs = jobs_on(store, link, JobWaiters())
    await jobs.recover({AttemptRef("j", 1): None})
    jobs.open_gate()
    store.away = 10**9
    killing = asyncio.create_task(jobs.kill("j"))
    await until(lambda: store.away < 10**9)
    jobs.pause()
    await jobs.put_back("The context moved")
    jobs.open_gate()
    await until(lambda: (Request.RUN, "j", 2) in link.told)
    store.away = 0
    killed = await killing
    assert killed is not None
    assert (killed.state, store.rows["j"].state) == (JobState.KILLED, JobState.KILLED)
    assert (Request.KILL, "j", 2) in link.told


async def test_an_adopted_driver_ends_attempts_that_were_put_back_and_keeps_what_their_jobs_saved() -> None:
    others = [replace(RUNNING, id=name, state=JobState.RESTARTING) for name in ("w", "x")]
    link = Link()
    jobs = jobs_on(Store(RUNNING, *others), link, JobWaiters())
    ended = AttemptOutcome("x", 1, OutcomeKind.KILLED)
    await jobs.recover({AttemptRef("j", 1): None, AttemptRef("w", 1): None, AttemptRef("x", 1): ended})
    assert link.told == [(Request.KILL, "w", 1), (Request.ACK, "x", 1)]
    assert link.ended == [(1, False)]


async def test_a_row_that_was_read_before_its_job_ended_is_no_job_in_the_queue() -> None:
    waiters = JobWaiters()
    store = Store(replace(RUNNING, state=JobState.FINISHED, result="7"))
    jobs = jobs_on(store, Link(), waiters)
    await jobs.recover({})
    news = waiters.add("j", Until.ENDED)
    await jobs.arrive(RUNNING)
    assert news.done()
    assert jobs._table.admission.waiting == 0
