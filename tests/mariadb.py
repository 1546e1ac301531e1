"""Databases on a MariaDB for tests: made, emptied and looked at over a connection of the tests' own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pymysql

from jobserver.local.mariadb import MariaDbServer
from jobserver.local.ports import LOOPBACK
from jobserver.store.address import MysqlAddress, parsed

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Databases:
    """One server's databases. `admin` opens a connection of its root user."""

    host: str
    port: int
    user: str
    password: str
    admin: Callable[[], pymysql.Connection]

    def new(self) -> str:
        """The address of a new, empty database."""
        name = f"jobserver_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return f"mysql://{self.user}:{self.password}@{self.host}:{self.port}/{name}"

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements as root; the rows of the last."""
        connection = self.admin()
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def empty(self, url: str) -> None:
        """Deletes the rows of every table but the schema's version."""
        name = address_of(url).database
        found = self.run(
            "SELECT table_name FROM information_schema.tables"
            f" WHERE table_schema = '{name}' AND table_name <> 'alembic_version'"
        )
        deletions = [f"DELETE FROM {name}.{table}" for (table,) in found]
        self.run("SET foreign_key_checks = 0", "START TRANSACTION", *deletions, "COMMIT")


def of_server(server: MariaDbServer) -> Databases:
    """The databases of a server of ours; root enters by its socket file."""
    return Databases(
        LOOPBACK,
        server.port,
        "jobserver",
        server.password_file.read_text().strip(),
        lambda: pymysql.connect(user="root", unix_socket=str(server.socket), autocommit=True),
    )


def engine_trouble() -> str | None:
    """Why no container can be started, in one line; None where an engine answers."""
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    try:
        DockerClient().client.ping()
    except (DockerException, OSError) as error:
        return f"no container engine answers ({' '.join(str(error).split())[:200]})"
    return None


@contextlib.contextmanager
def in_container(image: str) -> Iterator[Databases]:
    """The databases of a container of that image, for as long as the block runs."""
    from testcontainers.mysql import MySqlContainer

    container = MySqlContainer(image, username="jobserver", password="jobserver", dbname="jobserver")
    with container.with_command("--skip-name-resolve") as running:
        host, port = running.get_container_host_ip(), int(running.get_exposed_port(3306))

        def admin() -> pymysql.Connection:
            return pymysql.connect(
                host=host, port=port, user="root", password=running.root_password, autocommit=True
            )

        databases = Databases(host, port, "jobserver", "jobserver", admin)
        databases.run("GRANT ALL ON *.* TO 'jobserver'@'%'")
        yield databases


def address_of(url: str) -> MysqlAddress:
    """The parts of an address of these."""
    address = parsed(url)
    assert isinstance(address, MysqlAddress)
    return address


def connected(url: str, **options: Any) -> pymysql.Connection:
    """A plain connection to the database of that address."""
    address = address_of(url)
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=address.database,
        **options,
    )


def rows(connection: pymysql.Connection, *statements: str) -> Sequence[tuple[Any, ...]]:
    """Runs statements; the rows of the last."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()
