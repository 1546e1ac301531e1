"""The users file: passwords, permissions, and what is refused."""

import io

import pytest

from jobserver.api.permissions import NEEDS
from jobserver.api.principals import credentials
from jobserver.api.routes import Route
from jobserver.cli import credentials as cli_credentials
from jobserver.cli.main import main
from jobserver.client.core import Credentials, server_of
from jobserver.errors import BadRequest, SettingsRefused
from jobserver.users import NOBODY, PERMISSIONS, PasswordHash, User, users_of

SALT = b"0123456789abcdef"
HASH = PasswordHash.of("sécret:x", SALT)


def test_a_password_matches_its_own_hash_only():
    kept = PasswordHash.parse(str(HASH))
    assert kept == HASH
    assert kept.matches("sécret:x")
    assert not kept.matches("sécret:X")
    assert not kept.matches("")
    assert not NOBODY.matches("")
    assert PasswordHash.of("sécret:x", b"another salt 123") != HASH


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "plain",
        "scrypt:16384:8:1:c2FsdHNhbHQ=:not base64",
        "scrypt:16384:8:1:c2FsdA==:" + "A" * 44,  # a short salt
        "scrypt:1000:8:1:c2FsdHNhbHQ=:" + "A" * 44,  # no power of two
        f"scrypt:{2**30}:8:1:c2FsdHNhbHQ=:" + "A" * 44,
        "md5:16384:8:1:c2FsdHNhbHQ=:" + "A" * 44,
    ],
)
def test_what_is_no_hash_is_refused(text):
    with pytest.raises(ValueError, match=r"form|cost|salt"):
        PasswordHash.parse(text)


@pytest.mark.parametrize(
    ("granted", "may", "may_not"),
    [
        ({"*"}, PERMISSIONS, set()),
        ({"jobs"}, {"jobs:read", "jobs:start", "jobs:delete"}, {"data:read", "cluster:read"}),
        ({"jobs:read"}, {"jobs:read"}, {"jobs:start", "jobs:delete"}),
        (set(), set(), PERMISSIONS),
    ],
)
def test_a_permission_covers_itself_and_what_is_below_it(granted, may, may_not):
    user = User("ann", HASH, frozenset(granted))
    assert all(user.may(each) for each in may)
    assert not any(user.may(each) for each in may_not)


def test_roles_and_permissions_add_up():
    file = {
        "roles": {"reader": ["jobs:read"], "loader": ["binaries"]},
        "users": {
            "ann": {"password": str(HASH), "roles": ["reader", "loader"], "permissions": ["data:read"]}
        },
    }
    assert users_of(file)["ann"].permissions == {"jobs:read", "binaries", "data:read"}


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (None, "the users file must be a mapping"),
        ({}, "no users"),
        ({"user": {}}, "user is no section"),
        ({"users": {"a:b": {"password": str(HASH)}}}, "without a colon"),
        ({"users": {"ann": {"password": "x"}}}, "users.ann.password is not of the form"),
        ({"users": {"ann": {"password": str(HASH), "role": []}}}, "users.ann.role is no key"),
        ({"users": {"ann": {"password": str(HASH), "roles": ["x"]}}}, "there is no role 'x'"),
        (
            {"users": {"ann": {"password": str(HASH), "permissions": ["job:read"]}}},
            "'job:read' is no permission",
        ),
        ({"users": {"ann": {"password": str(HASH), "permissions": "jobs"}}}, "must be a list of texts"),
        ({"roles": {"r": ["jobz"]}, "users": {"ann": {"password": str(HASH)}}}, "roles.r: 'jobz'"),
    ],
)
def test_a_users_file_that_cannot_be_meant_is_refused_with_a_sentence(file, sentence):
    with pytest.raises(SettingsRefused) as refused:
        users_of(file)
    assert sentence in refused.value.message


def test_every_route_says_what_it_needs():
    assert set(NEEDS) == set(Route)
    assert {need for need in NEEDS.values() if need} == PERMISSIONS


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic YW5uOng6eQ==", ("ann", "x:y")),
        ("basic  YW5uOg==", ("ann", "")),
        ("Bearer YW5uOng=", None),
        ("Basic YW5u", None),
        ("Basic ???", None),
        ("Basic /////w==", None),
        ("", None),
    ],
)
def test_credentials_of_a_header(header, found):
    assert credentials(header) == found


def test_credentials_travel_in_a_header_and_not_in_the_address():
    server = server_of("http://ann:s%3Acret@localhost:8090/")
    assert server.url == "http://localhost:8090"
    assert credentials(server.headers["Authorization"]) == ("ann", "s:cret")
    assert server_of("http://localhost:8090", Credentials("bob", "x")).headers
    assert server_of("http://localhost:8090").headers == {}
    assert "cret" not in repr(server)


def test_commands_take_credentials_of_the_environment():
    assert cli_credentials.of({}) is None
    assert cli_credentials.of({"JOBSERVER_USER": "ann", "JOBSERVER_PASSWORD": "x"}) == Credentials("ann", "x")
    with pytest.raises(BadRequest, match="JOBSERVER_PASSWORD"):
        cli_credentials.of({"JOBSERVER_USER": "ann"})


def run(monkeypatch, *arguments, stdin=""):
    monkeypatch.setattr("sys.argv", ["jobserver", *arguments])
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_command_makes_an_entry_that_the_file_takes(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "config", "user", "ann", "--permission", "jobs", stdin="secret\n") == 0
    file = tmp_path / "users.yaml"
    file.write_text("users:\n" + capsys.readouterr().out)
    assert run(monkeypatch, "config", "check-users", str(file)) == 0
    assert "1 users" in capsys.readouterr().out
    assert run(monkeypatch, "config", "user", "ann", "--permission", "jobz", stdin="secret\n") == 1
    assert "'jobz' is no permission" in capsys.readouterr().err
    assert run(monkeypatch, "config", "user", "ann") == 1
