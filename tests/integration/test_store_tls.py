"""TLS and credentials to a real MariaDB, with a certificate of an authority made for the test, and what must be refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from jobserver.errors import BadConfig, StoreUnavailable
from jobserver.local.mariadb import DATABASE, USER, MariaDbServer
from jobserver.local.ports import LOOPBACK, free_ports
from jobserver.settings import database_url, settings_of
from jobserver.store.database import Database
from tests.mariadb import of_server

CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
PRIVATE = "private"
"""A user who may come with a certificate only."""


@dataclass
class Private:
    """A MariaDB with a certificate for its address, and the files of who trusts or mistrusts it."""

    server: MariaDbServer
    ca: Path
    other_ca: Path
    client_cert: Path
    client_key: Path

    @property
    def password(self) -> str:
        return self.server.password_file.read_text().strip()

    def url(self, environ: Mapping[str, str] | None = None, **database: Any) -> str:
        """The address that the settings of a server lead to."""
        settings = settings_of({"database": {"url": self.server.url, **database}})
        return database_url(settings.database, environ or {})


@pytest.fixture(scope="module")
def private(mariadb_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    files = {
        name: folder / f"{name}.pem" for name in ("ca", "other_ca", "cert", "key", "client", "client_key")
    }
    authority.cert_pem.write_to_path(files["ca"])
    stranger.cert_pem.write_to_path(files["other_ca"])
    mine = authority.issue_cert(LOOPBACK)
    mine.cert_chain_pems[0].write_to_path(files["cert"])
    mine.private_key_pem.write_to_path(files["key"])
    client = authority.issue_cert("client@example.org")
    client.cert_chain_pems[0].write_to_path(files["client"])
    client.private_key_pem.write_to_path(files["client_key"])
    options = [f"--ssl-ca={files['ca']}", f"--ssl-cert={files['cert']}", f"--ssl-key={files['key']}"]
    server = MariaDbServer(folder / "mariadb", free_ports(1)[0], mariadb_base, options)
    server.install()
    server.launch()
    try:
        server.wait_serving()
        password = server.password_file.read_text().strip()
        of_server(server).run(
            f"CREATE USER '{PRIVATE}'@'{LOOPBACK}' IDENTIFIED BY '{password}' REQUIRE X509",
            f"GRANT ALL ON {DATABASE}.* TO '{PRIVATE}'@'{LOOPBACK}'",
        )
        yield Private(server, files["ca"], files["other_ca"], files["client"], files["client_key"])
    finally:
        server.stop(grace=0)


async def ciphers(url: str) -> list[str]:
    """What the reading and the writing connection are encrypted with; empty where they are not. Raises StoreUnavailable."""
    database = Database.open(url, timeout=5)
    try:
        return [
            await way(lambda connection: str(connection.exec_driver_sql(CIPHER).one()[1]))
            for way in (database.read, database.write)
        ]
    finally:
        await database.close()


async def test_with_its_authority_known_every_connection_is_encrypted(private: Private) -> None:
    found = await ciphers(private.url(password=private.password, tls=True, tls_ca=str(private.ca)))
    assert len(found) == 2
    assert all(found), found


async def test_a_database_whose_certificate_is_of_another_authority_is_not_spoken_to(
    private: Private,
) -> None:
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate verify failed"):
        await ciphers(private.url(password=private.password, tls=True, tls_ca=str(private.other_ca)))


async def test_a_database_whose_certificate_is_for_another_host_is_not_spoken_to(private: Private) -> None:
    url = private.url(password=private.password, tls=True, tls_ca=str(private.ca)).replace(
        LOOPBACK, "localhost"
    )
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate verify failed.*hostname mismatch"):
        await ciphers(url)


async def test_a_user_who_needs_a_certificate_comes_in_with_it_and_not_without(private: Private) -> None:
    with_it = {"tls_cert": str(private.client_cert), "tls_key": str(private.client_key)}
    trusted = {"user": PRIVATE, "password": private.password, "tls": True, "tls_ca": str(private.ca)}
    assert all(await ciphers(_as(private.url(**trusted, **with_it))))
    with pytest.raises(StoreUnavailable, match="Access denied"):
        await ciphers(_as(private.url(**trusted)))


def _as(url: str) -> str:
    """Without the user in front of the host: the settings name another."""
    return url.replace(f"{USER}@", "", 1)


async def test_tls_that_is_asked_for_is_never_left_out(mariadb: MariaDbServer) -> None:
    """This database has no certificate; a connection in the open would be taken by an eavesdropper's, too."""
    settings = settings_of({"database": {"url": mariadb.url, "tls": True}})
    environ = {"JOBSERVER_DATABASE_PASSWORD": mariadb.password_file.read_text().strip()}
    assert not any(
        await ciphers(database_url(settings_of({"database": {"url": mariadb.url}}).database, environ))
    )
    with pytest.raises(StoreUnavailable, match="SSL is required"):
        await ciphers(database_url(settings.database, environ))


async def test_files_that_hold_no_certificates_are_refused_before_anything_is_connected(
    private: Private, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    for files in (
        {"tls_ca": nonsense},
        {"tls_ca": tmp_path / "missing.pem"},
        {"tls_cert": private.client_cert, "tls_key": nonsense},
        {"tls_cert": private.client_cert, "tls_key": private.server.directory / "server.key"},
    ):
        url = private.url(
            password=private.password, tls=True, **{name: str(file) for name, file in files.items()}
        )
        with pytest.raises(
            BadConfig, match=r"certificates for the metadata store cannot be used: .* PEM format"
        ):
            Database.open(url, timeout=5)


async def test_user_and_password_come_from_the_environment_or_a_file_and_wrong_ones_are_refused(
    private: Private, tmp_path: Path
) -> None:
    environ = {"JOBSERVER_DATABASE_USER": USER, "JOBSERVER_DATABASE_PASSWORD": private.password}
    bare = private.server.url.replace(f"{USER}@", "")
    in_environment = settings_of({"database": {"url": bare, "tls": True, "tls_ca": str(private.ca)}})
    assert all(await ciphers(database_url(in_environment.database, environ)))
    assert all(
        await ciphers(
            private.url(password_file=str(private.server.password_file), tls=True, tls_ca=str(private.ca))
        )
    )
    wrong = tmp_path / "password"
    wrong.write_text("wrong\n")
    with pytest.raises(StoreUnavailable, match="Access denied"):
        await ciphers(private.url(password_file=str(wrong), tls=True, tls_ca=str(private.ca)))
