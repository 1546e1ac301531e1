"""Runs attempts: load, validate, run, result; and turns every way in which they can end into one outcome."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pyhocon import ConfigFactory

from jobserver.driver import forks
from jobserver.driver.attempts import Attempts
from jobserver.driver.jobthreads import JobThreads, Killed, RunningAttempt
from jobserver.driver.killing import Killer
from jobserver.driver.loading import DriverBinary, JobLoader, LoadedJob, LoadRefused, error_info
from jobserver.driver.results import UnusableResult, to_json
from jobserver.model import AttemptOutcome, AttemptRef, BinaryType, ErrorInfo, OutcomeKind
from jobserver.protocol import Message, ProtocolError
from sparkjobserver.api import JobEnvironment


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A `run` request."""

    ref: AttemptRef
    main_class: str
    binaries: tuple[DriverBinary, ...]
    config: str
    interactive: bool


class Workplace(Protocol):
    """What the runner needs of the rest of the driver."""

    def session(self, attempt: RunningAttempt) -> Any:
        """The job's own Spark session."""

    def environment(self, attempt: RunningAttempt) -> JobEnvironment:
        """What the job may know and share."""

    def spark_ended(self) -> bool:
        """Whether Spark has ended under the running jobs; this driver then ends, too."""

    def accepted(self, ref: AttemptRef) -> None:
        """Tell the owner that the code was loaded and `validate` passed."""

    def finished(self, outcome: AttemptOutcome) -> None:
        """Tell the owner how it ended."""

    def left(self, attempt: RunningAttempt) -> None:
        """The attempt uses nothing any more."""


def run_order(message: Message) -> RunOrder:
    """The order in a `run` request. Raises ProtocolError."""
    try:
        binaries = tuple(
            DriverBinary(item["name"], BinaryType(item["type"]), item["digest"], Path(item["path"]))
            for item in message["binaries"]
        )
        return RunOrder(
            attempt_ref(message),
            message["main_class"],
            binaries,
            message["config"],
            bool(message.get("interactive")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a run request lacks or misnames a field: {error!r}") from error


def attempt_ref(message: Message) -> AttemptRef:
    """Job and attempt that a request names. Raises ProtocolError."""
    job_id, number = message.get("job_id"), message.get("attempt")
    if not isinstance(job_id, str) or not isinstance(number, int) or number < 1:
        raise ProtocolError("a request names no job_id and attempt")
    return AttemptRef(job_id, number)


def config_tree(plain: Mapping[str, Any]) -> Any:
    """A configuration in which `get("a.b")` works."""
    return ConfigFactory.from_dict(plain)


class Runner:
    """Starts and kills attempts. `prefix` makes the job groups of this driver unique."""

    def __init__(
        self, loader: JobLoader, attempts: Attempts, killer: Killer, workplace: Workplace, prefix: str
    ) -> None:
        self._loader = loader
        self._attempts = attempts
        self._killer = killer
        self._place = workplace
        self._prefix = prefix
        self._threads = JobThreads()
        self._running: dict[AttemptRef, RunningAttempt] = {}

    @property
    def running(self) -> list[RunningAttempt]:
        return list(self._running.values())

    def start(self, order: RunOrder) -> None:
        """Begin an attempt and return at once. Raises AttemptRefused."""
        self._attempts.begin(order.ref)
        group = f"{self._prefix}-{order.ref.job_id}-{order.ref.attempt}"
        attempt = RunningAttempt(order.ref, group, "interactive" if order.interactive else "batch", [group])
        self._running[order.ref] = attempt
        self._threads.start(attempt, lambda: self._work(attempt, order))

    def kill(self, ref: AttemptRef) -> bool:
        """Begin to kill an attempt; False if it does not run (any more)."""
        attempt = self._running.get(ref)
        if attempt is None:
            return False
        error = ErrorInfo("the job was killed")
        outcome = AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.KILLED, error=error)
        return self._killer.kill(attempt, lambda: self._end(attempt, outcome))

    def _work(self, attempt: RunningAttempt, order: RunOrder) -> None:
        """Runs in a job thread."""
        try:
            outcome = self._outcome(attempt, order)
            if forks.in_child():
                forks.leave()
            if outcome.kind is not OutcomeKind.FINISHED and self._place.spark_ended():
                return  # not the job's failure: it counts as running until this driver has ended, and runs again
            if attempt.claim("job"):
                self._end(attempt, outcome)
        except Killed:
            # raised by a killer alone, after it has claimed the fate: it reports, and this thread ends
            return

    def _end(self, attempt: RunningAttempt, outcome: AttemptOutcome) -> None:
        self._running.pop(attempt.ref, None)
        attempt.session = None
        self._place.left(attempt)
        if self._attempts.end(outcome):
            self._place.finished(outcome)

    def _outcome(self, attempt: RunningAttempt, order: RunOrder) -> AttemptOutcome:
        ref = order.ref
        try:
            loaded = self._loader.load(order.main_class, order.binaries)
            return self._run(attempt, loaded, order)
        except LoadRefused as refused:
            return AttemptOutcome(ref.job_id, ref.attempt, refused.kind, error=refused.error)
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001
            # a job may raise anything, SystemExit and KeyboardInterrupt included; it must end as its outcome
            return _failed(ref, error)

    def _run(self, attempt: RunningAttempt, loaded: LoadedJob, order: RunOrder) -> AttemptOutcome:
        ref = order.ref
        config = config_tree(json.loads(order.config))
        attempt.session = session = self._place.session(attempt)
        env = self._place.environment(attempt)
        if loaded.is_function:
            self._place.accepted(ref)
            value = loaded.target(session, env, config)
        else:
            job = _constructed(loaded.target)
            data = job.validate(session, env, config) if hasattr(job, "validate") else config
            if problems := problems_in(data):
                error = ErrorInfo("; ".join(problems), "ValidationProblem")
                return AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.INVALID, error=error)
            self._place.accepted(ref)
            value = job.run_job(session, env, data)
        return AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.FINISHED, result=to_json(value))


def problems_in(data: Any) -> list[str]:
    """The texts if `validate` answered problems. By shape, since a bundle may bring its own copy of the API."""
    items = data if isinstance(data, (list, tuple)) else [data]
    if not items or type(items[0]).__name__ != "ValidationProblem":
        return []
    return [str(getattr(item, "problem", item)) for item in items]


def _constructed(target: Callable[..., Any]) -> Any:
    try:
        return target()
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        # the author's constructor may raise anything; a kill is none of these and passes
        info = error_info(error)
        message = (
            f"constructing {getattr(target, '__name__', target)} failed: {info.error_class}: {info.message}"
        )
        raise LoadRefused(OutcomeKind.LOADING_FAILED, message, info.error_class, info.stack) from error


def _failed(ref: AttemptRef, error: BaseException) -> AttemptOutcome:
    info = error_info(error)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        message = f"the job raised {info.error_class} ({info.message}): it ended itself instead of returning a result"
        info = ErrorInfo(message, info.error_class, info.stack)
    if isinstance(error, UnusableResult):
        info = ErrorInfo(str(error), type(error).__name__)
    return AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.FAILED, error=info)
