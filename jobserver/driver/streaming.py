"""Streaming queries of jobs: where Spark keeps their state, so that the next attempt goes on from there exactly once.

Spark itself refuses two writers of one state. After a failover the older driver may not have noticed yet that it is
superseded: the newer one tries again until it must have ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from py4j.protocol import Py4JError

from checkpoint import layout
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.journal import ContextFolder
from sparkjobserver.api import Streams

log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds between two tries while another driver may still write the same state."""

_CONCURRENT = (
    "CONCURRENT_STREAM_LOG_UPDATE",
    "Multiple streaming jobs detected",
    "Multiple streaming queries are concurrently using",
)


def is_concurrent_writer(error: Exception) -> bool:
    """Whether Spark says that somebody else writes the state of the query, too."""
    text = str(error)
    return any(sign in text for sign in _CONCURRENT)


def run_to_end(
    start: Callable[[str], Any],
    path: str,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Start a query and wait for its end; again while another writes its state, for `patience` seconds. The query."""
    since: float | None = None
    while True:
        begun = clock()
        try:
            query = start(path)
            query.awaitTermination()
            return query
        except Exception as error:
            if not is_concurrent_writer(error):
                raise
            if since is None or clock() - begun > patience:  # it ran well in between: another matter
                since = clock()
            if clock() - since > patience:
                raise
            log.warning("another driver still writes the streaming state at %s: trying again", path)
            sleep(RETRY)


class StreamingJobs:
    """The attempts of this driver that run streaming queries. `patience`: seconds after which a rival must have ended."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._attempts: set[int] = set()

    @property
    def any(self) -> bool:
        """Whether a streaming job runs."""
        return bool(self._attempts)

    def of(self, attempt: RunningAttempt, folder: ContextFolder | None) -> Streams:
        """What one attempt gets."""
        return JobStreams(self, attempt, folder, self._patience)

    def joined(self, attempt: RunningAttempt) -> None:
        """The attempt runs a streaming query from now on; its queries end with it."""
        if id(attempt) not in self._attempts:
            self._attempts.add(id(attempt))
            session = attempt.session
            attempt.leaving.append(lambda: self._left(attempt, session))

    def _left(self, attempt: RunningAttempt, session: Any) -> None:
        try:
            stop_queries(attempt, session)
        finally:
            self._attempts.discard(id(attempt))


def stop_queries(attempt: RunningAttempt, session: Any) -> None:
    """Stop all streaming queries of an attempt's session. What cannot be stopped is logged."""
    try:
        for query in session.streams.active:
            query.stop()
    except (Py4JError, OSError) as error:
        log.warning("the streaming queries of job %s could not be stopped: %s", attempt.ref.job_id, error)


class JobStreams(Streams):
    """See the base class."""

    def __init__(
        self, jobs: StreamingJobs, attempt: RunningAttempt, folder: ContextFolder | None, patience: float
    ) -> None:
        self._jobs = jobs
        self._attempt = attempt
        self._folder = folder
        self._patience = patience

    def checkpoint(self, name: str) -> str:
        """See the base class."""
        if self._folder is None:
            raise RuntimeError("streaming state cannot be kept: this context has no checkpoint")
        self._jobs.joined(self._attempt)
        return self._folder.url_to_write(layout.streaming_path(name))

    def run(self, name: str, start: Callable[[str], Any]) -> Any:
        """See the base class."""
        return run_to_end(start, self.checkpoint(name), self._patience)
