"""Threads that run jobs: reused while their jobs end by themselves, dropped once a kill was begun.

Every thread knows the attempt it works for (`current`), also the threads that a job starts itself. The fate of an
attempt is claimed once, by its own thread (it ended) or by a killer; only then a killer raises `Killed` in its threads,
so a late `Killed` can never hit the next job.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from jobserver.model import AttemptRef

_KEPT_IDLE = 32
"""Idle threads that are kept; each holds one connection to the JVM once it has used Spark."""

_here = threading.local()
_plain_start = threading.Thread.start


class Killed(BaseException):
    """Raised inside a job that is to end. No Exception, so that `except Exception` does not stop it."""


@dataclass(slots=True, eq=False)
class RunningAttempt:
    """One attempt while it runs, and what a kill must know of it.

    `groups`: Spark job groups, ours first; `jvm_threads`: by thread ident, whatever Spark's side stored there; `leaving`:
    what frees what only this attempt used; `left`: that was freed, so nothing more is kept for it; `log` and `board`: where
    its output and its progress go (`job_log.JobLog`, `progress_board.ProgressBoard`).
    """

    ref: AttemptRef
    group: str
    pool: str
    groups: list[str] = field(default_factory=list)
    threads: dict[int, threading.Thread] = field(default_factory=dict)
    jvm_threads: dict[int, Any] = field(default_factory=dict)
    session: Any = None
    log: Any = None
    board: Any = None
    told_at: float = 0.0
    leaving: list[Callable[[], None]] = field(default_factory=list)
    left: bool = False
    _fate: dict[str, str] = field(default_factory=dict)

    def claim(self, who: str) -> bool:
        """Decide who reports how it ended: True for the first caller and its repetitions."""
        return self._fate.setdefault("by", who) == who  # one bytecode of C: atomic, and safe against `Killed`

    @property
    def killing(self) -> bool:
        """Whether a killer owns its fate."""
        return self._fate.get("by") == "killer"

    @property
    def ended(self) -> bool:
        """Whether somebody owns its fate: it has ended, or is being killed."""
        return "by" in self._fate

    def alive(self) -> list[threading.Thread]:
        """Its threads that have not ended."""
        return [thread for thread in list(self.threads.values()) if thread.is_alive()]


def current() -> RunningAttempt | None:
    """The attempt for which the calling thread works."""
    return getattr(_here, "attempt", None)


def entered() -> RunningAttempt | None:
    """The attempt for which the calling thread's JVM side was prepared last."""
    return getattr(_here, "entered", None)


def set_entered(attempt: RunningAttempt) -> None:
    """Remember that the calling thread's JVM side is prepared for the attempt."""
    _here.entered = attempt


def raise_killed(thread: threading.Thread) -> None:
    """Raise `Killed` in a thread at its next step of Python code."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Killed))


def install() -> None:
    """Make the threads that jobs start work for the same attempt, and let killed threads end silently."""
    threading.Thread.start = _start  # type: ignore[method-assign, assignment]
    plain_hook = threading.excepthook

    def hook(args: Any) -> None:
        if args.exc_type is not Killed:
            plain_hook(args)

    threading.excepthook = hook


def _start(thread: threading.Thread) -> None:
    attempt = current()
    if attempt is not None:
        _attach(thread, attempt)
    _plain_start(thread)


def _attach(thread: threading.Thread, attempt: RunningAttempt) -> None:
    run = thread.run

    def attached() -> None:
        work_for(attempt)
        run()

    thread.run = attached  # type: ignore[method-assign]


def work_for(attempt: RunningAttempt) -> None:
    """The calling thread works for the attempt from now on."""
    _here.attempt = attempt
    attempt.threads[threading.get_ident()] = threading.current_thread()


def work_done() -> None:
    """The calling thread works for nobody."""
    attempt = current()
    _here.attempt = None
    if attempt is not None:
        attempt.threads.pop(threading.get_ident(), None)


class JobThreads:
    """Hands work to an idle thread, the one that was used last first; makes a new one when all are busy."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._count = 0

    def start(self, attempt: RunningAttempt, work: Callable[[], None]) -> threading.Thread:
        """Run `work` for the attempt in a thread of its own, which is registered with the attempt before `work` begins."""
        try:
            worker = self._idle.pop()
        except IndexError:
            self._count += 1
            worker = _Worker(self, f"job-{self._count}")
        attempt.threads[worker.begin()] = worker.thread
        worker.inbox.put((attempt, work))
        return worker.thread

    def back(self, worker: _Worker) -> bool:
        """Take an idle worker back; False if there are enough."""
        if len(self._idle) >= _KEPT_IDLE:
            return False
        self._idle.append(worker)
        return True


class _Worker:
    """One thread and its inbox."""

    def __init__(self, pool: JobThreads, name: str) -> None:
        self.inbox: SimpleQueue[tuple[RunningAttempt, Callable[[], None]]] = SimpleQueue()
        self._pool = pool
        self.thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def begin(self) -> int:
        """Start the thread if it has not been; answer its ident."""
        if self.thread.ident is None:
            _plain_start(self.thread)
        return self.thread.ident or 0

    def _loop(self) -> None:
        while True:
            attempt, work = self.inbox.get()
            work_for(attempt)
            work()
            if attempt.killing:
                return
            work_done()
            if not self._pool.back(self):
                return
