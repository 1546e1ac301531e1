"""What the REST API asks of the rest of a server: one port, implemented by `jobserver/server.py` (real) and by a fake in tests.

Every method raises the errors of `jobserver/errors.py`; none returns an HTTP answer. `api` turns both into the dialect of
existing clients.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jobserver.contexts.looks import Look
from jobserver.history import JobMove
from jobserver.job_events import EventId, JobEvent
from jobserver.listing import JobQuery
from jobserver.model import (
    BinaryRecord,
    BinaryType,
    ContextRecord,
    JobRecord,
    ListedJob,
    NamedObjectInfo,
    ObjectOrder,
    Pool,
    ResultFormat,
    SqlQuery,
)
from jobserver.proxy_users import belonging_to, with_proxy_user
from jobserver.records import Records
from jobserver.watching import Output

LONGEST_NAME = 255
"""Characters of a stored context's name."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One POST /jobs, parsed. `binaries` are uploaded names; `context` None means an ad-hoc one, for `proxy_user`.

    With `sql` there are no binaries. `config` is the resolved posted configuration. `time_limit`: seconds for one attempt.
    `wait_seconds` bounds the wait for acceptance (async) or for the end (sync).
    """

    main_class: str
    binaries: tuple[str, ...]
    config: Mapping[str, Any]
    context: str | None
    sync: bool
    wait_seconds: float
    max_attempts: int = 3
    on_failover: str = "rerun"
    priority: int = 0
    pool: Pool = Pool.INTERACTIVE
    time_limit: float | None = None
    sql: SqlQuery | None = None
    result_format: ResultFormat = ResultFormat.JSON
    callback_url: str | None = None
    principal: str = "anonymous"
    idempotency_key: str | None = None
    request_digest: str | None = None
    proxy_user: str | None = None

    @property
    def own_settings(self) -> dict[str, Any]:
        """Settings of the ad-hoc context: `spark.context-settings` of the configuration, for this proxy user."""
        return with_proxy_user(context_settings(self.config), self.proxy_user)

    def own_context(self, context_id: str) -> str:
        """The name of the ad-hoc context."""
        name = f"{context_id}-{self.main_class}"
        return (name if self.proxy_user is None else belonging_to(self.proxy_user, name))[:LONGEST_NAME]


def context_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`spark.context-settings` of a posted configuration."""
    spark = config.get("spark")
    settings = spark.get("context-settings") if isinstance(spark, Mapping) else None
    return settings if isinstance(settings, Mapping) else {}


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job as committed when the wait ended: async after acceptance (or its immediate failure), sync after its end.

    `outcome_kind` tells why a job ended early (`invalid`, `not_found`, ...: values of OutcomeKind) or is None.
    """

    job: JobRecord
    outcome_kind: str | None = None


@dataclass(frozen=True, slots=True)
class ContextView:
    """A context with what only its owner and the coordination know. `data`: its named objects as a whole, if known."""

    record: ContextRecord
    epoch: int
    owner: str | None
    standbys: tuple[Mapping[str, Any], ...] = ()
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How well a server is. `down`: it cannot serve, one sentence; `degraded`: it serves, but for what each sentence says."""

    down: str | None = None
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number of this moment. `name` is snake_case."""

    name: str
    meaning: str
    value: float


class Service(Protocol):
    """The product behind the API. Times out and fails as `errors.py` says."""

    @property
    def records(self) -> Records:
        """Saved configs, and the audit."""

    async def health(self) -> Health:
        """Whether this server can serve, looked up now; answers within a few seconds."""

    def gauges(self) -> list[Gauge]:
        """What this server holds at this moment. Asks nobody."""

    async def list_binaries(self) -> list[BinaryRecord]:
        """The latest version of each name."""

    async def binary(self, name: str) -> BinaryRecord:
        """Latest version. Raises NotFound."""

    async def upload_binary(self, name: str, kind: BinaryType, data: bytes) -> BinaryRecord:
        """Stores bytes, then the record. Raises BadBinary, Unavailable."""

    async def delete_binary(self, name: str) -> None:
        """Deletes all versions of a name. Raises NotFound, BinaryInUse."""

    async def list_contexts(self) -> list[str]:
        """Names in RUNNING, RESTARTING or STOPPING, newest first."""

    async def context(self, name: str) -> ContextView:
        """The most recent context of that name, ended or not. Raises NotFound."""

    async def create_context(self, name: str, settings: Mapping[str, Any]) -> ContextRecord:
        """Returns when it runs. Raises BadRequest, ContextExists, ContextInitFailed, TimedOut, Unavailable."""

    async def delete_context(self, name: str, *, force: bool, keep: bool) -> bool:
        """True when stopped, False when still stopping at the end of the wait. Its checkpoint goes unless `keep`.

        Raises NotFound, StoreUnavailable.
        """

    async def reset_contexts(self, *, wait: bool) -> None:
        """Stops every context and starts the configured ones again."""

    async def named_objects(self, name: str) -> list[NamedObjectInfo]:
        """The named objects of a running context. Raises NotFound, Unavailable."""

    async def named_object(self, name: str, order: ObjectOrder) -> NamedObjectInfo | None:
        """Shows or changes one named object of a context; None once it is destroyed.

        Raises NotFound (context, object), ObjectRefused, Unavailable.
        """

    async def submit(self, submission: Submission) -> Submitted:
        """Accepts, starts and waits as asked.

        Raises NotFound (binary, context), ContextStopping, QueueFull, KeyReused, TimedOut (with the job's id), Unavailable.
        """

    async def find_jobs(self, query: JobQuery) -> list[ListedJob]:
        """Newest first, without results."""

    async def job_history(self, job_id: str) -> list[JobMove]:
        """The states that the job came to, in the order of its life. Raises NotFound."""

    async def kill_jobs(self, context: str) -> list[str]:
        """Kills every job of the context that has not ended; their ids. Raises NotFound, Unavailable (repeat it)."""

    async def job(self, job_id: str) -> JobRecord:
        """With its result. Raises NotFound."""

    async def await_job(self, job_id: str, seconds: float) -> JobRecord:
        """With its result, once it has ended, or as it is when the time is over. Raises NotFound."""

    async def job_progress(self, job_id: str) -> Look:
        """The job, and the progress of its running attempt. Raises NotFound."""

    def job_events(self, job_id: str, last: EventId | None) -> AsyncGenerator[JobEvent | None, None]:
        """What happened behind `last` and happens until the job has ended; None now and then. Raises NotFound at first."""

    async def job_output(self, job_id: str) -> Output:
        """What the job has written to stdout, stderr and its log until now. Raises NotFound, Unavailable."""

    async def job_result(self, job: JobRecord) -> Output:
        """The JSON of a finished job's result. Raises NotFound when there is none, Unavailable."""

    async def kill_job(self, job_id: str) -> JobRecord:
        """The job after the kill; a job already in ERROR is returned as it is.

        Raises NotFound with the contract's two texts (unknown id; not running any more), Unavailable.
        """

    async def list_data(self) -> list[str]:
        """The path of each data file, as jobs open it."""

    async def upload_data(self, prefix: str, data: bytes) -> str:
        """The path of the new file, once it is durable. Raises BadRequest, Unavailable."""

    async def delete_data(self, path: str) -> None:
        """Raises BadRequest when the path is none of the listed ones."""

    async def reset_data(self) -> None:
        """Deletes every data file."""

    async def switchover(
        self, name: str, to: str | None, grace: float | None, *, keep_driver: bool
    ) -> dict[str, Any]:
        """Moves a context on purpose; returns when its gate is open there. Raises NotFound, MoveRefused, Unavailable."""

    async def drain(self, server: str, grace: float | None, *, keep_drivers: bool) -> None:
        """Has a server give all its contexts away; returns when it has begun. Raises NotFound, Unavailable."""

    async def undrain(self, server: str) -> None:
        """Has a server take contexts again. Raises NotFound, Unavailable."""

    async def cluster(self) -> dict[str, Any]:
        """The picture of `GET /cluster`."""
