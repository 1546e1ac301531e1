"""Streams of bytes as segments: files that are written once and named by where they begin.

For what grows while it is written, or is too large to hold: a job's output, a large result. One writer for each folder. A
segment is complete when it has a name; the stream ends where its last segment does. Any store will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from checkpoint.errors import AlreadyExists
from checkpoint.files import FileStore

WIDTH = 15
"""Digits of a segment's name."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes `start` up to `end` of a stream."""

    start: int
    end: int


def put_segment(files: FileStore, folder: str, start: int, data: bytes) -> None:
    """Make the next segment durable. Repeating a write whose outcome is unknown changes nothing. Raises StoreUnavailable."""
    path = segment_path(folder, start)
    try:
        files.write_new(path, data)
    except AlreadyExists:
        if files.read(path) != data:
            raise


def segment_path(folder: str, start: int) -> str:
    """The file of the segment that begins at `start`."""
    return f"{folder}/{start:0{WIDTH}d}"


def segments(files: FileStore, folder: str) -> list[Segment]:
    """All segments in their order; none when the folder is absent. Raises StoreUnavailable, Missing."""
    starts = [int(name) for name in files.names(folder) if name.isdigit()]
    if not starts:
        return []
    ends = [*starts[1:], starts[-1] + files.size(segment_path(folder, starts[-1]))]
    return [Segment(start, end) for start, end in zip(starts, ends, strict=True)]


def read_range(files: FileStore, folder: str, known: list[Segment], start: int, end: int) -> Iterator[bytes]:
    """Bytes `start` up to `end` of the stream, a segment at a time; less when it is shorter. Raises StoreUnavailable, Missing."""
    for segment in known:
        if segment.end <= start or segment.start >= end:
            continue
        data = files.read(segment_path(folder, segment.start))
        yield data[max(start - segment.start, 0) : end - segment.start]
