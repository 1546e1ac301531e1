"""The values that travel between the parts: binaries, contexts, fences, drivers and jobs.

Owns no rule and does no I/O. Times are aware datetimes in UTC. Ids are UUID texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class BinaryType(StrEnum):
    """Kinds of uploaded code; the value is the name clients see (rest_contract section 3)."""

    JAR = "Jar"
    EGG = "Egg"
    WHEEL = "Wheel"
    ZIP = "Zip"
    PYTHON = "Python"

    @property
    def extension(self) -> str:
        """File name ending, with its dot."""
        return _EXTENSIONS[self]


_EXTENSIONS = {
    BinaryType.JAR: ".jar",
    BinaryType.EGG: ".egg",
    BinaryType.WHEEL: ".whl",
    BinaryType.ZIP: ".zip",
    BinaryType.PYTHON: ".py",
}


class JobState(StrEnum):
    """States of a job; `jobserver/lifecycle.py` holds the table of moves."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RESTARTING = "RESTARTING"
    FINISHED = "FINISHED"
    ERROR = "ERROR"
    KILLED = "KILLED"

    @property
    def final(self) -> bool:
        return self in _FINAL_JOB_STATES


_FINAL_JOB_STATES = (JobState.FINISHED, JobState.ERROR, JobState.KILLED)


class ContextState(StrEnum):
    """States of a context; `jobserver/lifecycle.py` holds the table of moves."""

    STARTED = "STARTED"
    RUNNING = "RUNNING"
    RESTARTING = "RESTARTING"
    STOPPING = "STOPPING"
    FINISHED = "FINISHED"
    ERROR = "ERROR"
    KILLED = "KILLED"

    @property
    def final(self) -> bool:
        return self in _FINAL_CONTEXT_STATES


_FINAL_CONTEXT_STATES = (ContextState.FINISHED, ContextState.ERROR, ContextState.KILLED)


class OutcomeKind(StrEnum):
    """How an attempt ended in the driver."""

    FINISHED = "finished"
    FAILED = "failed"  # run_job or validate raised
    INVALID = "invalid"  # validate returned problems
    NOT_FOUND = "not_found"  # the main class is not in the binaries
    LOADING_FAILED = "loading_failed"  # found, but import or construction raised
    WRONG_TYPE = "wrong_type"  # this kind of binary cannot run here
    KILLED = "killed"


class OnFailover(StrEnum):
    """What becomes of a started job whose driver died."""

    RERUN = "rerun"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class BinaryRecord:
    """One uploaded version of a named binary. `digest` is the SHA-256 (hex) of its bytes."""

    name: str
    type: BinaryType
    digest: str
    size: int
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class BinaryRef:
    """The version of a binary that a job was accepted with."""

    name: str
    type: BinaryType
    digest: str


@dataclass(frozen=True, slots=True)
class NamedContext:
    """A living context as far as a submission needs to know it."""

    id: str
    name: str
    state: ContextState
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class References:
    """What the names in a submission stand for: the latest versions, in the order asked for, and the living context."""

    binaries: tuple[BinaryRef | None, ...]
    context: NamedContext | None


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as clients see it in `result`: message, class name and stack as one text."""

    message: str
    error_class: str = ""
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write for a context: its epoch and the token granted with it."""

    context_id: str
    epoch: int
    token: str


@dataclass(frozen=True, slots=True)
class FenceRow:
    """The fence as SQL holds it. Epoch 0 with an empty owner means: never granted."""

    context_id: str
    epoch: int
    owner: str
    incarnation: str
    token: str


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """Where the driver of a context is, and how to tell it from a later process with its pid.

    `pid_started` is the process's start time as the kernel counts it (clock ticks since boot);
    `epoch` is the epoch under which this driver was last confirmed.
    """

    driver_id: str
    host: str
    port: int
    pid: int
    pid_started: int
    secret: str
    epoch: int
    jvm_pid: int | None = None
    application_id: str | None = None
    ui_url: str | None = None


