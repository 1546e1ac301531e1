"""Which attempts run, and which outcomes nobody has acknowledged yet. Rules only; safe to call from threads."""

from __future__ import annotations

import threading
from collections import OrderedDict

from jobserver.model import AttemptOutcome, AttemptRef
from jobserver.protocol import Message, Refused, outcome_message

REMEMBERED = 10_000
"""How many jobs' last attempt numbers are kept to refuse repetitions; some 300 bytes each."""


class AttemptRefused(Exception):
    """The attempt may not begin; `code` goes to the owner."""

    def __init__(self, code: Refused, message: str) -> None:
        super().__init__(message)
        self.code = code


class Attempts:
    """Each attempt begins once and ends once; its outcome is kept until it is acknowledged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[AttemptRef] = set()
        self._outcomes: dict[AttemptRef, AttemptOutcome] = {}
        self._highest: OrderedDict[str, int] = OrderedDict()

    def begin(self, attempt: AttemptRef) -> None:
        """Record that it runs. Raises AttemptRefused when it, or a later one of the job, has begun before."""
        with self._lock:
            seen = self._highest.get(attempt.job_id, 0)
            if attempt.attempt == seen:
                text = f"attempt {seen} of job {attempt.job_id} has begun before"
                raise AttemptRefused(Refused.DUPLICATE, text)
            if attempt.attempt < seen:
                text = f"attempt {seen} of job {attempt.job_id} has begun, {attempt.attempt} is over"
                raise AttemptRefused(Refused.STALE_ATTEMPT, text)
            self._highest[attempt.job_id] = attempt.attempt
            self._highest.move_to_end(attempt.job_id)
            self._running.add(attempt)
            self._trim()

    def end(self, outcome: AttemptOutcome) -> bool:
        """Keep the outcome; False if the attempt has ended before, then nothing changes."""
        attempt = AttemptRef(outcome.job_id, outcome.attempt)
        with self._lock:
            if attempt not in self._running:
                return False
            self._running.discard(attempt)
            self._outcomes[attempt] = outcome
            return True

    def ack(self, attempt: AttemptRef) -> bool:
        """Forget the outcome; False if there was none."""
        with self._lock:
            return self._outcomes.pop(attempt, None) is not None

    def listing(self) -> list[Message]:
        """What `adopt` answers: the running ones, and the outcomes that wait."""
        with self._lock:
            running = [(attempt, None) for attempt in self._running]
            waiting = [(attempt, outcome_message(outcome)) for attempt, outcome in self._outcomes.items()]
        return [
            {"job_id": attempt.job_id, "attempt": attempt.attempt, "outcome": outcome}
            for attempt, outcome in (*running, *waiting)
        ]

    def _trim(self) -> None:
        # the oldest are far behind any message that could still repeat them; what runs is never dropped
        while len(self._highest) > REMEMBERED:
            job_id, number = next(iter(self._highest.items()))
            if AttemptRef(job_id, number) in self._running:
                return
            del self._highest[job_id]
