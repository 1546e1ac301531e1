"""The output of jobs: what an attempt's threads write to stdout, stderr and the log, kept in the checkpoint store.

A job's thread only appends to a queue, which no kill can leave half done. One thread of the driver writes segments, at once
when an attempt ends and now and then while it runs, so that its output survives the driver. What was not written yet is handed to
whoever asks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from checkpoint import layout
from checkpoint.errors import AlreadyExists, CheckpointError
from checkpoint.files import FileStore
from checkpoint.segments import put_segment
from jobserver.driver.jobthreads import current
from jobserver.model import AttemptRef

log = logging.getLogger(__name__)

FLUSH_SIZE = 64 * 1024
"""Bytes that are written without waiting."""
FIRST_WAIT, LONGEST_WAIT, SLOWER = 1.0, 60.0, 1.05
"""Seconds between the first two segments; at most; and how much longer each wait is, which bounds the segments of a long job."""
TICK = 0.5
BACKLOG = 64 * 1024 * 1024
"""Bytes of all outputs together that are kept while the store does not take them."""
GAP = b"\n... output is missing here: the store did not take it in time\n"


@dataclass(frozen=True, slots=True)
class Tail:
    """Bytes of an attempt's output that are not in the store yet, from `offset` on."""

    attempt: int
    offset: int
    data: bytes


class Backlog:
    """How many bytes are not stored yet. Counted without a lock, which a kill could leave held, so now and then anew."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0

    def take(self, count: int) -> bool:
        """Whether there is room for so many more, which count then."""
        if self._bytes + count > self._limit:
            return False
        self._bytes += count
        return True

    def give(self, count: int) -> None:
        """So many are stored."""
        self._bytes = max(self._bytes - count, 0)

    def counted(self, count: int) -> None:
        """So many there are."""
        self._bytes = count


class JobLog:
    """The output of one attempt, of at most `limit` bytes. A segment that was tried once stays as it is until it is stored."""

    def __init__(
        self,
        ref: AttemptRef,
        limit: int,
        register: Callable[[JobLog], None],
        backlog: Backlog | None = None,
    ) -> None:
        self.ref = ref
        self.ended = False
        self._limit = limit
        self._register = register
        self._arrived: deque[bytes] = deque()
        self._received = 0
        self._registered = False
        self._lock = threading.Lock()
        self._pending = bytearray()
        self._stored = 0
        self._tried = 0
        self._backlog = backlog or Backlog(BACKLOG)
        self._gap = False
        self._last, self._wait = time.monotonic(), FIRST_WAIT

    def write(self, data: bytes) -> None:
        """Called from the job's threads. What goes beyond a limit is dropped, with a line that says so."""
        room = self._limit - self._received
        self._received += len(data)
        if room > 0:
            kept = data[:room]
            if self._backlog.take(len(kept)):
                self._gap = False
                self._arrived.append(kept)
            elif not self._gap:
                self._gap = True
                self._arrived.append(GAP)
            if len(kept) < len(data):
                self._arrived.append(b"\n... what comes here is over the limit of %d bytes\n" % self._limit)
        if not self._registered:
            self._registered = True
            self._register(self)

    @property
    def used(self) -> bool:
        """Whether anything was written. What is written later wakes the writer by itself."""
        return self._registered

    def tail(self) -> Tail:
        """What is not stored yet. Never called from a job's thread, as `due` and `stored`."""
        with self._lock:
            self._gather()
            return Tail(self.ref.attempt, self._stored, bytes(self._pending))

    def held(self) -> int:
        """Bytes that are not stored yet. Never called from a job's thread."""
        with self._lock:
            self._gather()
            return len(self._pending)

    def _gather(self) -> None:
        while self._arrived:
            self._pending += self._arrived.popleft()

    def due(self, now: float) -> Tail | None:
        """What is to be written now, if anything; the very same again until it is stored, since it may be already."""
        ended, tail = self.ended, self.tail()
        if self._tried:
            return Tail(tail.attempt, tail.offset, tail.data[: self._tried])
        if tail.data and (ended or len(tail.data) >= FLUSH_SIZE or now - self._last >= self._wait):
            self._tried = len(tail.data)
            return tail
        return None

    def stored(self, count: int, now: float) -> None:
        """The next `count` bytes are durable."""
        with self._lock:
            del self._pending[:count]
            self._stored += count
            self._tried = 0
        self._backlog.give(count)
        self._last, self._wait = now, min(self._wait * SLOWER, LONGEST_WAIT)


