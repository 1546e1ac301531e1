"""Who sends a request. Today everybody is `anonymous`, as in the contract's default provider; the others belong here."""

from __future__ import annotations

from collections.abc import Mapping


def principal(headers: Mapping[str, str]) -> str:
    """The name under which the request's jobs and keys are kept."""
    return "anonymous"
