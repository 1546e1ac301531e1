"""Which of the forms that an answer can take a client prefers: the header `Accept` of RFC 9110, section 12.5.1. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobserver.model import ResultFormat

_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)
FORMATS = (ResultFormat.JSON, ResultFormat.ARROW, ResultFormat.PARQUET)


def preferred(accept: str | None, offered: Sequence[ResultFormat]) -> ResultFormat | None:
    """The offered format that the client likes best, the first of equals; None when it takes none of them.

    Without the header everything is taken. What cannot be read of it is passed over.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_range(part) for part in accept.split(",")]
    liked = [(_quality(form.media_type, ranges), form) for form in offered]
    best = max(quality for quality, _ in liked)
    return next(form for quality, form in liked if quality == best) if best > 0 else None


def submitted_format(accept: str | None) -> ResultFormat:
    """The format of a submission's result, if that is a DataFrame. What names none of ours is no wish: JSON."""
    return preferred(accept, FORMATS) or ResultFormat.JSON


def _range(text: str) -> tuple[str, float]:
    """Media range and quality."""
    name, *parameters = text.split(";")
    found = [_QUALITY.fullmatch(each) for each in parameters]
    quality = next((float(match[1]) for match in found if match), 1.0)
    return name.strip().lower(), quality


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """That of the most specific range which covers the type; 0 when none does."""
    for wanted in (media, media.partition("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0
