"""Links between servers over real sockets, a proxy between each two: what is taken for a death, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from ha.coordination import ServerInfo
from ha.peerlinks import LinkPhase
from ha.peers import PeerLinks
from tests.fakes.cluster import until
from tests.fakes.proxy import Cut, TcpProxy

SECRET = {"X-Secret": "s"}


class Server:
    """The links of one server behind HTTP."""

    def __init__(self, name: str, life: str, headers: dict[str, str]) -> None:
        self.deaths: list[tuple[str, str | None]] = []
        self.drivers_say: set[str] = set()
        self.asked = 0
        self.turned_away = 0
        self.info = ServerInfo(name, life, "", f"host-{name}", 1, 1, "0")
        self.links = PeerLinks(self.info, headers, self._ask_drivers, connect_timeout=0.5, ask_timeout=0.5)
        self.links.telling(lambda server, context_id=None: self.deaths.append((server.id, context_id)))
        internal = web.Application(middlewares=[self._with_secret])
        self.links.add_routes(internal)
        app = web.Application()
        app.add_subapp("/internal", internal)
        self._runner = web.AppRunner(app, shutdown_timeout=1)

    @web.middleware
    async def _with_secret(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("X-Secret") != SECRET["X-Secret"]:
            self.turned_away += 1
            raise web.HTTPUnauthorized
        return await handler(request)

    async def _ask_drivers(self, server: ServerInfo, lost: Callable[[str], None]) -> None:
        self.asked += 1
        for context_id in self.drivers_say:
            lost(context_id)

    async def start(self) -> tuple[str, int]:
        """Where it listens."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        return host, port

    async def kill(self) -> None:
        """As the kernel ends the connections of a process that is gone."""
        self.links.close()
        for site in list(self._runner.sites):
            await site.stop()
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            connection.transport.abort()

    async def leave(self) -> None:
        """As a server does that is told to end."""
        self.links.close()
        await self._runner.cleanup()

    async def stop(self) -> None:
        await self.links.stop()
        await self._runner.cleanup()

    def sees(self, other: Server) -> LinkPhase | None:
        return self.links.phases.get(other.info.id)


