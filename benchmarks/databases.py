"""The databases that benchmarks measure: a MariaDB of their own, and jobs of the past written straight into the tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from jobserver.local.java import find_java
from jobserver.local.layout import archive_cache
from jobserver.local.mariadb import MariaDbServer, unpacked
from jobserver.local.ports import free_ports
from jobserver.model import ContextRecord, ContextState, Fence
from jobserver.store.database import Database
from jobserver.store.metadata import Metadata

PAST = "past"
"""The ended context of jobs that are written into the tables; its id and its name."""
MEMORY = ("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G")
"""A million jobs and their indexes fit, as they should in production."""
_SPEC = '{"main_class":"demo.Job","binaries":[],"config":"{}","max_attempts":3,"on_failover":"rerun"}'
_FILL = """
    INSERT INTO jobs (id, context_id, context_name, state, submitted_at, changed_at, started_at, ended_at, attempt,
        deaths, priority, principal, spec, main_class, outcome, error, result)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
    SELECT {id}, '{past}', {context}, CASE WHEN i % 50 = 0 THEN 'ERROR' WHEN i % 100 = 1 THEN 'KILLED' ELSE 'FINISHED' END,
        {begin} + i * 1000, {begin} + i * 1000, {begin} + i * 1000, {begin} + i * 1000, 1, 0, 0, 'p', '{spec}',
        {main_class}, CASE WHEN i % 50 = 0 THEN 'failed' ELSE 'finished' END,
        CASE WHEN i % 50 = 0 THEN '{{"message":"it broke","error_class":"demo.Broken","stack":""}}' END, '{{"n":1}}' FROM n
"""
_TEXTS = {
    "sqlite": (
        "printf('%08x-{0}', i * 2654435761 % 4294967296)",
        "'context-' || (i % 100)",
        "'demo.Job' || (i % 20)",
    ),
    "mysql": (
        "CONCAT(LPAD(HEX(i * 2654435761 % 4294967296), 8, '0'), '-{0}')",
        "CONCAT('context-', i % 100)",
        "CONCAT('demo.Job', i % 20)",
    ),
}
_UNCHECKED = (
    "SET SESSION unique_checks = 0",
    "SET SESSION foreign_key_checks = 0",
    "SET SESSION max_recursive_iterations = {}",
    "TRUNCATE TABLE jobs",
    "START TRANSACTION",
)
_REST_OF_ID = "4d3c-8a51-1f2e3d4c5b6a"


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """A MariaDB below the folder; the address of its database. Every commit is on the disk before it is acknowledged."""
    base = unpacked(find_java().command, archive_cache(os.environ) / "mariadb")
    server = MariaDbServer(folder / "mariadb", free_ports(1)[0], base, MEMORY)
    server.install()
    server.launch()
    try:
        server.wait_serving()
        yield with_password(server)
    finally:
        server.stop()


def with_password(server: MariaDbServer) -> str:
    """The address of its database."""
    return server.url.replace("@", f":{server.password_file.read_text().strip()}@", 1)


async def end_of_past(store: Metadata) -> None:
    """Makes the ended context that filled jobs belong to."""
    then = datetime.now(UTC)
    record = ContextRecord(PAST, PAST, {}, ContextState.STARTED, False, then)
    await store.create_context(record)
    await store.grant(PAST, 0, "s1", "i1", "t1")
    await store.move_context(Fence(PAST, 1, "t1"), [ContextState.STARTED], ContextState.KILLED, at=then)


async def fill(database: Database, count: int) -> None:
    """So many ended jobs in place of all others, a millisecond apart; of 100 names of contexts and 20 classes.

    Their ids are scattered, as random ones are: a list's rows do not lie beside each other.
    """
    await database.write(partial(_fill, count=count))


def _fill(connection: Connection, *, count: int) -> None:
    """One statement into an empty table, which MariaDB sorts and loads at once where nothing is to be checked."""
    name = connection.dialect.name
    first = ["DELETE FROM jobs"] if name == "sqlite" else [setting.format(count) for setting in _UNCHECKED]
    for statement in first:
        connection.exec_driver_sql(statement)
    begin = int((datetime.now(UTC) - timedelta(days=1)).timestamp()) * 1_000_000
    key, context, main_class = (text.format(_REST_OF_ID) for text in _TEXTS[name])
    filling = _FILL.format(
        count=count, begin=begin, past=PAST, spec=_SPEC, id=key, context=context, main_class=main_class
    )
    connection.exec_driver_sql(filling if name == "sqlite" else filling.replace("%", "%%"))
