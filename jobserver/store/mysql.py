"""What only MySQL and MariaDB need: connections and their session, and a server that this product can trust.

Isolation is READ COMMITTED: guards lock the rows that they look at by themselves (`guards.py`), and no gap between rows is
ever locked, so that servers which write for one context do not meet in deadlocks. The synchronous driver runs in the
threads of `database.py`, as SQLite's does.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

import pymysql
from pymysql.constants import CLIENT
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from jobserver.errors import BadConfig, SettingsRefused
from jobserver.store.address import MysqlAddress, Tls

CONNECT_TIMEOUT: Final = 3.0
LOCK_WAIT: Final = 1
"""Seconds a write waits for another's lock before it is rolled back and tried again; the database knows whole ones only."""
PING_AFTER: Final = 5.0
"""Seconds of idleness after which a connection is asked whether it still stands, before it is used."""
SMALLEST_PACKET: Final = 16 << 20

_MODE: Final = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_COMMON: Final = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    f"SET SESSION sql_mode = '{_MODE}'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT}",
)
_MARIADB_CODE: Final = 1193
"""Unknown system variable."""


def new_name() -> str:
    """A name for one server's writing connection, by which others can find and end it (`evict`)."""
    return f"jobserver-{secrets.token_hex(12)}"


def writing_engine(address: MysqlAddress, *, timeout: float, name: str) -> Engine:
    """One connection that holds the user lock `name` while it stands."""
    engine = _engine(address, timeout=timeout, connections=1, flags=CLIENT.MULTI_STATEMENTS, writes=True)

    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        _limit_idle_transactions(connection, timeout)
        _take_name(connection, name)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _start_transaction)
    return engine


def reading_engine(address: MysqlAddress, *, timeout: float) -> Engine:
    """Connections that cannot write; each statement sees what is committed when it begins."""
    engine = _engine(address, timeout=timeout, connections=address.readers, flags=0, writes=False)
    event.listen(engine, "connect", _refuse_writes)
    return engine


def _engine(address: MysqlAddress, *, timeout: float, connections: int, flags: int, writes: bool) -> Engine:
    engine = create_engine(
        URL.create(
            "mysql+pymysql",
            username=address.user,
            password=address.password,
            host=address.host,
            port=address.port,
            database=address.database,
        ),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout,
        pool_reset_on_return=None,  # nothing is open when a connection is given back; it would cost a message
        isolation_level="AUTOCOMMIT",
        paramstyle="format",
        skip_autocommit_rollback=not writes,  # a failed write must be rolled back before its connection is used again
        connect_args={
            "charset": "utf8mb4",
            "client_flag": flags | CLIENT.FOUND_ROWS,
            "connect_timeout": min(CONNECT_TIMEOUT, timeout),
            "read_timeout": 2 * timeout,
            "write_timeout": 2 * timeout,
            "program_name": "jobserver",
            **_tls(address),
        },
    )
    event.listen(engine, "connect", _prepare_session)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _ping_idle)
    return engine


def _tls(address: MysqlAddress) -> Mapping[str, Any]:
    return {"ssl_disabled": True} if address.tls is None else {"ssl": tls_context(address.tls)}


