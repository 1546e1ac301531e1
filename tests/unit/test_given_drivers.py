"""Which of the drivers that wait on other servers an owner gets."""

from types import SimpleNamespace

from jobserver.contexts.given_drivers import find_hot
from jobserver.errors import OwnerUnavailable


class Servers:
    """Announce a hot standby of "c"; each gives what `given` says: a driver, None (it is gone), or an error."""

    def __init__(self, given):
        self._given = given
        self.servers = {name: SimpleNamespace(id=name, url=name, hot=("c",)) for name in given}

    async def take_hot(self, url, context_id):
        given = self._given[url]
        if isinstance(given, Exception):
            raise given
        return given


async def hot_of(given):
    servers = Servers(given)

    async def connect(record, timeout):
        return f"link to {record}"

    found = await find_hot("c", "me", servers, servers, SimpleNamespace(take=lambda _: None), connect)
    return None if found is None else found.link


async def test_a_hot_standby_that_is_gone_is_passed_over_for_another_ones():
    assert await hot_of({"s1": None, "s2": OwnerUnavailable("no answer"), "s3": "driver"}) == "link to driver"
    assert await hot_of({"s1": None}) is None
