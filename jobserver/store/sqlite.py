"""What only SQLite needs: its pragmas, its way to begin a write, and its address. Nothing else knows this dialect.

Engines are synchronous and run in threads of ours (`database.py`): with an async driver every statement would cost
several hand-overs between threads, here a whole group of writes costs one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event

from jobserver.errors import BadConfig
from jobserver.store import plain, transaction
from jobserver.store.change import Change
from jobserver.store.transaction import Outcome, RunTogether, Work

SYNCHRONOUS: Final = ("FULL", "NORMAL")
"""FULL survives power loss; NORMAL survives only the death of processes and may lose the last commits."""

BEGIN: Final = "BEGIN IMMEDIATE"
_WAL_RETRY_SECONDS = 0.02


def writing_engine(path: str, *, timeout: float, synchronous: str) -> Engine:
    """One connection; each transaction takes the write lock when it begins, waiting up to `timeout` seconds.

    A transaction that began with a read could not be upgraded once another process has written.
    """
    engine = _engine(path, timeout=timeout, synchronous=synchronous, connections=1)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reading_engine(path: str, *, timeout: float, connections: int) -> Engine:
    """Connections that cannot write. In WAL mode readers and the writer do not wait for each other."""
    engine = _engine(path, timeout=timeout, synchronous="FULL", connections=connections)
    event.listen(engine, "connect", _refuse_writes)
    return engine


def grouping(engine: Engine) -> RunTogether:
    """How groups of writes are run on this engine. Those of declared changes need no connection of SQLAlchemy's."""
    kept = plain.KeptConnection(engine, BEGIN)

    def run_together(_engine: Engine, works: Sequence[Work[Any]]) -> list[Outcome]:
        declared = all(isinstance(work, Change) for work in works)
        return transaction.run_together(engine, works, kept.opened if declared else Engine.connect)

    return run_together


def _engine(path: str, *, timeout: float, synchronous: str, connections: int) -> Engine:
    if synchronous not in SYNCHRONOUS:
        raise BadConfig(f"synchronous is {synchronous!r}; it must be one of {', '.join(SYNCHRONOUS)}")
    engine = create_engine(
        URL.create("sqlite", database=path),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout,
        connect_args={"timeout": timeout, "check_same_thread": False},
    )

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions by itself
        _use_wal(connection, timeout)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    event.listen(engine, "connect", prepare)
    return engine


def _use_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Two processes that open a new file at once: SQLite refuses one without waiting, so we wait here."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_SECONDS)


def _refuse_writes(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA query_only=ON")


def _begin_immediate(connection: Connection) -> Any:
    connection.exec_driver_sql(BEGIN)
