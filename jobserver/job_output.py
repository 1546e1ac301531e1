"""The output of a job as one stream of bytes: its attempts one after the other, from the store and from the driver. Pure.

The driver is asked first, the store second: what the driver still held then, the store may hold by now, never the other way.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checkpoint.segments import Segment


@dataclass(frozen=True, slots=True)
class Tail:
    """Output of an attempt from `offset` on that was not stored when the driver was asked."""

    attempt: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` up to `end` of the whole: of `attempt`, in the store from `at` on, or here as `data`."""

    start: int
    end: int
    attempt: int
    at: int
    data: bytes | None = None


def tail_of(fields: Mapping[str, object]) -> Tail:
    """As the driver tells it. Raises KeyError, ValueError."""
    return Tail(
        int(str(fields["attempt"])), int(str(fields["offset"])), base64.b64decode(str(fields["data"]))
    )


def parts(stored: Mapping[int, Sequence[Segment]], tails: Sequence[Tail]) -> list[Part]:
    """The whole output in its order; `stored` by attempt."""
    by_attempt = {tail.attempt: tail for tail in tails}
    found: list[Part] = []
    for attempt in sorted({*stored, *by_attempt}):
        segments = stored.get(attempt, ())
        end = segments[-1].end if segments else 0
        begin = found[-1].end if found else 0
        if end:
            found.append(Part(begin, begin + end, attempt, 0))
        tail = by_attempt.get(attempt)
        if tail is not None and tail.offset <= end < tail.offset + len(tail.data):
            data = tail.data[end - tail.offset :]
            found.append(Part(begin + end, begin + end + len(data), attempt, end, data))
    return found
