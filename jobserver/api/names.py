"""What a binary, a context and an Idempotency-Key may be called. Pure.

The contract knows one rule only (a context starts with a letter). The others keep names out of paths, logs and headers
that they would break; every name a sane client uses passes.
"""

from __future__ import annotations

import unicodedata

from jobserver.api.rejections import InvalidKey
from jobserver.errors import BadRequest

MAX_NAME = 255
_REFUSED_CATEGORIES = frozenset(
    {"Cc", "Cs", "Zl", "Zp"}
)  # control, half surrogates, line and paragraph separators


def check_binary_name(name: str) -> str:
    """The name of an upload. Raises BadRequest."""
    return _sane("binary name", name)


def check_context_name(name: str) -> str:
    """The name of a new context. Raises BadRequest."""
    if not name[:1].isalpha():
        raise BadRequest("context name must start with letters")
    return _sane("context name", name)


def check_config_name(name: str) -> str:
    """The name of a saved configuration. Raises BadRequest."""
    return _sane("config name", name)


def check_text(what: str, text: str, longest: int) -> str:
    """A text that is stored and shown, such as a main class. Raises BadRequest."""
    if len(text) > longest:
        raise BadRequest(f"{what} must not be longer than {longest} characters")
    if not _printable(text):
        raise BadRequest(f"{what} must not contain control characters")
    return text


def check_key(key: str | None) -> str | None:
    """An Idempotency-Key: 1 to 255 printable ASCII characters. Raises InvalidKey."""
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_NAME or not (key.isascii() and key.isprintable()):
        raise InvalidKey(f"Idempotency-Key must be 1 to {MAX_NAME} printable ASCII characters")
    return key


def _sane(what: str, name: str) -> str:
    if not name.strip() or name in (".", ".."):
        raise BadRequest(f"{what} must not be empty or a relative path")
    if "/" in name or "\\" in name:
        raise BadRequest(f"{what} must not contain path separators")
    return check_text(what, name, MAX_NAME)


def _printable(text: str) -> bool:
    if text.isascii():
        return text.isprintable()
    return all(unicodedata.category(character) not in _REFUSED_CATEGORIES for character in text)
