"""Posted configurations: bytes to a plain object (rest_contract 4.3 and 5.5).

The content type is ignored, as clients send anything (curl says it is a form); only a charset in it is honoured. Plain
JSON takes a fast path; everything else is HOCON. Whatever cannot be used is a BadConfig with one sentence.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from jobserver.api.hocon_parser import MAX_NESTING, HoconError, parse
from jobserver.api.hocon_resolver import nesting, resolve
from jobserver.api.limits import ApiLimits
from jobserver.errors import BadConfig

THREAD_FROM = 8_192
"""A HOCON body of so many bytes is parsed in a thread, so that others' requests go on."""

_CHARSETS = {
    name: codec
    for codec, names in {
        "utf-8": ("utf-8", "utf8"),
        "ascii": ("ascii", "us-ascii"),
        "latin-1": ("iso-8859-1", "latin1", "latin-1"),
        "cp1252": ("windows-1252",),
        "utf-16": ("utf-16", "utf16"),
    }.items()
    for name in names
}


async def configuration(data: bytes, charset: str | None, limits: ApiLimits) -> dict[str, Any]:
    """The resolved configuration of a body; an empty one is `{}`. Raises BadConfig."""
    if not data:
        return {}
    text = _decode(data, charset)
    parsed = _as_json(text)
    if parsed is not None:
        return parsed
    if len(data) > limits.max_hocon:
        refuse(f"a body of more than {limits.max_hocon} bytes must be a plain JSON object")
    if len(data) < THREAD_FROM:
        return hocon(text)
    return await asyncio.to_thread(hocon, text)


def refuse(sentence: str) -> NoReturn:
    """Ends the request with the contract's words for a configuration that cannot be used."""
    raise BadConfig(f"Cannot parse config: {sentence}")


def _decode(data: bytes, charset: str | None) -> str:
    codec = _CHARSETS.get((charset or "utf-8").strip().lower())
    if codec is None:
        refuse("the charset of the content type is not known, send UTF-8")
    try:
        return data.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        refuse(f"the body is not {codec.upper()} at byte {error.start}")


def _as_json(text: str) -> dict[str, Any] | None:
    """The object that the text is in plain JSON, else None: HOCON then says what is wrong with it."""
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if text.count("[") + text.count("{") > MAX_NESTING and nesting(value) > MAX_NESTING:
        refuse(f"more than {MAX_NESTING} levels are nested")
    if "\\ud" in text or "\\uD" in text:
        _check_text(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is out of range")
    return value


_JSON = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def hocon(text: str) -> dict[str, Any]:
    """The plain value of a HOCON text. Raises BadConfig."""
    try:
        value = resolve(parse(text))
    except HoconError as error:
        refuse(str(error))
    except RecursionError:  # the bounds keep far from it; a caller deep in its own stack may still meet it
        refuse("the configuration is nested too deep")
    _check_text(value)
    return value


def _check_text(value: dict[str, Any]) -> None:
    """Refuses half a surrogate pair (from an escape): no encoding can carry it on."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        refuse("a text holds half a surrogate pair (\\ud800 to \\udfff)")
