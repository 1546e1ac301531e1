"""The process's stdout and stderr, which all jobs share: no job can close them for the others, or for the driver's log.

What a job's threads write through them is the job's output; what others write goes to the process's own.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from jobserver.driver.jobthreads import current


class _OpenBytes(io.BufferedWriter):
    """Bytes to the job whose thread writes, else to a descriptor; `close` only flushes."""

    def write(self, data: Any) -> int:
        attempt = current()
        if attempt is None or attempt.log is None:
            return super().write(data)
        copy = bytes(data)
        attempt.log.write(copy)
        return len(copy)

    def close(self) -> None:
        self.flush()


class _PlainBytes(io.BufferedWriter):
    """Bytes to a descriptor; `close` only flushes."""

    def close(self) -> None:
        self.flush()


class _OpenText(io.TextIOWrapper):
    """Text to a descriptor; `close` only flushes. A line is out when it ends; what UTF-8 cannot hold is escaped."""

    def close(self) -> None:
        self.flush()


def keep_open() -> None:
    """Replace sys.stdout and sys.stderr by streams that stay open."""
    sys.stdout, sys.stderr = _stream(1, _OpenBytes), _stream(2, _OpenBytes)


def log_stream() -> TextIO:
    """Where the driver logs: stderr by a descriptor of its own, so that it stays also when a job closes descriptor 2."""
    return _stream(os.dup(2), _PlainBytes)


def _stream(descriptor: int, kind: Callable[[io.FileIO], io.BufferedWriter]) -> TextIO:
    raw = io.FileIO(descriptor, "w", closefd=False)
    # what one thread writes must leave the shared buffer in that thread, or it would reach another job's output
    return _OpenText(kind(raw), "utf-8", errors="backslashreplace", line_buffering=True, write_through=True)
