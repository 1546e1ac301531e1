"""Authentication and permissions (rest_contract sections 1.5, 2 and 8)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS
from jobserver.api.permissions import NEEDS
from jobserver.api.principals import LOOK_EVERY, UsersFile
from jobserver.api.routes import Route, listed
from jobserver.errors import SettingsRefused
from jobserver.users import PERMISSIONS, PasswordHash
from tests.contract.conftest import Rest
from tests.fakes.service import FakeService

SALT = b"0123456789abcdef"
PASSWORDS = {name: str(PasswordHash.of(f"{name}'s", SALT)) for name in ("root", "reader", "nobody")}
CHALLENGE = 'Basic realm="Sparkjobserver Private",charset=UTF-8'


def users(**permissions: list[str]) -> str:
    lines = [
        f"  {name}: {{password: {PASSWORDS[name]!r}, permissions: {words}}}\n"
        for name, words in permissions.items()
    ]
    return "users:\n" + "".join(lines)


def basic(name: str, password: str | None = None) -> dict[str, str]:
    text = f"{name}:{name + chr(39) + 's' if password is None else password}"
    return {"Authorization": f"Basic {b64encode(text.encode()).decode()}"}


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def changed(file: Path, clock: Clock, text: str) -> None:
    """The file is another, and it is time to look."""
    file.write_text(text)
    clock.seconds += LOOK_EVERY


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    path.write_text(users(root=["*"], reader=["jobs:read", "binaries:read"], nobody=[]))
    return path


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def guarded(file: Path, clock: Clock, service: FakeService) -> AsyncIterator[Rest]:
    """Our API with a users file; tests end with the check that no error of ours was met."""
    app = make_app(service, ApiLimits(), UsersFile(file, clock))
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
        yield Rest(session, str(server.make_url("")))
        assert app[COUNTERS].internal_errors == 0


PROTECTED = [(method, path, NEEDS[route]) for route, method, path in listed() if NEEDS[route]]
OPEN = [
    (method, path)
    for route, method, path in listed()
    if NEEDS[route] is None and route is not Route.PAGE_FILE
]


@pytest.mark.parametrize(("method", "path", "need"), PROTECTED)
async def test_a_protected_route_asks_who_it_is_and_whether_he_may(
    guarded: Rest, method: str, path: str, need: str
) -> None:
    path = path.replace("{id}", "x").replace("{name}", "x").replace("{item}", "x")
    unknown = await guarded(method, path)
    assert (unknown.status, unknown.headers["WWW-Authenticate"]) == (401, CHALLENGE)
    assert unknown.text == "The resource requires authentication, which was not supplied with the request"
    assert unknown.type == "text/plain; charset=UTF-8"
    lacking = await guarded(method, path, headers=basic("nobody"))
    assert (lacking.status, lacking.text) == (
        403,
        "The supplied authentication is not authorized to access this resource",
    )
    assert (await guarded(method, path, headers=basic("root"))).status not in (401, 403)
    allowed = (await guarded(method, path, headers=basic("reader"))).status not in (401, 403)
    assert allowed == (need in ("jobs:read", "binaries:read"))


@pytest.mark.parametrize(("method", "path"), OPEN)
async def test_monitors_and_pages_are_open(guarded: Rest, method: str, path: str) -> None:
    assert (await guarded(method, path)).status in (200, 302, 404)


def test_the_routes_of_the_contract_need_what_its_table_says() -> None:
    table = {
        "GET /binaries": "binaries:read",
        "GET /binaries/{name}": "binaries:read",
        "POST /binaries/{name}": "binaries:upload",
        "DELETE /binaries/{name}": "binaries:delete",
        "GET /contexts": "contexts:read",
        "GET /contexts/{name}": "contexts:read",
        "POST /contexts/{name}": "contexts:start",
        "DELETE /contexts/{name}": "contexts:delete",
        "PUT /contexts": "contexts:reset",
        "GET /jobs": "jobs:read",
        "GET /jobs/{id}": "jobs:read",
        "GET /jobs/{id}/config": "jobs:read",
        "POST /jobs": "jobs:start",
        "DELETE /jobs/{id}": "jobs:delete",
        "GET /data": "data:read",
        "POST /data/{name}": "data:upload",
        "DELETE /data/{name}": "data:delete",
        "PUT /data": "data:reset",
        **dict.fromkeys(("GET /healthz", "GET /", "GET /html/{name}", "GET /metricz", "GET /statusz")),
    }
    ours = {f"{method} {path}": NEEDS[route] for route, method, path in listed()}
    assert {key: ours[key] for key in table} == table
    assert {need for need in ours.values() if need} == PERMISSIONS


@pytest.mark.parametrize(
    "headers",
    [
        basic("root", "wrong"),
        basic("stranger"),
        basic("root", ""),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer x"},
        {"Authorization": ""},
    ],
)
async def test_wrong_credentials_are_a_401_also_for_a_name_that_was_right_before(
    guarded: Rest, headers: dict[str, str]
) -> None:
    assert (await guarded("GET", "/jobs", headers=basic("root"))).status == 200
    wrong = await guarded("GET", "/jobs", headers=headers)
    assert (wrong.status, wrong.text) == (401, "The supplied authentication is invalid")
    assert wrong.headers["WWW-Authenticate"] == CHALLENGE


async def test_the_method_that_counts_is_the_one_in_the_query(guarded: Rest) -> None:
    assert (await guarded("GET", "/binaries/x?_method=DELETE", headers=basic("reader"))).status == 403


async def test_a_preflight_needs_nobody(guarded: Rest) -> None:
    asked = {"Origin": "http://x", "Access-Control-Request-Method": "GET"}
    assert (await guarded("OPTIONS", "/jobs", headers=asked)).status == 200


async def test_jobs_keys_and_the_audit_belong_to_who_asked(
    guarded: Rest, service: FakeService, file: Path, clock: Clock
) -> None:
    changed(file, clock, users(root=["*"], reader=["*"]))
    ids = {}
    code = {"Content-Type": "text/x-python", **basic("root")}
    assert (await guarded("POST", "/binaries/code", b"x = 1", code)).status == 201
    assert (await guarded("POST", "/contexts/ctx", headers=basic("root"))).status == 200
    for name in ("root", "reader", "root"):
        headers = {"Idempotency-Key": "k", **basic(name)}
        reply = await guarded("POST", "/jobs?cp=code&mainClass=m.Sleeping&context=ctx", "", headers)
        assert ids.setdefault(name, reply.json["jobId"]) == reply.json["jobId"]
    assert ids["root"] != ids["reader"]
    assert [each.principal for each in service.submissions] == ["root", "reader", "root"]
    audit = (await guarded("GET", "/audit", headers=basic("root"))).json
    assert {each["principal"] for each in audit} == {"root"}


async def test_the_file_is_read_again_when_it_changes(guarded: Rest, file: Path, clock: Clock) -> None:
    assert (await guarded("GET", "/jobs", headers=basic("reader"))).status == 200
    changed(file, clock, users(root=["*"]))
    assert (await guarded("GET", "/jobs", headers=basic("reader"))).status == 401
    changed(file, clock, "users: nonsense")
    assert (await guarded("GET", "/jobs", headers=basic("root"))).status == 200, (
        "a broken file changes nothing"
    )


def test_a_server_does_not_start_with_a_users_file_that_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="cannot be read"):
        UsersFile(tmp_path / "absent.yaml")
    (tmp_path / "odd.yaml").write_text("{")
    with pytest.raises(SettingsRefused, match="is no YAML"):
        UsersFile(tmp_path / "odd.yaml")


async def test_without_a_users_file_credentials_are_not_looked_at() -> None:
    async with (
        TestServer(make_app(FakeService()), host="127.0.0.1") as server,
        aiohttp.ClientSession() as session,
    ):
        rest = Rest(session, str(server.make_url("")))
        assert (await rest("GET", "/jobs", headers=basic("stranger"))).status == 200
