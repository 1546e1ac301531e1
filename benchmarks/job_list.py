"""`GET /jobs?limit=50` through a server's REST API as the jobs of the past grow to a million, on SQLite and on MariaDB."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.connection import Connection, http_request
from benchmarks.databases import end_of_past, fill, mariadb
from benchmarks.measure import Effort, Goal, Section, Series
from jobserver.cli.db import upgrade_url
from jobserver.local.ports import free_ports
from jobserver.local.up import LocalCluster, Plan
from jobserver.settings import database_url, load
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata

SIZES = (1_000, 100_000, 1_000_000)
QUICK = (1_000, 2_000, 3_000)
PATIENCE = 300.0
FILTERS = {
    "the newest": "",
    "in ERROR": "&status=error",
    "of a context": "&context=context-7",
    "of a class": "&class=demo.Job7",
    "of a context in ERROR": "&context=context-50&status=error",
}
"""Of a hundred jobs one is of that context, two are in ERROR; of twenty one is of that class."""
LISTED = (Goal(0.5, 0.010),)


def run(effort: Effort) -> Section:
    """Both databases, the same lists; each size against the smallest."""
    series: list[Series] = []
    notes: list[str] = []
    for kind in ("SQLite", "MariaDB"):
        with (
            tempfile.TemporaryDirectory(prefix="jobserver-bench-") as folder,
            _server(kind, Path(folder)) as (
                url,
                database,
            ),
        ):
            found, filled = asyncio.run(_lists(kind, url, database, effort))
        series += found
        notes.append(f"{kind}: {filled}")
    return Section(
        "Lists of jobs",
        "GET /jobs?limit=50 through the server's REST API on one kept connection; each list against the same one of the"
        f" smallest number of jobs. MariaDB with 1 GB of memory for pages. {SIZES[-1]:,} jobs are the most.",
        series,
        notes,
    )


@contextmanager
def _server(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """One server without drivers; its address and that of its database."""
    if kind == "SQLite":
        with _cluster(folder, {}) as found:
            yield found
    else:
        with mariadb(folder) as address, _cluster(folder, {"url": address}) as found:
            yield found


@contextmanager
def _cluster(folder: Path, database: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sections = {"ha": {"standby": "cold"}, "driver": {"warm_drivers": 0}, "database": dict(database)}
    plan = Plan(folder / "cluster", 1, free_ports(1)[0], sections)
    with LocalCluster(plan, prepare_database=upgrade_url) as cluster:
        settings = load(cluster.layout.settings_file("s1"))
        yield cluster.url("s1"), database_url(settings.database, os.environ)


async def _lists(kind: str, url: str, address: str, effort: Effort) -> tuple[list[Series], str]:
    store = await Metadata.open(address, timeout=PATIENCE)
    await end_of_past(store)
    await store.close()
    database = Database.open(address, timeout=PATIENCE)
    found: list[Series] = []
    smallest: dict[str, Series] = {}
    filled: list[str] = []
    for count in QUICK if effort.quick else SIZES:
        begin = time.perf_counter()
        await fill(database, count)
        filled.append(f"{count:,} jobs written in {time.perf_counter() - begin:.1f} s")
        for name, condition in FILTERS.items():
            goals = LISTED if not condition and count == SIZES[-1] else ()
            series = Series(f"{kind}: {name}, {count:,} jobs", goals=goals, baseline=smallest.get(name))
            smallest.setdefault(name, series)
            await asyncio.to_thread(_ask, url, condition, series, effort.times(300, 20))
            found.append(series)
    await database.close()
    return found, ", ".join(filled)


def _ask(url: str, condition: str, series: Series, times: int) -> None:
    """One list again and again; the first answers, which fill caches, are not counted."""
    connection = Connection(f"http://{urlsplit(url).netloc}")
    request = http_request("GET", f"/jobs?limit=50{condition}")
    try:
        for number in range(times + 5):
            begin = time.perf_counter()
            status, body = connection.ask(request)
            took = time.perf_counter() - begin
            if status != 200 or not body.startswith(b"["):
                raise RuntimeError(f"GET /jobs answered {status}: {body[:300]!r}")
            if number >= 5:
                series.values.append(took)
    finally:
        connection.close()
