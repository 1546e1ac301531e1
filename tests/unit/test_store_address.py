"""Addresses of the metadata: what is taken, what is refused and with which words; credentials from settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobserver.errors import BadConfig, SettingsRefused
from jobserver.settings import database_url, settings_of
from jobserver.store.address import MysqlAddress, SqliteAddress, Tls, parsed, shown


@pytest.mark.parametrize("text", ["sqlite:////data/m.db", "sqlite+aiosqlite:////data/m.db"])
def test_a_file_is_an_address(text: str) -> None:
    assert parsed(text) == SqliteAddress("/data/m.db")


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u:p@db:3307/meta",
        "mariadb://u:p@db:3307/meta",
        "mysql+asyncmy://u:p@db:3307/meta",
        "mysql://db:3307/meta?user=u&password=p",
        "jdbc:mysql://db:3307/meta?user=u&password=p&useUnicode=true",
        "jdbc:mariadb://u:p@db:3307/meta",
    ],
)
def test_every_way_to_name_one_database_means_the_same(text: str) -> None:
    assert parsed(text) == MysqlAddress("db", 3307, "meta", "u", "p")


def test_the_port_is_mysqls_unless_it_is_named() -> None:
    assert parsed("jdbc:mysql://db/meta?user=u") == MysqlAddress("db", 3306, "meta", "u")


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("tls=true", Tls()),
        ("tls_ca=/ca.pem", Tls(ca="/ca.pem")),
        ("tls_ca=/ca&tls_cert=/c&tls_key=/k", Tls("/ca", "/c", "/k")),
        ("tls=false", None),
    ],
)
def test_privacy_is_part_of_the_address(query: str, tls: Tls | None) -> None:
    address = parsed(f"mysql://u@db/meta?{query}")
    assert isinstance(address, MysqlAddress)
    assert address.tls == tls


@pytest.mark.parametrize(
    ("parameter", "tls"), [("useSSL=true", Tls()), ("useSSL=false", None), ("sslMode=REQUIRED", Tls())]
)
def test_jdbcs_ssl_is_tls(parameter: str, tls: Tls | None) -> None:
    address = parsed(f"jdbc:mysql://db/meta?user=u&{parameter}")
    assert isinstance(address, MysqlAddress)
    assert address.tls == tls


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mysql://u@db", "no host or no database"),
        ("mysql://db/meta", "names no user"),
        ("jdbc:mysql://a,b/meta?user=u", "one server that takes all writes"),
        ("mysql://u@db/meta?pool=9", "unknown parts: pool"),
        ("mysql://u@db/meta?tls=maybe", "must be true or false"),
        ("mysql://u@db/meta?tls=false&tls_ca=/ca", "leave one of both out"),
        ("mysql://u@db/meta?tls_cert=/c", "needs both"),
        ("mysql://u@db/meta?readers=0", "from 1 to 64"),
        ("jdbc:h2:mem:x", "no address"),
        ("postgresql://u@db/meta", "'postgresql' are not supported"),
    ],
)
def test_what_cannot_be_an_address_is_refused_with_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        parsed(text)


def test_no_sentence_shows_a_password() -> None:
    for text in ("mysql://u:geheim@db/meta", "jdbc:mysql://db/meta?user=u&password=geheim&x=1"):
        assert "geheim" not in shown(text)
    with pytest.raises(BadConfig) as caught:
        parsed("mysql://u:geheim@db")
    assert "geheim" not in caught.value.message
    assert "geheim" not in repr(parsed("mysql://u:geheim@db/meta"))


def url_of(environ: dict[str, str] | None = None, **database: object) -> MysqlAddress:
    settings = settings_of({"database": {"url": "mysql://db/meta", **database}})
    address = parsed(database_url(settings.database, environ or {}))
    assert isinstance(address, MysqlAddress)
    return address


def test_credentials_come_from_settings_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("ge&he=im\nmore\n")
    assert url_of(user="u", password="p%").password == "p%"
    assert url_of(user="u", password_file=str(file)).password == "ge&he=im"
    environ = {"JOBSERVER_DATABASE_USER": "e", "JOBSERVER_DATABASE_PASSWORD": "w"}
    assert (url_of(environ).user, url_of(environ).password) == ("e", "w")
    assert url_of(environ, user="u", password="p").password == "p"


def test_tls_and_readers_come_from_the_settings() -> None:
    address = url_of(user="u", tls=True, tls_ca="/ca.pem", readers=5)
    assert (address.tls, address.readers) == (Tls(ca="/ca.pem"), 5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"password": "a", "password_file": "/b"}, "only one of them can be the password"),
        ({"tls_ca": "/ca"}, "would not be encrypted"),
        ({"tls": True, "tls_key": "/k"}, "belong together"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsRefused, match=words):
        settings_of({"database": {"url": "mysql://db/meta", **values}})


def test_a_file_of_sqlite_needs_nobodys_password() -> None:
    settings = settings_of({"database": {"url": "sqlite:///m.db", "user": "u"}})
    assert database_url(settings.database, {"JOBSERVER_DATABASE_PASSWORD": "w"}) == "sqlite:///m.db"