@dataclass(frozen=True, slots=True)
class Failover:
    """The last unplanned or planned change of owner or driver of a context.

    `damage` says in sentences what of its checkpoint was found damaged then, and what that cost.
    """

    at: datetime
    kind: str  # adopted | restored-hot | restored-warm | restored-cold, or moved-… when it was asked for
    seconds: float
    damage: tuple[str, ...] = ()
    steps: Mapping[str, float] = field(default_factory=dict)  # of these seconds, by phase of the takeover


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A context as SQL holds it."""

    id: str
    name: str
    settings: dict[str, Any]
    state: ContextState
    adhoc: bool
    started_at: datetime
    ended_at: datetime | None = None
    error: ErrorInfo | None = None
    driver: DriverRecord | None = None
    last_failover: Failover | None = None


class Pool(StrEnum):
    """The fair scheduler's fixed pools; a job's Spark work runs in one of them."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    BACKGROUND = "background"


class ResultFormat(StrEnum):
    """How the rows of a DataFrame that is a job's result are kept."""

    JSON = "json"
    ARROW = "arrow"
    PARQUET = "parquet"

    @property
    def media_type(self) -> str:
        """As `Accept` and `Content-Type` name it."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    ResultFormat.JSON: "application/json",
    ResultFormat.ARROW: "application/vnd.apache.arrow.stream",
    ResultFormat.PARQUET: "application/vnd.apache.parquet",
}


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """An SQL job: its text, the values of its parameters (JSON: an object by name, or an array by position), and how
    many rows its result holds at most."""

    text: str
    args: str = "{}"
    limit: int = 10_000


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run: `sql`, or else `main_class` of `binaries`. `config` is the posted configuration as JSON text
    (resolved HOCON). `time_limit`: seconds that one attempt may take. `result_format`: of a result that is a DataFrame."""

    main_class: str
    binaries: tuple[BinaryRef, ...]
    config: str = "{}"
    max_attempts: int = 3
    on_failover: OnFailover = OnFailover.RERUN
    priority: int = 0
    pool: Pool = Pool.INTERACTIVE
    time_limit: float | None = None
    sql: SqlQuery | None = None
    result_format: ResultFormat = ResultFormat.JSON


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as SQL holds it.

    `attempt` counts executions (0 before the first); `deaths` counts those in which the driver died.
    `changed_at`: when it came to its state, where it was read from SQL. `result` is JSON text (or a reference, see
    `stored_results`), only read where a single job is asked for.
    """

    id: str
    context_id: str
    context_name: str
    spec: JobSpec
    state: JobState
    submitted_at: datetime
    attempt: int = 0
    deaths: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: ErrorInfo | None = None
    result: str | None = None
    principal: str = "anonymous"
    idempotency_key: str | None = None
    request_digest: str | None = None
    outcome: OutcomeKind | None = None
    changed_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ListedJob:
    """What a list shows of a job; a list has many, and most of a record is not shown."""

    id: str
    context_id: str
    context_name: str
    main_class: str
    state: JobState
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: ErrorInfo | None = None


def listed(job: JobRecord) -> ListedJob:
    """The job as a list shows it."""
    return ListedJob(
        job.id,
        job.context_id,
        job.context_name,
        job.spec.main_class,
        job.state,
        job.submitted_at,
        job.started_at,
        job.ended_at,
        job.error,
    )


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """One execution of a job."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What the driver reports at the end of an attempt. `result` is JSON text when FINISHED."""

    job_id: str
    attempt: int
    kind: OutcomeKind
    result: str | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class NamedObjectInfo:
    """A named object as the API shows it."""

    name: str
    kind: str
    version: str
    details: dict[str, Any] = field(default_factory=dict)


class ObjectDeed(StrEnum):
    """What can be asked of one named object."""

    SHOW = "show"
    DESTROY = "destroy"
    REFRESH = "refresh"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class ObjectOrder:
    """One request about one named object.

    `seconds`: how long to wait for a refresh, which goes on behind it; `version`: the one that a revert goes back to.
    """

    name: str
    deed: ObjectDeed = ObjectDeed.SHOW
    seconds: float = 10.0
    version: str = ""
