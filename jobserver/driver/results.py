"""A job's result as JSON text (pure; rest_contract section 5.8).

numbers, texts, booleans, None    as they are; NaN and infinities become null, which JSON has instead
list, tuple, Row                  array
dict                              object; keys that are no texts as `json` writes them, others by str()
numpy scalars and arrays          number, array
bytes                             text in base64
a DataFrame, RDD or Column        refused: it is a plan, not a result (`frames` has a DataFrame that is the whole result)
anything else                     its str()
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from jobserver.driver.bundles import without_root

MAX_DEPTH = 200
MAX_BYTES = 128 * 1024 * 1024
"""Largest result in bytes of JSON; beyond it the job should write a file and return its name."""

_LAZY = frozenset(
    {"DataFrame", "RDD", "PipelinedRDD", "Column", "GroupedData", "SparkSession", "SparkContext"}
)


class UnusableResult(Exception):
    """What the job returned cannot be its result; the text says why and what to do."""


class ResultTooLarge(UnusableResult):
    """The result's JSON is over the limit."""


class ResultTooDeep(UnusableResult):
    """The result contains itself, or is nested too deeply."""


def to_json(value: Any, limit: int = MAX_BYTES) -> str:
    """The JSON text of a result; `limit` in bytes. Raises UnusableResult."""
    text = _dumped(value)
    if len(text) > limit:
        raise ResultTooLarge(
            f"the result has {len(text)} bytes of JSON, the limit is {limit}: write it to a file and return its name"
        )
    return text


def _dumped(value: Any) -> str:
    """The common case in one pass of C code; whatever that refuses takes the careful way."""
    try:
        return _encode(value)
    except UnusableResult:
        raise
    except (ValueError, TypeError, RecursionError):
        # NaN, a cycle, an unusual key, too deep: the careful way tells which
        return _dumped_carefully(value)


def _dumped_carefully(value: Any) -> str:
    try:
        return json.dumps(_plain(value, 0, ()), allow_nan=False, separators=(",", ":"))
    except ValueError as error:  # an integer with more digits than Python converts to text
        raise UnusableResult(f"the result cannot be written as JSON: {error}") from error


def _plain(value: Any, depth: int, parents: tuple[int, ...]) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple, dict)):
        if id(value) in parents:
            raise ResultTooDeep("the result contains itself")
        if depth >= MAX_DEPTH:
            raise ResultTooDeep(f"the result is nested deeper than {MAX_DEPTH} levels")
        return _plain_container(value, depth + 1, (*parents, id(value)))
    return _plain(_plain_leaf(value), depth + 1, parents)


def _plain_container(value: Any, depth: int, parents: tuple[int, ...]) -> Any:
    if isinstance(value, dict):
        return {_key(key): _plain(item, depth, parents) for key, item in value.items()}
    return [_plain(item, depth, parents) for item in value]


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    return _text(key)


def _plain_leaf(value: Any) -> Any:
    """What stands for a value that JSON does not know."""
    kind = type(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if kind.__module__.startswith("pyspark.") and kind.__name__ in _LAZY:
        raise UnusableResult(
            f"a job cannot return a {kind.__name__}: return its rows, for example with collect()"
        )
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        listed = value.tolist()  # a number for a scalar, nested lists for an array
        return listed if not isinstance(listed, float) or math.isfinite(listed) else None
    return _text(value)


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain_leaf).encode


def _text(value: Any) -> str:
    try:
        return without_root(str(value))
    except Exception as error:
        # str() of a stranger's class may raise anything; it must end as this job's error, not as ours
        raise UnusableResult(f"str() of a {type(value).__name__} in the result failed: {error!r}") from error
