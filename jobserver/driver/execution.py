"""Runs attempts: load, validate, run, result; and turns every way in which they can end into one outcome."""

from __future__ import annotations

import threading
from typing import Protocol

from jobserver.driver import forks
from jobserver.driver.attempts import Attempts
from jobserver.driver.frames import Produced
from jobserver.driver.jobthreads import JobThreads, Killed, RunningAttempt
from jobserver.driver.jvm_jobs import JobFailed
from jobserver.driver.killing import Killer
from jobserver.driver.kinds import RunnableJob, RunOrder
from jobserver.driver.loading import LoadRefused, error_info
from jobserver.driver.results import UnusableResult
from jobserver.model import AttemptOutcome, AttemptRef, ErrorInfo, OutcomeKind


class Workplace(Protocol):
    """What the runner needs of the rest of the driver."""

    def begun(self, attempt: RunningAttempt) -> None:
        """An attempt begins: give it a place for its output and its progress."""

    def job(self, attempt: RunningAttempt, order: RunOrder) -> RunnableJob:
        """Load the job, and give it a session and what else it may know. Raises LoadRefused."""

    def spark_ended(self) -> bool:
        """Whether Spark has ended under the running jobs; this driver then ends, too."""

    def keep_result(self, ref: AttemptRef, produced: Produced) -> str:
        """The result as its outcome carries it. Raises UnusableResult, or what making it raises."""

    def accepted(self, ref: AttemptRef, *, awaited: bool) -> None:
        """Tell the owner that the code was loaded and `validate` passed: at once if somebody waits for it."""

    def finished(self, outcome: AttemptOutcome) -> None:
        """Tell the owner how it ended. Never called in a thread that may still be killed."""

    def left(self, attempt: RunningAttempt) -> None:
        """The attempt uses nothing any more."""


class Runner:
    """Starts and kills attempts. `prefix` makes the job groups of this driver unique."""

    def __init__(self, attempts: Attempts, killer: Killer, workplace: Workplace, prefix: str) -> None:
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
        attempt = RunningAttempt(order.ref, group, order.pool.value, [group])
        self._place.begun(attempt)
        self._running[order.ref] = attempt
        self._threads.start(attempt, lambda: self._work(attempt, order))

    def attempt(self, ref: AttemptRef) -> RunningAttempt | None:
        """The attempt while it runs."""
        return self._running.get(ref)

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
        if attempt.log is not None and outcome.kind in (OutcomeKind.FAILED, OutcomeKind.KILLED):
            attempt.log.write(_last_words(outcome))
        self._place.left(attempt)
        session, attempt.session = attempt.session, None
        give_back = None
        if session is not None:
            alone = all(thread is threading.current_thread() for thread in attempt.alive())
            give_back = session.leave(again=alone and outcome.kind is OutcomeKind.FINISHED)
        if self._attempts.end(outcome):
            self._place.finished(outcome)
        if give_back is not None:
            give_back()  # last, as the answer would wait for the look at what is left in it

    def _outcome(self, attempt: RunningAttempt, order: RunOrder) -> AttemptOutcome:
        ref = order.ref
        try:
            return self._run(attempt, order)
        except LoadRefused as refused:
            return AttemptOutcome(ref.job_id, ref.attempt, refused.kind, error=refused.error)
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001
            # a job may raise anything, SystemExit and KeyboardInterrupt included; it must end as its outcome
            return _failed(ref, error)

    def _run(self, attempt: RunningAttempt, order: RunOrder) -> AttemptOutcome:
        ref = order.ref
        job = self._place.job(attempt, order)
        if problems := job.validate():
            error = ErrorInfo("; ".join(problems), "ValidationProblem")
            return AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.INVALID, error=error)
        self._place.accepted(ref, awaited=order.awaited)
        result = self._place.keep_result(ref, job.run())
        return AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.FINISHED, result=result)


def _last_words(outcome: AttemptOutcome) -> bytes:
    """How it ended, at the end of its output."""
    error = outcome.error or ErrorInfo("")
    text = error.stack or f"{error.error_class or 'ended'}: {error.message}"
    return f"attempt {outcome.attempt} {outcome.kind.value}: {text.rstrip()}\n".encode(
        "utf-8", "backslashreplace"
    )


def _failed(ref: AttemptRef, error: BaseException) -> AttemptOutcome:
    info = error_info(error)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        message = f"the job raised {info.error_class} ({info.message}): it ended itself instead of returning a result"
        info = ErrorInfo(message, info.error_class, info.stack)
    if isinstance(error, JobFailed):
        info = error.error
    if isinstance(error, UnusableResult):
        info = ErrorInfo(str(error), type(error).__name__)
    return AttemptOutcome(ref.job_id, ref.attempt, OutcomeKind.FAILED, error=info)
