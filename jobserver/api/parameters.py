"""Typed query parameters by the rules of rest_contract 1.4 and 1.5. Pure; refusals are text answers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jobserver.api.rejections import malformed, missing
from jobserver.errors import BadRequest

Query = Mapping[str, str]
"""The first value of each parameter is the one that counts."""

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_SHOWN = 200


def flag(query: Query, name: str, default: bool) -> bool:
    """A boolean; absent or empty means the default."""
    text = query.get(name)
    if not text:
        return default
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise malformed(name, f"'{text[:_SHOWN]}' is not a valid Boolean value")


def integer(query: Query, name: str) -> int | None:
    """A 32-bit signed integer; None when absent or empty."""
    text = query.get(name)
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        value = int(text)
        if -(2**31) <= value < 2**31:
            return value
    raise malformed(name, f"'{text[:_SHOWN]}' is not a valid 32-bit signed integer value")


def bounded(query: Query, name: str, lowest: int, highest: int) -> int | None:
    """An integer that must lie in a range; None when absent or empty."""
    value = integer(query, name)
    return None if value is None else in_range(name, value, lowest, highest)


def in_range(name: str, value: int, lowest: int, highest: int) -> int:
    """The value, or BadRequest with a sentence that names the range."""
    if not lowest <= value <= highest:
        raise BadRequest(f"{name} must be from {lowest} to {highest}, not {value}")
    return value


def required(query: Query, name: str) -> str:
    """The text of a parameter that must be there (it may be empty)."""
    text = query.get(name)
    if text is None:
        raise missing(name)
    return text
