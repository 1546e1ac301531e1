"""Where the metadata are: the text of an address to its parts. Pure; every refusal says what was expected.

Accepted are `sqlite:///<file>` (also `sqlite+aiosqlite`), `mysql://` and `mariadb://` with any driver's name behind a `+`
(the driver is ours to choose), and what existing Spark job servers have in their files: `jdbc:mysql://host:3306/db?user=…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from jobserver.errors import BadConfig

MYSQL_PORT = 3306
READERS = 2
"""Reading threads, each with a connection of its own, unless the address says otherwise."""
_SHOWN = "sqlite:////var/lib/jobserver/metadata.db or mysql://user@host:3306/database"
_PASSWORD = re.compile(r"(?<=:)[^:@/]*(?=@)|(?<=password=)[^&]*")
_OURS = ("user", "password", "tls", "tls_ca", "tls_cert", "tls_key", "readers")
_JDBC_TLS = {"useSSL": "tls", "requireSSL": "tls", "sslMode": "tls"}
_JDBC_WITHOUT_MEANING = frozenset(
    {
        "allowPublicKeyRetrieval",
        "autoReconnect",
        "cachePrepStmts",
        "characterEncoding",
        "prepStmtCacheSize",
        "prepStmtCacheSqlLimit",
        "rewriteBatchedStatements",
        "serverTimezone",
        "useServerPrepStmts",
        "useUnicode",
        "verifyServerCertificate",
        "zeroDateTimeBehavior",
    }
)


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A file of this machine."""

    path: str


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is kept private. With `ca` the server's certificate is checked, its name included."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class MysqlAddress:
    """A database of a MySQL or MariaDB server."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    tls: Tls | None = None
    readers: int = READERS


Address = SqliteAddress | MysqlAddress


def parsed(text: str) -> Address:
    """The parts of an address. Raises BadConfig."""
    jdbc = text.startswith("jdbc:")
    try:
        url = make_url(text.removeprefix("jdbc:"))
    except (ArgumentError, ValueError):
        raise BadConfig(f"{shown(text)!r} is no address of a metadata store ({_SHOWN})") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _sqlite(url)
    if kind in ("mysql", "mariadb"):
        return _mysql(url, text, jdbc=jdbc)
    raise BadConfig(f"metadata stores of kind {kind!r} are not supported ({_SHOWN})")


def shown(text: str) -> str:
    """The address without a password: for people."""
    return _PASSWORD.sub("***", text)


def _sqlite(url: URL) -> SqliteAddress:
    if not url.database or url.database == ":memory:":
        raise BadConfig("the metadata store needs a file, as in sqlite:////var/lib/jobserver/metadata.db")
    return SqliteAddress(url.database)


def _mysql(url: URL, text: str, *, jdbc: bool) -> MysqlAddress:
    if not url.host or not url.database:
        raise BadConfig(f"{shown(text)!r} names no host or no database: mysql://user@host:3306/database")
    if "," in url.host:
        raise BadConfig(
            f"{shown(text)!r} names several hosts: the metadata need one server that takes all writes; name that"
            " one, or the address that follows it"
        )
    query = _jdbc_query(url) if jdbc else {name: _one(url, name) for name in url.query}
    unknown = sorted(set(query) - set(_OURS))
    if unknown:
        raise BadConfig(
            f"the address of the metadata store has unknown parts: {', '.join(unknown)} (known: {', '.join(_OURS)})"
        )
    user = query.get("user") or url.username
    if not user:
        raise BadConfig(f"{shown(text)!r} names no user; set database.user")
    return MysqlAddress(
        host=url.host,
        port=url.port or MYSQL_PORT,
        database=url.database,
        user=user,
        password=query.get("password", url.password or ""),
        tls=_tls(query),
        readers=_readers(query.get("readers", str(READERS))),
    )


def _jdbc_query(url: URL) -> dict[str, str]:
    """What JDBC's parameters mean here."""
    query: dict[str, str] = {}
    for name in url.query:
        value = _one(url, name)
        if name in _JDBC_TLS:
            query["tls"] = str(value.lower() not in ("false", "disabled", "preferred")).lower()
        elif name not in _JDBC_WITHOUT_MEANING:
            query[name] = value
    return query


def _one(url: URL, name: str) -> str:
    value = url.query[name]
    if not isinstance(value, str):
        raise BadConfig(f"the address of the metadata store says {name!r} more than once")
    return value


def _tls(query: Mapping[str, str]) -> Tls | None:
    files = {name: query.get(f"tls_{name}") or None for name in ("ca", "cert", "key")}
    if (files["cert"] is None) != (files["key"] is None):
        raise BadConfig("a client's certificate needs both tls_cert and tls_key")
    wanted = query.get("tls", "true" if any(files.values()) else "false")
    if wanted not in ("true", "false"):
        raise BadConfig(f"tls is {wanted!r}; it must be true or false")
    if wanted == "false":
        if any(files.values()):
            raise BadConfig("tls is false, but certificates are named: leave one of both out")
        return None
    return Tls(**files)


def _readers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise BadConfig(f"readers is {text!r}; it must be a number from 1 to 64")
    return int(text)
