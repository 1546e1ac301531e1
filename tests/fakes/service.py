"""The service behind the API, in memory. Jobs are those of `tests/contract/contract_jobs.py`, run by name in no time.

Without faults it keeps every promise of the port. `script` makes the next calls of a method raise what a test wants, and
`FakeService.now` is the only clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobserver.addresses import is_address
from jobserver.contexts.launch_spec import launch_spec
from jobserver.contexts.looks import Look
from jobserver.data_files import check_prefix, file_name
from jobserver.errors import (
    BadRequest,
    BinaryInUse,
    ContextExists,
    ContextStopping,
    JobLoadingFailed,
    KeyReused,
    NotFound,
    QueueFull,
    TimedOut,
)
from jobserver.history import JobMove
from jobserver.job_events import EventId, JobEvent, events_after
from jobserver.listing import JobQuery
from jobserver.model import (
    BinaryRecord,
    BinaryRef,
    BinaryType,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    JobRecord,
    JobSpec,
    JobState,
    ListedJob,
    NamedObjectInfo,
    ObjectDeed,
    ObjectOrder,
    OnFailover,
    OutcomeKind,
    ResultFormat,
    listed,
)
from jobserver.progress import JobProgress
from jobserver.records import Records
from jobserver.service import ContextView, Gauge, Health, Submission, Submitted
from jobserver.stored_results import StoredResult, stored_result
from jobserver.watching import Output
from tests.fakes.database import FakeStore
from tests.fakes.metadata import FakeMetadata

_LIVING = (ContextState.STARTED, ContextState.RUNNING, ContextState.STOPPING, ContextState.RESTARTING)
_RAISED = ErrorInfo("this job fails", "RuntimeError", "Traceback\n\tRuntimeError: this job fails")
_VALIDATE_RAISED = ErrorInfo("this validate fails", "RuntimeError", "Traceback\n\tRuntimeError")
_INVALID = ErrorInfo("No input.string config param", "ValidationProblem")
_KILLED = ErrorInfo("Job was killed", "spark.jobserver.JobManagerActor$JobKilledException")


@dataclass
class FakeService:
    """See the module. `slots` bounds the running jobs of a context; `stop_slowly` makes deletes take longer than the wait."""

    slots: int = 8
    stop_slowly: bool = False
    trouble: str | None = None
    degraded: tuple[str, ...] = ()
    ends_meanwhile: Callable[[JobRecord], JobRecord] | None = None
    """How a job that somebody waits for ends during the wait; None: it does not."""
    waits: list[float] = field(default_factory=list)
    picture: dict[str, Any] = field(
        default_factory=lambda: {"leader": "server-1", "servers": [{"id": "server-1"}], "contexts": []}
    )
    now: datetime = datetime(2024, 5, 29, 12, 0, 0, 123_456, tzinfo=UTC)
    script: dict[str, deque[Exception]] = field(default_factory=lambda: defaultdict(deque))
    submissions: list[Submission] = field(default_factory=list)
    created_with: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    resets: list[bool] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    objects: dict[str, list[NamedObjectInfo]] = field(default_factory=dict)
    object_orders: list[ObjectOrder] = field(default_factory=list)
    histories: dict[str, list[JobMove]] = field(default_factory=dict)
    store: FakeStore = field(default_factory=FakeStore)

    progress: dict[str, JobProgress] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = Records(FakeMetadata(self.store, server="server-1"))
        self._binaries: dict[str, BinaryRecord] = {}
        self._contexts: list[ContextRecord] = []
        self._jobs: dict[str, JobRecord] = {}
        self._kinds: dict[str, OutcomeKind | None] = {}
        self._data: dict[str, bytes] = {}
        self._numbers = itertools.count(1)

    # what a test arranges

    def put_job(self, job: JobRecord) -> JobRecord:
        """A job in any state, as if it had come there."""
        self._jobs[job.id] = job
        return job

    def put_context(self, context: ContextRecord) -> ContextRecord:
        """A context in any state."""
        self._contexts.append(context)
        return context

    def _fault(self, method: str) -> None:
        if self.script[method]:
            raise self.script[method].popleft()

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers):04d}"

    # the port

    async def health(self) -> Health:
        self._fault("health")
        return Health(self.trouble, self.degraded)

    def gauges(self) -> list[Gauge]:
        running = sum(job.state is JobState.RUNNING for job in self._jobs.values())
        return [Gauge("jobs_running", "Jobs that run in contexts of this server.", running)]

    async def list_binaries(self) -> list[BinaryRecord]:
        self._fault("list_binaries")
        return list(self._binaries.values())

    async def binary(self, name: str) -> BinaryRecord:
        self._fault("binary")
        if name not in self._binaries:
            raise NotFound(f"Can't find binary with name {name}")
        return self._binaries[name]

    async def upload_binary(self, name: str, kind: BinaryType, data: bytes) -> BinaryRecord:
        self._fault("upload_binary")
        digest = hashlib.sha256(data).hexdigest()
        self._binaries[name] = BinaryRecord(name, kind, digest, len(data), self._tick())
        return self._binaries[name]

    async def delete_binary(self, name: str) -> None:
        self._fault("delete_binary")
        if name not in self._binaries:
            raise NotFound(f"can't find binary with name {name}")
        users = [
            job.id
            for job in self._jobs.values()
            if not job.state.final and name in {ref.name for ref in job.spec.binaries}
        ]
        if users:
            raise BinaryInUse(f"Binary is in use by job(s): {', '.join(users)}")
        del self._binaries[name]

    async def list_contexts(self) -> list[str]:
        self._fault("list_contexts")
        listed = (ContextState.RUNNING, ContextState.RESTARTING, ContextState.STOPPING)
        return [context.name for context in reversed(self._contexts) if context.state in listed]

    async def context(self, name: str) -> ContextView:
        self._fault("context")
        context = self._find(name)
        if context is None:
            raise NotFound(f"can't find context with name {name}")
        return ContextView(
            context, epoch=3, owner="server-1", standbys=({"server": "server-2", "kind": "hot"},)
        )

    def _find(self, name: str) -> ContextRecord | None:
        return next((context for context in reversed(self._contexts) if context.name == name), None)

    async def create_context(self, name: str, settings: Mapping[str, Any]) -> ContextRecord:
        self._fault("create_context")
        found = self._find(name)
        if found is not None and found.state in _LIVING:
            raise ContextExists(f"context {name} exists")
        launch_spec(settings, master="local[1]", driver_memory="1g", python="", conf={})
        self.created_with[name] = settings
        return self.put_context(self._new_context(name, adhoc=False))

    def _new_context(self, name: str, *, adhoc: bool) -> ContextRecord:
        driver = DriverRecord(
            "d", "127.0.0.1", 1, 1, 1, "s", 3, application_id="local-1337", ui_url="http://127.0.0.1:4040"
        )
        return ContextRecord(
            id=self._id("context"),
            name=name,
            settings={},
            state=ContextState.RUNNING,
            adhoc=adhoc,
            started_at=self._tick(),
            driver=driver,
        )

    async def delete_context(self, name: str, *, force: bool, keep: bool = False) -> bool:
        self._fault("delete_context")
        self.kept += [name] if keep else []
        context = self._find(name)
        if context is None or context.state not in _LIVING:
            raise NotFound(f"context {name} not found")
        self._contexts.remove(context)
        if self.stop_slowly:
            self.put_context(replace(context, state=ContextState.STOPPING))
            return False
        self.put_context(replace(context, state=ContextState.FINISHED, ended_at=self._tick()))
        return True

    async def reset_contexts(self, *, wait: bool) -> None:
        self._fault("reset_contexts")
        self.resets.append(wait)
        for name in await self.list_contexts():
            await self.delete_context(name, force=False)

    async def named_objects(self, name: str) -> list[NamedObjectInfo]:
        self._fault("named_objects")
        context = self._find(name)
        if context is None or context.state.final:
            raise NotFound(f"context {name} not found")
        return self.objects.get(name, [])

    async def named_object(self, name: str, order: ObjectOrder) -> NamedObjectInfo | None:
        self._fault("named_object")
        found = next((item for item in await self.named_objects(name) if item.name == order.name), None)
        if found is None:
            raise NotFound(f"there is no named object {order.name!r} in this context")
        self.object_orders.append(order)
        if order.deed is ObjectDeed.DESTROY:
            self.objects[name].remove(found)
            return None
        return found

    async def submit(self, submission: Submission) -> Submitted:
        self._fault("submit")
        self.submissions.append(submission)
        known = self._repeated(submission)
        if known is not None:
            return self._outcome(known, submission)
        refs = tuple(self._ref(name) for name in submission.binaries)
        job = self._accept(submission, refs, self._context_for(submission))
        return self._outcome(job, submission)

    def _repeated(self, submission: Submission) -> JobRecord | None:
        key = submission.idempotency_key
        if key is None:
            return None
        for job in self._jobs.values():
            if (job.principal, job.idempotency_key) == (submission.principal, key):
                if job.request_digest != submission.request_digest:
                    raise KeyReused(f"the Idempotency-Key {key} was used for another request")
                return job
        return None

    def _ref(self, name: str) -> BinaryRef:
        if is_address(name):
            raise JobLoadingFailed(f"the code at {name} cannot be loaded: nothing can")
        if name not in self._binaries:
            raise NotFound(f"appName {name} not found")
        found = self._binaries[name]
        return BinaryRef(found.name, found.type, found.digest)

    def _context_for(self, submission: Submission) -> ContextRecord:
        name = submission.context
        if name is None:
            name = submission.own_context(self._id("adhoc"))
            self.created_with[name] = submission.own_settings
            return self._new_context(name, adhoc=True)
        context = self._find(name)
        if context is None or context.state.final:
            raise NotFound(f"context {name} not found")
        if context.state is ContextState.STOPPING:
            raise ContextStopping("Context stop in progress")
        running = [job for job in self._jobs.values() if job.context_id == context.id and not job.state.final]
        if len(running) >= self.slots:
            raise QueueFull(f"Too many running jobs ({self.slots}) for job context '{name}'")
        return context

    def _accept(
        self, submission: Submission, refs: tuple[BinaryRef, ...], context: ContextRecord
    ) -> JobRecord:
        job = JobRecord(
            id=self._id("job"),
            context_id=context.id,
            context_name=context.name,
            spec=JobSpec(
                submission.main_class,
                refs,
                json.dumps(submission.config),
                submission.max_attempts,
                OnFailover(submission.on_failover),
                submission.priority,
                result_format=submission.result_format,
            ),
            state=JobState.RUNNING,
            submitted_at=self._tick(),
            started_at=self.now,
            attempt=1,
            principal=submission.principal,
            idempotency_key=submission.idempotency_key,
            request_digest=submission.request_digest,
        )
        job, kind = self._ran(job, submission)
        self._kinds[job.id] = kind
        return self.put_job(job)

    def _ran(self, job: JobRecord, submission: Submission) -> tuple[JobRecord, OutcomeKind | None]:
        def ended(state: JobState, *, result: str | None = None, error: ErrorInfo | None = None) -> JobRecord:
            return replace(job, state=state, result=result, error=error, ended_at=self._tick())

        match submission.main_class.rpartition(".")[2]:
            case "WordCount":
                words = submission.config.get("input")
                if not isinstance(words, dict) or "string" not in words:
                    return ended(JobState.ERROR, error=_INVALID), OutcomeKind.INVALID
                result = json.dumps(Counter(str(words["string"]).split()))
                return ended(JobState.FINISHED, result=result), OutcomeKind.FINISHED
            case "sql":
                return ended(
                    JobState.FINISHED, result=self._rows(submission.result_format)
                ), OutcomeKind.FINISHED
            case "Nothing":
                return ended(JobState.FINISHED, result="null"), OutcomeKind.FINISHED
            case "Failing":
                kind = OutcomeKind.FAILED if submission.sync else None
                return ended(JobState.ERROR, error=_RAISED), kind
            case "FailingValidate":
                return ended(JobState.ERROR, error=_VALIDATE_RAISED), OutcomeKind.FAILED
            case "Sleeping":
                return job, None
            case _:
                error = ErrorInfo(f"{submission.main_class} is not there")
                return ended(JobState.ERROR, error=error), OutcomeKind.NOT_FOUND

    def _rows(self, form: ResultFormat) -> str:
        """The result of any query: the same rows, or bytes that stand for them."""
        if form is ResultFormat.JSON:
            return '{"schema":[{"name":"[n]","type":"int"}],"rows":[[1]],"truncated":true}'
        stored = StoredResult(4, form.value.ljust(64, "0").encode().hex()[:64], form, '{"rowCount":1}')
        self.stored[stored.digest] = b"ROWS"
        return stored.reference

    def _outcome(self, job: JobRecord, submission: Submission) -> Submitted:
        if submission.sync and not job.state.final:
            raise TimedOut(f"job {job.id} has not ended in {submission.wait_seconds:g} s", job.id)
        kind = self._kinds[job.id]
        return Submitted(job, None if kind in (None, OutcomeKind.FINISHED) else kind.value)

    async def find_jobs(self, query: JobQuery) -> list[ListedJob]:
        self._fault("find_jobs")
        jobs = [job for job in self._jobs.values() if query.takes(job)]
        jobs.sort(key=lambda job: (job.submitted_at, job.id), reverse=True)
        return [listed(job) for job in jobs[query.offset : query.offset + query.limit]]

    async def job_history(self, job_id: str) -> list[JobMove]:
        self._fault("job_history")
        await self.job(job_id)
        return self.histories.get(job_id, [])

    async def kill_jobs(self, context: str) -> list[str]:
        self._fault("kill_jobs")
        found = self._find(context)
        if found is None or found.state.final:
            raise NotFound(f"context {context} not found")
        mine = [job.id for job in self._jobs.values() if job.context_id == found.id and not job.state.final]
        for job_id in mine:
            await self.kill_job(job_id)
        return mine

    async def job(self, job_id: str) -> JobRecord:
        self._fault("job")
        await asyncio.sleep(0)
        if job_id not in self._jobs:
            raise NotFound(f"No such job ID {job_id}")
        return self._jobs[job_id]

    async def await_job(self, job_id: str, seconds: float) -> JobRecord:
        self._fault("await_job")
        self.waits.append(seconds)
        job = await self.job(job_id)
        if job.state.final or self.ends_meanwhile is None:
            return job
        return self.put_job(self.ends_meanwhile(job))

    async def job_progress(self, job_id: str) -> Look:
        self._fault("job_progress")
        return Look(await self.job(job_id), self.progress.get(job_id))

    async def job_events(self, job_id: str, last: EventId | None) -> AsyncGenerator[JobEvent | None, None]:
        self._fault("job_events")
        job = await self.job(job_id)
        for event in events_after(last, self.histories.get(job_id, []), job, self.progress.get(job_id)):
            yield event
        yield None

    async def job_output(self, job_id: str) -> Output:
        self._fault("job_output")
        await self.job(job_id)
        written = self.outputs.get(job_id, b"")

        async def read(start: int, end: int) -> AsyncGenerator[bytes, None]:
            yield written[start:end]

        return Output(len(written), read)

    async def job_result(self, job: JobRecord) -> Output:
        self._fault("job_result")
        if job.result is None:
            raise NotFound(f"job {job.id} has no result: it is {job.state.value}")
        stored = stored_result(job.result)
        if stored is not None and stored.digest not in self.stored:
            raise NotFound(f"the result of job {job.id} was removed")
        whole = job.result.encode() if stored is None else self.stored[stored.digest]

        async def read(start: int, end: int) -> AsyncGenerator[bytes, None]:
            for at in range(start, end, 1000):
                yield whole[at : min(at + 1000, end)]

        return Output(len(whole), read)

    async def kill_job(self, job_id: str) -> JobRecord:
        self._fault("kill_job")
        job = await self.job(job_id)
        if job.state in (JobState.FINISHED, JobState.KILLED):
            raise NotFound(f"No running job with ID {job_id}")
        if job.state is JobState.ERROR:
            return job
        return self.put_job(replace(job, state=JobState.KILLED, error=_KILLED, ended_at=self._tick()))

    async def list_data(self) -> list[str]:
        self._fault("list_data")
        return sorted(self._data)

    async def upload_data(self, prefix: str, data: bytes) -> str:
        self._fault("upload_data")
        path = f"/store/data/{file_name(check_prefix(prefix), self._tick(), UTC)}"
        self._data[path] = data
        return path

    async def delete_data(self, path: str) -> None:
        self._fault("delete_data")
        if path not in self._data:
            raise BadRequest(f"Unable to delete data file '{path}'.")
        del self._data[path]

    async def reset_data(self) -> None:
        self._fault("reset_data")
        self._data.clear()

    async def switchover(
        self, name: str, to: str | None, grace: float | None, *, keep_driver: bool
    ) -> dict[str, Any]:
        self._fault("switchover")
        if self._find(name) is None:
            raise NotFound(f"context {name} not found")
        return {"context": name, "from": "s1", "to": to or "s2", "epoch": 2, "seconds": grace or 0.0}

    async def drain(self, server: str, grace: float | None, *, keep_drivers: bool) -> None:
        if server != "s1":
            raise NotFound(f"there is no server {server}; the servers are s1")

    async def undrain(self, server: str) -> None:
        await self.drain(server, None, keep_drivers=False)

    async def cluster(self) -> dict[str, Any]:
        self._fault("cluster")
        return self.picture