def tls_context(tls: Tls) -> ssl.SSLContext:
    """What connections are encrypted and, with an authority, the server is checked with. Raises BadConfig for unfit files.

    The files are read once: later ones are taken at the server's next start, and none can break a server that runs.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.ca is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert is not None:
            context.load_cert_chain(
                tls.cert, tls.key, password=""
            )  # else a locked key would ask at the terminal
    except (OSError, ValueError) as error:
        named = ", ".join(file for file in (tls.ca, tls.cert, tls.key) if file is not None)
        raise BadConfig(
            f"the certificates for the metadata store cannot be used: {error}; {named} must be readable files in PEM format,"
            " the key without a password"
        ) from error
    return context


def _prepare_session(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for statement in _COMMON:
        cursor.execute(statement)
    cursor.close()


def _limit_idle_transactions(connection: DBAPIConnection, timeout: float) -> None:
    """A transaction that stays open between two of our messages is ended by MariaDB itself; MySQL has no such limit."""
    cursor = connection.cursor()
    try:
        cursor.execute(f"SET SESSION idle_transaction_timeout = {math.ceil(timeout)}")
    except pymysql.MySQLError as error:
        if error.args[0] != _MARIADB_CODE:
            raise
    finally:
        cursor.close()


def _take_name(connection: DBAPIConnection, name: str) -> None:
    """Takes the user lock; a former connection of this server that still stands on the other side is ended."""
    cursor = connection.cursor()
    cursor.execute("SELECT IS_USED_LOCK(%s)", (name,))
    former = cursor.fetchone()
    if former is not None and former[0] is not None:
        with contextlib.suppress(pymysql.MySQLError):  # it may end by itself meanwhile
            cursor.execute(f"KILL CONNECTION {int(former[0])}")
    cursor.execute("SELECT GET_LOCK(%s, %s)", (name, LOCK_WAIT))
    taken = cursor.fetchone()
    cursor.close()
    if taken is None or taken[0] != 1:
        raise pymysql.OperationalError(f"the former connection of this server ({name}) does not end")


def _refuse_writes(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("SET SESSION TRANSACTION READ ONLY")
    cursor.close()


def _note_use(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info["used"] = time.monotonic()


def _ping_idle(
    connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """A database that was restarted, or a firewall that forgot the connection, costs no write its outcome."""
    if time.monotonic() - entry.info.get("used", math.inf) < PING_AFTER:
        return
    try:
        connection.ping(reconnect=False)
    except (pymysql.MySQLError, OSError) as error:
        raise DisconnectionError(str(error)) from error


def _start_transaction(connection: Connection) -> None:
    connection.exec_driver_sql("START TRANSACTION")


def evict(context_id: str, but: str) -> Any:
    """Ends the writing connection of the server that the context's fence names; not that of `but`. Runs as a read.

    What that connection holds is rolled back. A user may end its own connections: all servers need one SQL user.
    """

    def run(connection: Connection) -> bool:
        holder = connection.exec_driver_sql(
            "SELECT IS_USED_LOCK(connection) FROM fences WHERE context_id = %s AND connection NOT IN ('', %s)",
            (context_id, but),
        ).scalar()
        if holder is None:
            return False
        try:
            connection.exec_driver_sql(f"KILL CONNECTION {int(holder)}")
        except Exception as error:
            if _code_of(error) != 1094:  # it ended by itself meanwhile
                raise
        return True

    return run


def _code_of(error: Exception) -> int:
    original = getattr(error, "orig", error)
    return original.args[0] if original is not None and original.args else 0


_FACTS: Final = (
    "tx_isolation",
    "transaction_isolation",
    "sql_mode",
    "max_allowed_packet",
    "wsrep_on",
    "group_replication_single_primary_mode",
    "group_replication_group_name",
    "log_bin",
    "binlog_format",
    "read_only",
)


def refuse_unfit(connection: Connection) -> None:
    """Raises SettingsRefused, with a sentence for each fault, when the promises cannot be kept on this server."""
    names = ", ".join(f"'{name}'" for name in _FACTS)
    rows = connection.exec_driver_sql(f"SHOW VARIABLES WHERE Variable_name IN ({names})")
    facts = {row[0]: str(row[1]) for row in rows}
    engines = connection.exec_driver_sql(
        "SELECT table_name, engine FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND engine <> 'InnoDB'"
    )
    faults = unfit(facts, {row[0]: row[1] for row in engines})
    if faults:
        raise SettingsRefused("\n".join(faults))


def unfit(facts: Mapping[str, str], other_engines: Mapping[str, str]) -> list[str]:
    """What is wrong with a server of these variables and tables of another engine than InnoDB. Pure."""
    faults = []
    if facts.get("wsrep_on", "OFF") in ("ON", "1"):
        faults.append(
            "The metadata store is a Galera cluster (wsrep_on): several of its servers take writes at once, and a"
            " fence that one of them has raised is not seen by the others' writes in time. Use one server that takes"
            " all writes, with replicas if you like."
        )
    if facts.get("group_replication_single_primary_mode") == "OFF" and facts.get(
        "group_replication_group_name"
    ):
        faults.append(
            "The metadata store is a replication group in which every member takes writes"
            " (group_replication_single_primary_mode = OFF): set it to ON and name the primary."
        )
    isolation = facts.get("transaction_isolation") or facts.get("tx_isolation", "")
    if isolation != "READ-COMMITTED":
        faults.append(
            f"The metadata store gave a session the isolation level {isolation}, not the READ-COMMITTED that was asked"
            " for: connect to the server itself, not through a proxy that changes sessions."
        )
    if "NO_BACKSLASH_ESCAPES" in facts.get("sql_mode", "") or "STRICT_ALL_TABLES" not in facts.get(
        "sql_mode", ""
    ):
        faults.append(
            f"The metadata store gave a session the SQL mode '{facts.get('sql_mode')}', not '{_MODE}', which was asked"
            " for: connect to the server itself, not through a proxy that changes sessions."
        )
    if facts.get("log_bin") in ("ON", "1") and facts.get("binlog_format") == "STATEMENT":
        faults.append(
            "The metadata store has binlog_format = STATEMENT, which refuses writes under READ COMMITTED: set it to"
            " MIXED or ROW."
        )
    if int(facts.get("max_allowed_packet", SMALLEST_PACKET)) < SMALLEST_PACKET:
        faults.append(
            f"The metadata store has max_allowed_packet = {facts['max_allowed_packet']}; it must be at least"
            f" {SMALLEST_PACKET} (16M), or results of jobs would not fit."
        )
    faults.extend(
        f"The table {table} is of the engine {engine}; only InnoDB has transactions and row locks:"
        f" ALTER TABLE {table} ENGINE=InnoDB."
        for table, engine in sorted(other_engines.items())
    )
    return faults