class Group:
    """Servers, and a proxy from each to each other one."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.ways: dict[tuple[str, str], TcpProxy] = {}
        self._listens: dict[str, tuple[str, int]] = {}

    async def start(self, name: str, life: str = "life1", headers: dict[str, str] = SECRET) -> Server:
        server = Server(name, life, headers)
        self._listens[name] = await server.start()
        for (_, target), way in self.ways.items():
            if target == name:
                way.upstream = self._listens[name]
        self.servers.append(server)
        return server

    async def announce(self, *servers: Server) -> None:
        """What ZooKeeper would tell each of them."""
        for viewer in servers:
            seen = {one.info.id: await self._as_seen(viewer, one) for one in servers}
            viewer.links.watch(seen)

    async def _as_seen(self, viewer: Server, server: Server) -> ServerInfo:
        pair = (viewer.info.id, server.info.id)
        if pair not in self.ways:
            self.ways[pair] = TcpProxy(self._listens[server.info.id])
            await self.ways[pair].start()
        return replace(server.info, url=f"http://{self.ways[pair].address}")

    async def linked(self, *names: str) -> list[Server]:
        """New servers that have links to each other."""
        servers = [await self.start(name) for name in names]
        await self.announce(*servers)
        for one in servers:
            for other in servers:
                if one is not other:
                    await phase(one, other, LinkPhase.LINKED)
        return servers

    async def close(self) -> None:
        for server in self.servers:
            await server.stop()
        for way in self.ways.values():
            await way.close()


@pytest.fixture
async def group():
    made = Group()
    yield made
    await made.close()


async def phase(viewer: Server, other: Server, wanted: LinkPhase) -> None:
    await until(lambda: viewer.sees(other) is wanted, f"{other.info.id} is {wanted} for {viewer.info.id}", 20)


async def asked_again(server: Server, times: int = 2) -> None:
    """So many more rounds of asking have begun and the answers of all but the last are in: what can be proven would be."""
    before = server.asked
    await until(lambda: server.asked >= before + times, "witnesses are asked again and again", 20)


async def test_a_server_that_dies_is_proven_dead_by_all_that_had_a_link_to_it(group):
    one, two, three = await group.linked("s1", "s2", "s3")
    await one.kill()
    await until(lambda: two.deaths == three.deaths == [("s1", None)], "both know")
    await phase(two, one, LinkPhase.DEAD)


async def test_of_two_servers_one_is_proven_dead_by_the_drivers_of_its_contexts_alone(group):
    one, two = await group.linked("s1", "s2")
    await one.kill()
    await asked_again(two)
    assert two.deaths == []
    two.drivers_say = {"c1"}
    await until(lambda: two.deaths == [("s1", "c1")], "the driver's word counts")
    await asked_again(two)
    assert two.deaths == [("s1", "c1")]


async def test_two_servers_cut_off_from_each_other_by_resets_move_nothing_and_find_back(group):
    one, two, three = await group.linked("s1", "s2", "s3")
    await group.ways["s1", "s2"].cut(Cut.RESET)
    await group.ways["s2", "s1"].cut(Cut.RESET)
    await phase(two, one, LinkPhase.SUSPECTED)
    await phase(one, two, LinkPhase.SUSPECTED)
    await asked_again(one)
    await asked_again(two)
    assert one.deaths == two.deaths == three.deaths == []
    await group.ways["s1", "s2"].heal()
    await group.ways["s2", "s1"].heal()
    await phase(two, one, LinkPhase.LINKED)
    await phase(one, two, LinkPhase.LINKED)


async def test_silence_between_two_servers_is_no_evidence_of_anything(group):
    one, two, _ = await group.linked("s1", "s2", "s3")
    two.drivers_say = {"c1"}
    way = group.ways["s2", "s1"]
    await way.cut(Cut.SILENCE)
    await asyncio.sleep(1.2)  # longer than an attempt to connect may take: time for a wrong conclusion
    assert (two.sees(one), two.asked, two.deaths) == (LinkPhase.LINKED, 0, [])
    await way.heal()


async def test_a_reset_link_and_attempts_without_an_answer_are_not_enough(group):
    """A queue of connections that is not worked off, a filter that drops: nobody refused anything."""
    one, two, _ = await group.linked("s1", "s2", "s3")
    two.drivers_say = {"c1"}
    way = group.ways["s2", "s1"]
    await way.cut(Cut.SILENCE)
    way.reset()
    await phase(two, one, LinkPhase.ENDED)
    await asyncio.sleep(1.2)  # two attempts run into their limit
    assert (two.sees(one), two.asked, two.deaths) == (LinkPhase.ENDED, 0, [])
    await way.heal()
    await phase(two, one, LinkPhase.LINKED)


async def test_a_server_that_leaves_says_goodbye_and_is_not_suspected(group):
    one, two, three = await group.linked("s1", "s2", "s3")
    await one.leave()
    await phase(two, one, LinkPhase.CONNECTING)
    await phase(three, one, LinkPhase.CONNECTING)
    assert two.asked == three.asked == 0


async def test_a_witness_that_has_just_been_started_has_seen_nothing_end(group):
    one, two, three = await group.linked("s1", "s2", "s3")
    await group.ways["s2", "s1"].cut(Cut.RESET)
    await three.stop()
    await group.ways["s3", "s1"].cut(Cut.RESET)
    again = await group.start("s3", "life2")
    await group.announce(one, two, again)
    await phase(two, again, LinkPhase.LINKED)
    await asked_again(two)
    assert (again.sees(one), two.deaths) == (LinkPhase.CONNECTING, [])


async def test_another_life_at_the_address_tells_that_the_earlier_one_is_gone(group):
    one, two, three = await group.linked("s1", "s2", "s3")
    await one.kill()
    again = await group.start("s1", "life2")
    await until(lambda: two.deaths == three.deaths == [("s1", None)], "the earlier life is proven dead")
    await group.announce(again, two, three)
    await phase(two, again, LinkPhase.LINKED)
    await phase(three, again, LinkPhase.LINKED)


async def test_without_the_clusters_secret_there_is_no_link_and_the_operator_is_told_once(group, caplog):
    one = await group.start("s1")
    stranger = await group.start("s2", headers={"X-Secret": "wrong"})
    await group.announce(one, stranger)
    await phase(one, stranger, LinkPhase.LINKED)
    await until(lambda: one.turned_away >= 2, "it has tried again")
    assert stranger.sees(one) is LinkPhase.CONNECTING
    (told,) = [record.getMessage() for record in caplog.records if "secret" in record.getMessage()]
    assert told.startswith("server s1 at http://127.0.0.1:")
    assert "give all servers the same cluster.secret or cluster.secret_file" in told


async def test_who_is_announced_no_more_is_forgotten(group):
    one, two, three = await group.linked("s1", "s2", "s3")
    await group.announce(one, two)
    assert set(one.links.phases) == {"s2"}
    await until(lambda: three.links.accepted == 0, "nobody has a link to it any more")
