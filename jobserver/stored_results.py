"""Results that are too large for SQL: in their place stands a reference, which no JSON text can be. Pure.

The bytes are JSON in UTF-8, in segments in the checkpoint store, below `layout.result_folder(job, attempt)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INLINE_LIMIT = 2**20
"""Largest result in bytes that is kept in SQL."""
_REFERENCE = re.compile(r"@stored (\d{1,15}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class StoredResult:
    """Size in bytes, and the SHA-256 (hex) of all of them."""

    size: int
    digest: str

    @property
    def reference(self) -> str:
        """What stands in the place of the result."""
        return f"@stored {self.size} {self.digest}"


def stored_result(result: str | None) -> StoredResult | None:
    """The reference in a job's result; None when that is the result itself."""
    if result is None or not result.startswith("@"):
        return None
    found = _REFERENCE.fullmatch(result)
    return None if found is None else StoredResult(int(found[1]), found[2])
