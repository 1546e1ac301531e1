"""`spark.proxy.user`, and contexts that belong to their callers (rest_contract sections 4.4, 5.1, 5.5 and 8)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from jobserver.api import ApiLimits, make_app
from jobserver.api.app import COUNTERS
from jobserver.api.principals import UsersFile
from jobserver.proxy_users import ProxyUsers
from jobserver.users import PasswordHash
from tests.contract.conftest import Rest
from tests.fakes.service import FakeService

SALT = b"0123456789abcdef"
PERMISSIONS = {
    "root": "['*']",
    "ann": "[contexts, jobs, binaries]",
    "joe": "[contexts, jobs, binaries]",
    "ann smith": "[contexts]",
}
HASHES = {name: str(PasswordHash.of("x", SALT)) for name in PERMISSIONS}
Served = Callable[..., AbstractAsyncContextManager[Rest]]


def as_(name: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:x'.encode()).decode()}"}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def served(service: FakeService, tmp_path: Path) -> Served:
    """`async with served(rule)`: our API on the fake service; it ends with the check that no error of ours was met."""
    file = tmp_path / "users.yaml"
    lines = [
        f"  {name}: {{password: {HASHES[name]!r}, permissions: {may}}}" for name, may in PERMISSIONS.items()
    ]
    file.write_text("\n".join(["users:", *lines]))

    @asynccontextmanager
    async def serve(rule: ProxyUsers, *, users: bool = False) -> AsyncIterator[Rest]:
        app = make_app(service, ApiLimits(proxy_users=rule), UsersFile(file) if users else None)
        async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
            yield Rest(session, str(server.make_url("")))
            assert app[COUNTERS].internal_errors == 0

    return serve


JOB = "/jobs?sql=select+1"
IN_BODIES = [
    'spark.context-settings { spark.proxy.user = joe, "x" = 1 }',
    'spark.context-settings { "spark.proxy.user" = joe, "x" = 1 }',
    "spark { context-settings { spark { proxy { user = joe } }, x = 1 } }",
    '{"spark": {"context-settings": {"spark.proxy.user": "joe", "x": 1}}}',
]


@pytest.mark.parametrize("body", ["", *IN_BODIES])
async def test_it_is_refused_with_the_setting_s_name_where_none_may_be_named(
    served: Served, service: FakeService, body: str
) -> None:
    query = "" if body else "spark.proxy.user=joe"
    async with served(ProxyUsers.NONE) as rest:
        for reply in (
            await rest("POST", f"/contexts/c1?{query}", body),
            await rest("POST", f"{JOB}&{query}", body),
        ):
            assert reply.status == 400
            assert "access.proxy_users" in reply.json["result"]
        empty = await rest("POST", "/contexts/c1?spark.proxy.user=")
    assert empty.status == 200
    assert service.created_with == {"c1": {}}


@pytest.mark.parametrize("body", ["", *IN_BODIES])
async def test_a_context_is_made_for_whom_its_settings_name(
    served: Served, service: FakeService, body: str
) -> None:
    async with served(ProxyUsers.NAMED) as rest:
        reply = await rest("POST", "/contexts/c1?" + ("" if body else "spark.proxy.user=joe&x=1"), body)
        assert reply.status == 200, reply.text
        assert (await rest("GET", "/contexts")).json == ["c1"]
    (made,) = service.created_with.values()
    assert {key.strip('"'): str(value) for key, value in made.items()} == {
        "spark.proxy.user": "joe",
        "x": "1",
    }


async def test_the_body_wins_over_the_query(served: Served, service: FakeService) -> None:
    async with served(ProxyUsers.NAMED) as rest:
        await rest("POST", "/contexts/c1?spark.proxy.user=ann", IN_BODIES[1])
        await rest("POST", f"{JOB}&spark.proxy.user=ann", IN_BODIES[1])
    assert [made["spark.proxy.user"] for made in service.created_with.values()] == ["joe", "joe"]
    assert all(sum("proxy" in key for key in made) == 1 for made in service.created_with.values())


@pytest.mark.parametrize("body", ["", *IN_BODIES])
async def test_a_job_s_own_context_is_made_for_whom_the_query_or_the_body_names(
    served: Served, service: FakeService, body: str
) -> None:
    async with served(ProxyUsers.NAMED) as rest:
        reply = await rest("POST", JOB + ("" if body else "&spark.proxy.user=joe"), body)
        assert reply.status == 202, reply.text
        assert reply.json["context"].startswith("joe~adhoc-")
        assert (await rest("POST", JOB)).json["context"].startswith("adhoc-")
    own, plain = service.created_with.items()
    assert (own[0], own[1]["spark.proxy.user"]) == (reply.json["context"], "joe")
    assert "spark.proxy.user" not in plain[1]


async def test_a_job_in_a_context_has_the_user_of_the_context(served: Served, service: FakeService) -> None:
    async with served(ProxyUsers.NAMED) as rest:
        await rest("POST", "/contexts/c1?spark.proxy.user=joe")
        reply = await rest("POST", f"{JOB}&context=c1&spark.proxy.user=ann")
        assert reply.status == 400
        assert "c1 has the user it was made with" in reply.json["result"]
        assert (await rest("POST", f"{JOB}&context=c1", IN_BODIES[0])).status == 202
    assert [submission.proxy_user for submission in service.submissions] == [None]


@pytest.mark.parametrize(
    "name", ["joe smith", "a,user:x:rwx", "--jars", "x" * 33, "jo\u00e9", "../x", "3joe", "a~b"]
)
async def test_a_name_that_is_no_plain_user_name_is_refused(
    served: Served, service: FakeService, name: str
) -> None:
    async with served(ProxyUsers.NAMED) as rest:
        body = f'spark.context-settings {{ spark.proxy.user = "{name}" }}'
        for path in ("/contexts/c1", JOB):
            reply = await rest("POST", path, body)
            assert reply.status == 400
            assert "must be a plain user name" in reply.json["result"]
    assert (service.created_with, service.submissions) == ({}, [])


async def test_a_user_names_himself_and_only_who_may_do_everything_names_others(
    served: Served, service: FakeService
) -> None:
    async with served(ProxyUsers.NAMED, users=True) as rest:
        assert (await rest("POST", "/contexts/c1?spark.proxy.user=joe", headers=as_("joe"))).status == 200
        for path in ("/contexts/c2?spark.proxy.user=joe", f"{JOB}&spark.proxy.user=joe"):
            reply = await rest("POST", path, headers=as_("ann"))
            assert reply.status == 400
            assert "only users with the permission * may name others" in reply.json["result"]
        assert (await rest("POST", "/contexts/c3?spark.proxy.user=joe", headers=as_("root"))).status == 200
    assert list(service.created_with) == ["c1", "c3"]


async def test_two_callers_use_one_name_for_contexts_of_their_own(
    served: Served, service: FakeService
) -> None:
    async with served(ProxyUsers.CALLER, users=True) as rest:
        for name in ("ann", "joe"):
            made = await rest("POST", "/contexts/c1?spark.proxy.user=root", headers=as_(name))
            assert made.status == 200, made.text
        assert {name: made["spark.proxy.user"] for name, made in service.created_with.items()} == {
            "ann~c1": "ann",
            "joe~c1": "joe",
        }
        await rest("POST", "/contexts/c2", headers=as_("joe"))
        assert (await rest("GET", "/contexts", headers=as_("joe"))).json == ["c2", "c1"]
        assert (await rest("GET", "/contexts", headers=as_("ann"))).json == ["c1"]
        again = await rest("POST", "/contexts/c1", headers=as_("joe"))
        assert (again.status, again.json["result"]) == (400, "context c1 exists")
        shown = await rest("GET", "/contexts/c1", headers=as_("ann"))
        assert shown.json["name"] == "c1"
        job = await rest("POST", f"{JOB}&context=c1", headers=as_("ann"))
        assert (job.json["context"], job.json["contextId"]) == ("ann~c1", shown.json["id"])
        gone = await rest("DELETE", "/contexts/c1", headers=as_("ann"))
        assert gone.json["result"] == "Context stopped"
        assert (await rest("GET", "/contexts", headers=as_("joe"))).json == ["c2", "c1"]
        own = await rest("POST", JOB, headers=as_("joe"))
        assert own.json["context"].startswith("joe~adhoc-")


async def test_errors_call_a_context_as_its_caller_does(served: Served) -> None:
    async with served(ProxyUsers.CALLER, users=True) as rest:
        told = [
            (await rest("GET", "/contexts/c1", headers=as_("joe"))).json["result"],
            (await rest("DELETE", "/contexts/c1", headers=as_("joe"))).json["result"],
            (await rest("POST", f"{JOB}&context=c1", headers=as_("joe"))).json["result"],
            (await rest("DELETE", "/jobs?context=c1", headers=as_("joe"))).json["result"],
            (await rest("GET", "/contexts/c1/objects", headers=as_("joe"))).json["result"],
        ]
    assert told == ["can't find context with name c1", *["context c1 not found"] * 4]


async def test_a_stored_name_leads_its_own_caller_and_who_may_do_everything_to_the_context(
    served: Served, service: FakeService
) -> None:
    async with served(ProxyUsers.CALLER, users=True) as rest:
        await rest("POST", "/contexts/c1", headers=as_("joe"))
        seen = {
            name: await rest("GET", "/contexts/joe~c1", headers=as_(name)) for name in ("joe", "ann", "root")
        }
        assert {name: reply.status for name, reply in seen.items()} == {"joe": 200, "ann": 404, "root": 200}
        assert {name: seen[name].json["name"] for name in ("joe", "root")} == {"joe": "c1", "root": "joe~c1"}
        assert (await rest("DELETE", "/contexts/joe~c1", headers=as_("ann"))).status == 404
        assert (await rest("DELETE", "/contexts/joe~c1", headers=as_("root"))).status == 200


async def test_one_s_own_context_goes_before_another_s_stored_name(
    served: Served, service: FakeService
) -> None:
    async with served(ProxyUsers.CALLER, users=True) as rest:
        await rest("POST", "/contexts/c1", headers=as_("joe"))
        await rest("POST", "/contexts/joe~c1", headers=as_("root"))
        await rest("DELETE", "/contexts/joe~c1", headers=as_("root"))
        assert await service.list_contexts() == ["joe~c1"]


async def test_a_caller_whose_name_no_user_can_have_makes_no_context(
    served: Served, service: FakeService
) -> None:
    async with served(ProxyUsers.CALLER, users=True) as rest:
        reply = await rest("POST", "/contexts/c1", headers=as_("ann smith"))
        assert reply.status == 400
        assert "'ann smith'; it must be a plain user name" in reply.json["result"]
        too_long = await rest("POST", "/contexts/" + "c" * 254, headers=as_("joe"))
        assert too_long.status == 400
        assert "longer than 255" in too_long.json["result"]
    assert service.created_with == {}
