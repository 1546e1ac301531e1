"""One class of promises for the coordination port, on the fake and on a real ZooKeeper; then what only the real one has."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import uuid

import pytest

from ha.coordination import Elected, Link, NotElected, OwnerChanged, ServerInfo
from ha.errors import CoordinationLost, SessionTimeoutRefused
from ha.zookeeper import ZooKeeperCoordination
from jobserver.local import zookeeper as zk
from tests.fakes.cluster import until
from tests.fakes.coordination import FakeCoordination, FakeEnsemble


def info(name):
    return ServerInfo(name, secrets.token_hex(4), f"http://{name}", "host", 1, 1, "0")


class Member:
    """A coordination and what it told its listener."""

    def __init__(self, coordination, name):
        self.coordination = coordination
        self.me = info(name)
        self.events = []

    async def start(self):
        await self.coordination.start(self.me, self.events.append)
        return self

    def owner_events(self, context_id):
        return [
            event
            for event in self.events
            if isinstance(event, OwnerChanged) and event.context_id == context_id
        ]


class CoordinationPromises:
    """What the product relies on; `join` makes a started Member."""

    async def test_one_of_many_is_elected(self, join):
        context = str(uuid.uuid4())
        members = [await join(f"s{number}-{context[:4]}") for number in range(3)]
        results = await asyncio.gather(*(member.coordination.elect(context) for member in members))
        winners = [result for result in results if isinstance(result, Elected)]
        assert len(winners) == 1
        for result in results:
            if isinstance(result, NotElected):
                assert result.owner in (None, winners[0].node)
        for member in members:
            await until(
                lambda member=member: member.coordination.owners.get(context) == winners[0].node, "all see it"
            )

    async def test_an_owner_that_vanishes_before_our_eyes_is_witnessed(self, join):
        context = str(uuid.uuid4())
        one, two = await join(f"a-{context[:4]}"), await join(f"b-{context[:4]}")
        await one.coordination.elect(context)
        await until(lambda: context in two.coordination.owners, "two sees the owner")
        await one.coordination.stop()
        await until(lambda: context not in two.coordination.owners, "two sees it vanish")
        assert two.owner_events(context)[-1].witnessed
        await until(lambda: one.me.id not in two.coordination.servers, "two sees the server go, too")

    async def test_a_proven_dead_owner_is_replaced_in_one_step(self, join):
        context = str(uuid.uuid4())
        one, two = await join(f"a-{context[:4]}"), await join(f"b-{context[:4]}")
        first = await one.coordination.elect(context)
        second = await two.coordination.elect(context, replace=first.node)
        assert isinstance(second, Elected)
        assert second.node.election > first.node.election
        assert await one.coordination.owner(context) == second.node

    async def test_whoever_decided_on_an_outdated_picture_is_refused(self, join):
        context = str(uuid.uuid4())
        one, two, three = [await join(f"{name}-{context[:4]}") for name in "abc"]
        first = await one.coordination.elect(context)
        second = await two.coordination.elect(context, replace=first.node)
        third = await three.coordination.elect(context, replace=first.node)
        assert isinstance(third, NotElected)
        assert third.owner == second.node

    async def test_only_the_owner_can_release(self, join):
        context = str(uuid.uuid4())
        one, two = await join(f"a-{context[:4]}"), await join(f"b-{context[:4]}")
        elected = await one.coordination.elect(context)
        await two.coordination.release(context)
        assert await two.coordination.owner(context) == elected.node
        await one.coordination.release(context)
        assert await two.coordination.owner(context) is None

    async def test_one_leads_and_another_follows_when_it_goes(self, join):
        one, two = await join("lead-a"), await join("lead-b")
        await until(lambda: one.coordination.leader is not None, "somebody leads")
        await until(lambda: two.coordination.leader == one.coordination.leader, "both agree")
        first = one if one.coordination.leader == one.me.id else two
        other = two if first is one else one
        if first.coordination.leader != first.me.id:
            return
        await first.coordination.stop()
        await until(lambda: other.coordination.leader == other.me.id, "the other leads")

    async def test_a_context_that_ended_leaves_no_node(self, join):
        context = str(uuid.uuid4())
        one = await join(f"a-{context[:4]}")
        await one.coordination.elect(context)
        await one.coordination.forget(context)
        assert await one.coordination.owner(context) is None
        again = await one.coordination.elect(context)
        assert isinstance(again, Elected)

    async def test_forgetting_a_context_never_removes_another_servers_owner_node(self, join):
        context = str(uuid.uuid4())
        one, two = await join(f"a-{context[:4]}"), await join(f"b-{context[:4]}")
        elected = await one.coordination.elect(context)
        await two.coordination.forget(context)
        assert await two.coordination.owner(context) == elected.node


class TestFakeCoordination(CoordinationPromises):
    @pytest.fixture
    async def join(self):
        ensemble = FakeEnsemble()

        async def start(name):
            return await Member(FakeCoordination(ensemble), name).start()

        return start


@pytest.fixture
async def join_real(zookeeper):
    members = []

    async def start(name):
        members.append(Member(ZooKeeperCoordination(zookeeper.address, session_timeout=4), name))
        return await members[-1].start()

    yield start
    for member in members:
        await member.coordination.stop()


class TestZooKeeperCoordination(CoordinationPromises):
    @pytest.fixture
    def join(self, join_real):
        return join_real


class ElectedMeanwhile(ZooKeeperCoordination):
    """Another server is elected after `forget` has read and before it removes."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.meanwhile = None

    async def owner(self, context_id):
        node = await super().owner(context_id)
        if self.meanwhile is not None:
            await self.meanwhile.elect(context_id)
        return node


