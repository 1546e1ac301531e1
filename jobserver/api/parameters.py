"""Typed query parameters by the rules of rest_contract 1.4 and 1.5. Pure; refusals are text answers.

A parameter is a value (`Flag`, `Whole`, `Word`, `Span`) kept next to the handler that reads it: what validates a request is
also what `openapi.py` documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobserver.api.rejections import malformed, missing
from jobserver.errors import BadRequest

Query = Mapping[str, str]
"""The first value of each parameter is the one that counts."""

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(|ms|s|m|h)")
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
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


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean parameter; the definition that reads it also documents it."""

    name: str
    meaning: str
    default: bool = False

    def read(self, query: Query) -> bool:
        """Its value. Raises Rejected."""
        return flag(query, self.name, self.default)

    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it; the other words for true and false are taken, too."""
        return {"type": "boolean", "default": self.default}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `lowest` to `highest`."""

    name: str
    meaning: str
    lowest: int = -(2**31)
    highest: int = 2**31 - 1
    default: int | None = None

    def read(self, query: Query) -> int | None:
        """Its value, the default when absent. Raises Rejected and BadRequest."""
        value = bounded(query, self.name, self.lowest, self.highest)
        return self.default if value is None else value

    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it."""
        bounds = {"type": "integer", "minimum": self.lowest, "maximum": self.highest}
        return bounds if self.default is None else {**bounds, "default": self.default}


@dataclass(frozen=True, slots=True)
class Word:
    """A text; `choices` are the only ones taken, `needed` ones must be there."""

    name: str
    meaning: str
    choices: tuple[str, ...] = ()
    needed: bool = False

    def read(self, query: Query) -> str | None:
        """Its value, None when absent or empty. Raises Rejected and BadRequest."""
        text = required(query, self.name) if self.needed else query.get(self.name)
        if self.choices and (text or self.needed) and text not in self.choices:
            known = " or ".join(self.choices)
            raise BadRequest(f"{self.name} must be {known}, not '{(text or '')[:_SHOWN]}'")
        return text or None

    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it."""
        return {"type": "string", **({"enum": list(self.choices)} if self.choices else {})}


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time: whole or broken seconds, or a number with a unit (`30s`, `500ms`, `2m`)."""

    name: str
    meaning: str

    def read(self, query: Query) -> float | None:
        """Seconds, None when absent or empty. Raises Rejected."""
        text = query.get(self.name)
        if not text:
            return None
        found = _SPAN.fullmatch(text)
        if found is None:
            raise malformed(self.name, f"'{text[:_SHOWN]}' is not a duration such as 30s")
        return float(found[1]) * _UNITS[found[2]]

    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it."""
        return {"type": "string", "pattern": f"^{_SPAN.pattern}$", "examples": ["30s"]}


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: ISO 8601, in UTC unless it has an offset."""

    name: str
    meaning: str

    def read(self, query: Query) -> datetime | None:
        """Its value, aware; None when absent or empty. Raises Rejected."""
        text = query.get(self.name)
        if not text:
            return None
        try:  # the plus of an offset, sent as it is, arrives as a blank
            moment = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise malformed(
                self.name, f"'{text[:_SHOWN]}' is not a time such as 2026-01-31T12:00:00Z"
            ) from None

    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it; the offset may be left out."""
        return {"type": "string", "examples": ["2026-01-31T12:00:00Z"]}


Parameter = Flag | Whole | Word | Span | Moment
