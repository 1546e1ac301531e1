"""Results that are too large for SQL, or no JSON: in their place stands a reference, which no JSON text can be. Pure.

The bytes are JSON in UTF-8, or the rows of a DataFrame in another format, in segments in the checkpoint store, below
`layout.result_folder(job, attempt)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobserver.model import ResultFormat

INLINE_LIMIT = 2**20
"""Largest result in bytes that is kept in SQL."""
_REFERENCE = re.compile(r"@stored (\d{1,15}) ([0-9a-f]{64})(?: (arrow|parquet) (\{.*\}))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """Size in bytes, and the SHA-256 (hex) of all of them. `shown`: the JSON that stands for rows in another format."""

    size: int
    digest: str
    format: ResultFormat = ResultFormat.JSON
    shown: str = ""

    @property
    def reference(self) -> str:
        """What stands in the place of the result."""
        other = "" if self.format is ResultFormat.JSON else f" {self.format.value} {self.shown}"
        return f"@stored {self.size} {self.digest}{other}"


def stored_result(result: str | None) -> StoredResult | None:
    """The reference in a job's result; None when that is the result itself."""
    if result is None or not result.startswith("@"):
        return None
    found = _REFERENCE.fullmatch(result)
    if found is None:
        return None
    form = ResultFormat(found[3]) if found[3] else ResultFormat.JSON
    return StoredResult(int(found[1]), found[2], form, found[4] or "")