async def test_an_owner_elected_while_the_context_is_forgotten_keeps_its_node(zookeeper, join_real):
    context = str(uuid.uuid4())
    two = await join_real(f"b-{context[:4]}")
    one = Member(ElectedMeanwhile(zookeeper.address, session_timeout=4), f"a-{context[:4]}")
    await one.start()
    try:
        await one.coordination.elect(context)
        await one.coordination.release(context)
        one.coordination.meanwhile = two.coordination
        await one.coordination.forget(context)
        assert (await two.coordination.owner(context)).server == two.me.id
    finally:
        await one.coordination.stop()


async def test_a_session_timeout_that_zookeeper_does_not_grant_is_refused_with_a_sentence(zookeeper):
    refused = ZooKeeperCoordination(zookeeper.address, session_timeout=60)
    with pytest.raises(SessionTimeoutRefused, match=r"session_timeout is 60 s, but ZooKeeper grants 10 s"):
        await refused.start(info("greedy"), lambda event: None)


async def test_clusters_below_different_roots_do_not_see_each_other_and_roots_are_made(zookeeper):
    below = f"/shared/{secrets.token_hex(4)}"
    one, two = (
        Member(ZooKeeperCoordination(zookeeper.address, session_timeout=4, root=f"{below}/{name}"), "s1")
        for name in ("one", "two")
    )
    try:
        await one.start()
        await two.start()
        context = str(uuid.uuid4())
        assert isinstance(await one.coordination.elect(context), Elected)
        assert isinstance(await two.coordination.elect(context), Elected)
        for member in (one, two):
            await until(lambda m=member: m.coordination.leader == "s1", "each has a leader")
            await until(lambda m=member: context in m.coordination.owners, "each sees its owner")
            assert member.coordination.owners[context].incarnation == member.me.incarnation
            assert [info.incarnation for info in member.coordination.servers.values()] == [
                member.me.incarnation
            ]
    finally:
        await one.coordination.stop()
        await two.coordination.stop()


async def test_no_zookeeper_is_an_error_within_the_limit():
    nobody = ZooKeeperCoordination("127.0.0.1:1", session_timeout=1, call_timeout=0.5)
    with pytest.raises(CoordinationLost, match="no ZooKeeper answered"):
        await nobody.start(info("alone"), lambda event: None)


async def test_zookeeper_restarted_within_the_session_keeps_the_owner_node(own_zookeeper, java):
    one = Member(ZooKeeperCoordination(own_zookeeper.address, session_timeout=10), "s1")
    two = Member(ZooKeeperCoordination(own_zookeeper.address, session_timeout=10), "s2")
    try:
        await one.start()
        await two.start()
        elected = await one.coordination.elect("c1")
        await until(lambda: two.coordination.owners.get("c1") == elected.node, "two sees it")
        await asyncio.to_thread(own_zookeeper.stop, 0)
        await until(lambda: one.coordination.link is Link.SUSPENDED, "suspended")
        with pytest.raises(CoordinationLost):
            await one.coordination.elect("c2")
        own_zookeeper.launch(java)
        await asyncio.to_thread(own_zookeeper.wait_serving)
        await until(lambda: two.coordination.link is Link.CONNECTED, "connected", 15)
        await until(lambda: one.coordination.link is Link.CONNECTED, "connected", 15)
        assert await two.coordination.owner("c1") == elected.node
        await one.coordination.release("c1")
        await until(lambda: "c1" not in two.coordination.owners, "two sees the release", 10)
    finally:
        for member in (one, two):
            with contextlib.suppress(CoordinationLost):
                await member.coordination.stop()


async def test_a_wiped_zookeeper_is_registered_in_again(java, tmp_path, own_zookeeper):
    one = Member(ZooKeeperCoordination(own_zookeeper.address, session_timeout=2), "s1")
    try:
        await one.start()
        await one.coordination.elect("c1")
        await until(lambda: "c1" in one.coordination.owners, "seen")
        await asyncio.to_thread(own_zookeeper.stop, 0)
        fresh = zk.single(tmp_path / "fresh", own_zookeeper.port)
        await asyncio.to_thread(zk.start_all, [fresh], java)
        try:
            await until(lambda: "c1" not in one.coordination.owners, "the lost node is noticed", 20)
            two = await Member(ZooKeeperCoordination(fresh.address, session_timeout=2), "s2").start()
            await until(lambda: {"s1", "s2"} <= set(one.coordination.servers), "one sees two", 20)
            await until(lambda: {"s1", "s2"} <= set(two.coordination.servers), "two sees one", 20)
            assert isinstance(await one.coordination.elect("c1"), Elected)
            await until(lambda: "c1" in two.coordination.owners, "two sees the owner", 20)
            await two.coordination.stop()
            await until(lambda: "s2" not in one.coordination.servers, "one sees two go", 20)
        finally:
            await one.coordination.stop()
            fresh.stop(grace=0)
    finally:
        with contextlib.suppress(CoordinationLost):
            await one.coordination.stop()