class JobLogs:
    """All outputs that are not in the store yet. `files` opens the store, or answers None where there is none."""

    def __init__(self, files: Callable[[], FileStore | None], limit: int, backlog: int = BACKLOG) -> None:
        self._files = files
        self._limit = limit
        self._backlog = Backlog(backlog)
        self._open: dict[AttemptRef, JobLog] = {}
        self._stirred: SimpleQueue[None] = SimpleQueue()  # no lock of Python's that a kill could leave held
        threading.Thread(target=self._keep_writing, name="job-logs", daemon=True).start()

    def begin(self, ref: AttemptRef) -> JobLog:
        """The log of a new attempt; costs nothing until something is written."""
        return JobLog(ref, self._limit, self._written_to, self._backlog)

    def end(self, job_log: JobLog) -> None:
        """The attempt has ended: what it wrote is stored soon. Most write nothing, and wake nobody."""
        job_log.ended = True
        if job_log.used:
            self._stirred.put(None)

    def tails(self, job_id: str) -> list[Tail]:
        """What is not stored yet of any attempt of the job."""
        return [known.tail() for ref, known in list(self._open.items()) if ref.job_id == job_id]

    def flush(self, seconds: float) -> bool:
        """Store everything, as the driver ends. False when the store did not take it in time."""
        limit = time.monotonic() + seconds
        for known in list(self._open.values()):
            known.ended = True
        while self._open and time.monotonic() < limit:
            self._stirred.put(None)
            time.sleep(0.02)
        return not self._open

    def _written_to(self, job_log: JobLog) -> None:
        self._open[job_log.ref] = job_log
        self._stirred.put(None)

    def _keep_writing(self) -> None:
        while True:
            with contextlib.suppress(Empty):
                self._stirred.get(timeout=TICK if self._open else None)
                while True:
                    self._stirred.get_nowait()
            for job_log in list(self._open.values()):
                try:
                    self._write(job_log)
                except AlreadyExists as error:
                    log.error("the rest of the output of job %s is lost: %s", job_log.ref.job_id, error)
                    self._open.pop(job_log.ref, None)
                except CheckpointError as error:
                    log.warning("the output of job %s cannot be stored: %s", job_log.ref.job_id, error)
                    time.sleep(TICK)
            self._backlog.counted(sum(known.held() for known in list(self._open.values())))

    def _write(self, job_log: JobLog) -> None:
        ended = job_log.ended
        files, due = self._files(), job_log.due(time.monotonic())
        if due is not None and files is not None:
            ref = job_log.ref
            put_segment(files, layout.log_folder(ref.job_id, ref.attempt), due.offset, due.data)
            job_log.stored(len(due.data), time.monotonic())
        if ended and (files is None or not job_log.tail().data):
            self._open.pop(job_log.ref, None)


class JobLogHandler(logging.Handler):
    """Lines that are logged in a job's thread go to the job's output, too. Takes no lock, which a kill could leave held."""

    def createLock(self) -> None:
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        attempt = current()
        if attempt is not None and attempt.log is not None:
            try:
                line = self.format(record) + "\n"
            except Exception:  # noqa: BLE001
                # a job's arguments need not fit its own format
                line = f"{record.levelname} {record.msg!r} (cannot be formatted)\n"
            attempt.log.write(line.encode("utf-8", "backslashreplace"))


def worth_telling(record: logging.LogRecord) -> bool:
    """Not what py4j tells, below a warning, of its own connections, some of it by the root logger: as a JVM dies, a traceback for
    each object that is let go of, in chains that grow to megabytes. Whoever called has the failure as an exception."""
    return record.levelno >= logging.WARNING or Path(str(record.pathname)).parent.name != "py4j"


def job_log_handler() -> logging.Handler:
    """One with the form of its lines."""
    handler = JobLogHandler()
    handler.addFilter(worth_telling)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler
