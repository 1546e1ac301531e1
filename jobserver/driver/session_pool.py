"""Spark sessions for jobs: made ahead of need, and used again where a job has left no trace in its own.

A new session takes some milliseconds to make, and half as long again as later for its first query. What a job may leave in
it (settings, views, functions, variables, …) is looked up in the JVM (java_source/PooledSession.java), in the pool's own
thread, after the job: a session that is not as it was made is not used again. A driver that starts has no time for
that: what is made before the first job has ended serves one job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from py4j.protocol import Py4JError

from jobserver.driver import java_classes
from jobserver.driver.spark import Spark

log = logging.getLogger(__name__)

MOST = 16
"""Sessions that wait for jobs at most."""


@dataclass(frozen=True, slots=True)
class PooledSession:
    """A Java session, and its PooledSession in the JVM; None: it serves one job."""

    java: Any
    reusable: Any


@dataclass(frozen=True, slots=True)
class _Returned:
    """A session after a job; `views`: temporary views that were made for the job, and not by it."""

    session: PooledSession
    views: tuple[str, ...]


class SessionPool:
    """`size` sessions are kept ready. Takes no lock, which a killed job could leave held."""

    def __init__(self, spark: Spark, size: int) -> None:
        self._spark = spark
        self._size = size
        self._ready: SimpleQueue[PooledSession] = SimpleQueue()
        self._work: SimpleQueue[_Returned | None] = SimpleQueue()
        self._java_class: Any = None
        self._reuse = False
        self._work.put(None)
        threading.Thread(target=self._run, name="session-pool", daemon=True).start()

    def take(self) -> PooledSession:
        """A session in which nothing is left of another job."""
        try:
            session = self._ready.get_nowait()
        except Empty:
            return self._made()
        self._work.put(None)
        return session

    def give_back(self, session: PooledSession, views: Iterable[str]) -> None:
        """After a job that uses it no more. Returns at once."""
        self._work.put(_Returned(session, tuple(views)))

    def _run(self) -> None:
        while True:
            returned = self._work.get()
            try:
                if returned is not None:
                    self._look_at(returned)
                while self._ready.qsize() < self._size and self._work.empty():
                    self._ready.put(self._made_to_stay() if self._reuse else self._made())
            except (
                Py4JError,
                OSError,
            ):  # Spark is ending, or in trouble of its own: jobs then make theirs and tell
                log.exception("no session can be made ahead any more")
                return

    def _look_at(self, returned: _Returned) -> None:
        self._reuse = True
        reusable = returned.session.reusable
        if reusable is None or self._ready.qsize() >= MOST:
            return
        views = self._spark.java.array_list()
        for view in returned.views:
            views.add(view)
        left = reusable.left(views)
        if left:
            log.debug("a job left %s in its session: it is not used again", left)
        else:
            self._ready.put(returned.session)

    def _made(self) -> PooledSession:
        session = self._spark.new_session()
        session.sessionState()
        return PooledSession(session, None)

    def _made_to_stay(self) -> PooledSession:
        """One that can serve many jobs, and has planned its first query."""
        session = self._made().java
        reusable = self._reusable(session)
        session.sql("select 1").queryExecution().executedPlan()
        return PooledSession(session, reusable)

    def _reusable(self, session: Any) -> Any:
        """Only called in the pool's own thread."""
        context = self._spark.context
        if self._java_class is None:
            self._java_class = java_classes.compiled(context, "PooledSession")
        state, scala_context = session.sessionState(), self._spark.java.scala_context
        return java_classes.new(context, self._java_class, session, state, scala_context)
