"""Named objects as clients see them (pure)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from checkpoint.manifest import NamedObject
from jobserver.driver.held import Held
from jobserver.driver.origins import origin_of


def shown_record(record: NamedObject) -> dict[str, Any]:
    """An object that was not used yet."""
    return {
        "name": record.name,
        "kind": record.kind.value,
        "version": record.version,
        "state": "stored",
        "durability": record.durability,
        "strategy": record.strategy,
        "storage_level": record.storage_level,
        "rows": record.rows,
        "bytes": record.size,
        "checkpointed": True,
        "behind_seconds": 0.0,
        "rebuilt": origin_of(record.origin).rebuilt,
        "last_use": None,
        "uses": 0,
    }


def shown_held(held: Held, now: float) -> dict[str, Any]:
    """An object in memory; `now` in seconds since the epoch of Unix."""
    shown = {
        "name": held.name,
        "kind": held.kind,
        "version": held.version,
        "state": "live",
        "durability": held.options.durability,
        "strategy": held.strategy,
        "storage_level": held.options.storage_level,
        "rebuilt": held.rebuilt,
        "last_use": _instant(held.used_at),
        "uses": held.uses,
    }
    if held.record is not None:
        return {**shown_record(held.record), **shown}
    behind = round(max(now - held.made_at, 0.0), 3) if held.options.kept else None
    return {"rows": None, "bytes": None, "checkpointed": False, "behind_seconds": behind, **shown}


def shown_schema(schema: str | None) -> Any:
    """Spark's fields of a DataFrame: name, type, nullable; None for what has no schema."""
    return None if schema is None else json.loads(schema)["fields"]


def _instant(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
