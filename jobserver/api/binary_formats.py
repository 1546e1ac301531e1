"""Kinds of uploads: which content type names which, and what their bytes must look like (rest_contract section 3)."""

from __future__ import annotations

import ast
import asyncio

from jobserver.api.limits import ApiLimits
from jobserver.archives import MAX_PYTHON, MAX_UNPACKED, fault_of
from jobserver.errors import BadBinary
from jobserver.model import BinaryType

_TYPES = {
    "application/java-archive": BinaryType.JAR,
    "application/python-egg": BinaryType.EGG,
    "application/python-archive": BinaryType.EGG,
    "application/python-wheel": BinaryType.WHEEL,
    "application/zip": BinaryType.ZIP,
    "text/x-python": BinaryType.PYTHON,
    "application/x-python": BinaryType.PYTHON,
}
MEDIA_TYPES = tuple(_TYPES)
"""What an upload may be declared as."""
_ZIP_HEAD = b"PK\x03\x04"
_WRONG = "Binary is not of the right format"


def named_type(content_type: str | None) -> BinaryType | None:
    """The kind that a Content-Type header names (its parameters are ignored), or None."""
    if content_type is None:
        return None
    return _TYPES.get(content_type.split(";", 1)[0].strip().lower())


async def check_bytes(kind: BinaryType, data: bytes, limits: ApiLimits) -> None:
    """Raises BadBinary unless the bytes can be of that kind: a zip's head, or Python source that parses.

    What reads as an archive must not unpack to too much, nor hold paths that lead out of it.
    """
    if kind is not BinaryType.PYTHON:
        if len(data) <= len(_ZIP_HEAD) or not data.startswith(_ZIP_HEAD):
            raise BadBinary(_WRONG)
        most = MAX_UNPACKED if kind is BinaryType.JAR else MAX_PYTHON
        fault = await asyncio.to_thread(fault_of, data, most)
        if fault is not None:
            raise BadBinary(fault)
        return
    if len(data) > limits.max_python_source:
        raise BadBinary(f"A single Python file must not be larger than {limits.max_python_source} bytes")
    await asyncio.to_thread(check_source, data)


def check_source(data: bytes) -> None:
    """Raises BadBinary unless the bytes are non-empty UTF-8 Python that this server's Python can parse."""
    try:
        data.decode("utf-8")
        empty = not ast.parse(data, "<upload>").body
    # Null bytes are a ValueError, deep nesting a RecursionError or MemoryError of the parser, not of the process.
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise BadBinary(_WRONG) from error
    if empty:
        raise BadBinary(_WRONG)
