"""How a test asks for rows by SQL."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from live_cluster import Live, Reply


def sql(live: Live, context: str | None, text: str, sync: bool = True, **body: Any) -> Reply:
    where = "" if context is None else f"&context={context}"
    query = f"/jobs?sql={quote(text)}&sync={str(sync).lower()}&timeout=60{where}"
    return live.ask("POST", query, json.dumps(body))
