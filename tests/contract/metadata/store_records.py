"""Records and first steps that the promises of the metadata store are tried with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jobserver.errors import JobServerError
from jobserver.model import (
    AttemptOutcome,
    BinaryRecord,
    BinaryRef,
    BinaryType,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    Fence,
    JobRecord,
    JobSpec,
    JobState,
    OutcomeKind,
)
from jobserver.store.metadata import Metadata
from tests.fakes.metadata import FakeMetadata

Store = Metadata | FakeMetadata

T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ALL_LIVING = [state for state in ContextState if not state.final]
DRIVER = DriverRecord("d1", "127.0.0.1", 4711, 99, 123456, "secret", 1, jvm_pid=100, ui_url="http://x:4040")
PROBLEM = ErrorInfo("it broke", "demo.Broken", "line 1\n\tline 2 \ud800")


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def a_context(context_id: str = "c1", name: str = "ctx", **fields: object) -> ContextRecord:
    record = ContextRecord(context_id, name, {"num-cpu-cores": "2"}, ContextState.STARTED, False, T0)
    return replace(record, **fields)  # type: ignore[arg-type]


def a_job(job_id: str = "j1", context_id: str = "c1", **fields: object) -> JobRecord:
    spec = JobSpec("demo.Job", (BinaryRef("demo", BinaryType.EGG, "d" * 64),))
    record = JobRecord(job_id, context_id, "ctx", spec, JobState.QUEUED, T0)
    return replace(record, **fields)  # type: ignore[arg-type]


def an_outcome(job_id: str = "j1", attempt: int = 1, result: str | None = '{"n":1}') -> AttemptOutcome:
    return AttemptOutcome(job_id, attempt, OutcomeKind.FINISHED, result)


def a_binary(name: str = "demo", digest: str = "d" * 64, at: datetime = T0) -> BinaryRecord:
    return BinaryRecord(name, BinaryType.EGG, digest, 1234, at)


async def owned(store: Store, record: ContextRecord | None = None) -> Fence:
    """A context of which somebody is the owner at epoch 1."""
    record = record or a_context()
    await store.create_context(record)
    assert await store.grant(record.id, 0, "s1", "i1", f"token-{record.id}")
    return Fence(record.id, 1, f"token-{record.id}")


async def running(store: Store, fence: Fence, job: JobRecord | None = None) -> JobRecord:
    """A job whose first attempt runs."""
    job = await store.insert_job(job or a_job(), queue_limit=100)
    assert await store.start_attempt(fence, job.id, 1, after(1))
    return job


async def end(store: Store, fence: Fence, state: ContextState = ContextState.KILLED) -> None:
    assert await store.move_context(fence, ALL_LIVING, state, at=after(50))


async def the_job(store: Store, job_id: str = "j1") -> JobRecord:
    job = await store.job(job_id)
    assert job is not None
    return job


async def state_of(store: Store, context_id: str = "c1") -> ContextState:
    record = await store.context(context_id)
    assert record is not None
    return record.state


async def outcome_of(call: Awaitable[JobRecord]) -> JobRecord | JobServerError:
    try:
        return await call
    except JobServerError as error:
        return error


GuardedWrite = Callable[[Store, Fence], Awaitable[bool]]

GUARDED_WRITES: dict[str, GuardedWrite] = {
    "move_context": lambda store, fence: store.move_context(
        fence, [ContextState.STARTED], ContextState.RUNNING, at=after(5)
    ),
    "record_driver": lambda store, fence: store.record_driver(fence, DRIVER),
    "record_failover": lambda store, fence: store.record_failover(fence, Failover(T0, "adopted", 0.2)),
    "start_attempt": lambda store, fence: store.start_attempt(fence, "waiting", 1, after(5)),
    "finish_job": lambda store, fence: store.finish_job(
        fence, an_outcome("running"), JobState.FINISHED, after(5)
    ),
    "restart_job": lambda store, fence: store.restart_job(
        fence, "running", 1, died=True, error=PROBLEM, at=after(5)
    ),
    "end_waiting_job": lambda store, fence: store.end_waiting_job(
        fence, "waiting", JobState.KILLED, PROBLEM, after(5)
    ),
}
