"""Headers of RFC 7240 (`Prefer: wait`) and RFC 9110 (`If-None-Match`). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from jobserver.api.envelopes import Answer

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def preferred_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Prefer: wait=<n>`, None when it asks for none. A preference that cannot be read is passed over."""
    found = _WAIT.search(headers.get("Prefer", ""))
    return float(found[1]) if found else None


def applied(answer: Answer, seconds: float) -> Answer:
    """The answer, saying that the preference was followed."""
    return replace(answer, headers={**answer.headers, "Preference-Applied": f"wait={seconds:g}"})


def tagged(answer: Answer, tag: str, headers: Mapping[str, str]) -> Answer:
    """The answer under its entity tag, or 304 without a body when the client has it already."""
    answer = replace(answer, headers={**answer.headers, "ETag": f'"{tag}"'})
    known = headers.get("If-None-Match", "").strip()
    if known == "*" or tag in _TAG.findall(known):
        return replace(answer, status=304, body=b"")
    return answer
