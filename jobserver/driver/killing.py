"""Ending attempts that run: repeated until the threads are gone, because each single means misses something.

Cancelling a job group misses what has not begun; raising misses code that waits inside C; interrupting the JVM thread
reaches a call that waits there; closing the thread's own connection to the JVM frees Python from any call. What ignores
all that for the grace time is given up and counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from jobserver.driver.jobthreads import RunningAttempt, raise_killed

ROUND = 0.07
"""Seconds between two rounds."""
CUT_AFTER = 0.5
"""Part of the grace time after which a thread's connection to the JVM is cut."""

QUIET = 5.0
"""Seconds without any work of the attempt in Spark after which none is expected to begin any more."""
LOOK = 0.2
"""Seconds between two looks for such work."""
LONGEST_LOOK = 60.0
"""Seconds after which work that no cancelling ends is left to Spark."""


class SparkSide(Protocol):
    """What a kill needs of Spark. Nothing of it may raise."""

    def cancel(self, attempt: RunningAttempt) -> bool:
        """Cancel the attempt's groups and their future jobs; whether anything of it is still active."""

    def interrupt(self, attempt: RunningAttempt) -> None:
        """Interrupt the attempt's JVM threads."""

    def cut(self, attempt: RunningAttempt) -> None:
        """Shut the connections of the attempt's threads to the JVM."""


class Killer:
    """Pursues attempts, each in a thread of its own; `abandoned` counts those that could not be ended."""

    def __init__(self, spark: SparkSide, grace: float) -> None:
        self._spark = spark
        self._grace = grace
        self.abandoned = 0

    def kill(self, attempt: RunningAttempt, report: Callable[[], None]) -> bool:
        """Begin to end it; `report` is called once its threads are gone or given up. False if it has ended already."""
        if not attempt.claim("killer"):
            return False
        threading.Thread(target=self._pursue, args=(attempt, report), name="killer", daemon=True).start()
        return True

    def _pursue(self, attempt: RunningAttempt, report: Callable[[], None]) -> None:
        begun = time.monotonic()
        while attempt.alive() and time.monotonic() - begun < self._grace:
            self._round(attempt, time.monotonic() - begun > self._grace * CUT_AFTER)
        if attempt.alive():
            self.abandoned += 1
        # a thread that a kill ended in its last steps may have left the JVM waiting for its answer
        self._spark.cut(attempt)
        report()
        self._clean_up(attempt)

    def _round(self, attempt: RunningAttempt, cut: bool) -> None:
        for thread in attempt.alive():
            raise_killed(thread)
        if attempt.jvm_threads:
            self._spark.cancel(attempt)
            self._spark.interrupt(attempt)
            if cut:
                self._spark.cut(attempt)
        for thread in attempt.alive()[:1]:
            thread.join(ROUND)

    def _clean_up(self, attempt: RunningAttempt) -> None:
        """Cancel again, for a while: a thread of Spark's own may yet submit the next stage of a query that was cancelled.

        Such a stage begins after its group was cancelled, so nothing ends it, and it keeps its slots from all others.
        """
        if not attempt.jvm_threads:
            return
        begun = active = time.monotonic()
        while (now := time.monotonic()) - active < QUIET and now - begun < LONGEST_LOOK:
            if self._spark.cancel(attempt):
                active = now
            time.sleep(LOOK)
