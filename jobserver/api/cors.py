"""Cross-origin requests, answered like the library of existing servers does with its defaults (rest_contract 1.8). Pure.

Every origin may call, with credentials; a preflight names GET, POST, HEAD and OPTIONS, so a page of another origin that
wants to delete uses `_method`.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobserver.api.envelopes import Answer, text_answer

_METHODS = ("GET", "POST", "HEAD", "OPTIONS")


def preflight(method: str, headers: Mapping[str, str]) -> Answer | None:
    """The answer to a preflight request, or None when this is not one."""
    asked = headers.get("Access-Control-Request-Method")
    if method != "OPTIONS" or asked is None or "Origin" not in headers:
        return None
    if asked not in _METHODS:
        return text_answer(f"CORS: invalid method '{asked[:50]}'", 400)
    allowed = {"Access-Control-Allow-Methods": ", ".join(_METHODS), "Access-Control-Max-Age": "1800"}
    wanted = headers.get("Access-Control-Request-Headers")
    if wanted and speakable(wanted):
        allowed["Access-Control-Allow-Headers"] = wanted
    return Answer(200, b"", headers=allowed)


def shared_with(origin: str) -> dict[str, str]:
    """What lets a page of that origin read the answer."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


def speakable(value: str) -> bool:
    """Whether a header of the request may be repeated in the answer: raw bytes of a broken client may not."""
    return value.isascii() and value.isprintable()
