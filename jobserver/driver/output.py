"""The process's stdout and stderr, which all jobs share: no job can close them for the others, or for the driver's log."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class _OpenBytes(io.BufferedWriter):
    """Bytes to a descriptor; `close` only flushes."""

    def close(self) -> None:
        self.flush()


class _OpenText(io.TextIOWrapper):
    """Text to a descriptor; `close` only flushes. A line is out when it ends; what UTF-8 cannot hold is escaped."""

    def close(self) -> None:
        self.flush()


def keep_open() -> None:
    """Replace sys.stdout and sys.stderr by streams that stay open."""
    sys.stdout, sys.stderr = _stream(1), _stream(2)


def log_stream() -> TextIO:
    """Where the driver logs: stderr by a descriptor of its own, so that it stays also when a job closes descriptor 2."""
    return _stream(os.dup(2))


def _stream(descriptor: int) -> TextIO:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return _OpenText(_OpenBytes(raw), "utf-8", errors="backslashreplace", line_buffering=True)
