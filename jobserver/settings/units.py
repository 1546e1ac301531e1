"""Durations and sizes as people write them: a number with its unit, `4s`, `300ms`, `2m`, `30MiB`.

A bare number is refused: nobody can tell whether `4` means seconds or milliseconds. In code a `Duration` is a float of
seconds and a `Size` an int of bytes.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DURATION = r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$"
_SIZE = r"^(\d+)(B|KiB|MiB|GiB|TiB)$"

DURATION_FORM = "a duration with its unit (ms, s, m, h or d), for example '4s'"
SIZE_FORM = "a size with its unit (B, KiB, MiB, GiB or TiB), for example '30MiB'"


def seconds_of(value: object) -> float:
    """Seconds of a duration like `300ms`. Raises ValueError with what was expected."""
    match = re.match(_DURATION, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(DURATION_FORM)
    number, unit = match.groups()
    return float(f"{float(number) * _SECONDS[unit]:.6f}")


def duration_text(seconds: float) -> str:
    """The shortest text that `seconds_of` reads back as the same, down to milliseconds."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        size = round(_SECONDS[unit] * 1000)
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def bytes_of(value: object) -> int:
    """Bytes of a size like `30MiB`. Raises ValueError with what was expected."""
    match = re.match(_SIZE, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(SIZE_FORM)
    number, unit = match.groups()
    return int(number) * _BYTES[unit]


def size_text(size: int) -> str:
    """The shortest text that `bytes_of` reads back as the same."""
    if size == 0:
        return "0B"
    unit = next(u for u in ("TiB", "GiB", "MiB", "KiB", "B") if size % _BYTES[u] == 0)
    return f"{size // _BYTES[unit]}{unit}"


Duration = Annotated[
    float,
    BeforeValidator(seconds_of),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION}),
]
"""Seconds, written with a unit."""

Size = Annotated[
    int,
    BeforeValidator(bytes_of),
    PlainSerializer(size_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _SIZE}),
]
"""Bytes, written with a unit."""
