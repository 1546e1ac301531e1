"""What standbys keep ready: shown as it is, kept while a failover goes on, and bounded."""

import asyncio
from dataclasses import replace

import pytest

from ha.ownership import Phase
from jobserver.context_settings import check_context
from jobserver.contexts.vigil import PATIENCE
from jobserver.errors import BadRequest
from jobserver.settings import Settings
from tests.fakes.cluster import FakeCluster, until


@pytest.fixture
async def two(tmp_path):
    cluster = FakeCluster(tmp_path, start_timeout=5.0)
    yield cluster, [await cluster.start(name) for name in ("s1", "s2")]
    await cluster.close()


async def announce(server):
    now = replace(server.me, warm=server.pool.ready, hot=server.standbys.hot)
    await server.coordination.announce(now)


async def hot_context(cluster, servers):
    """A context with a hot standby on the server that does not own it: (owner, standby)."""
    context = await servers[0].contexts.create("ctx", {"standby": "hot"})
    owner = cluster.owner(context.id)
    (standby,) = [server for server in servers if server is not owner]
    for server in servers:
        await server.standbys.tend()
    assert (owner.standbys.hot, standby.standbys.hot) == ((), (context.id,))
    await announce(standby)
    return context, owner, standby


async def test_the_view_shows_the_hot_standby_and_what_it_has_read(two):
    cluster, servers = two
    _, _, standby = await hot_context(cluster, servers)
    for server in servers:
        view = await server.contexts.view("ctx")
        (shown,) = view.standbys
        assert (shown["server"], shown["mode"]) == (standby.me.id, "hot")
        assert shown["manifest"] == "fake-manifest"
        assert shown["age"] >= 0


async def test_a_hot_standby_that_died_is_no_more_shown_and_is_replaced(two):
    cluster, servers = two
    context, owner, standby = await hot_context(cluster, servers)
    cluster.launcher.drivers[-1].kill()
    await until(lambda: standby.standbys.hot == (), "its end is noticed")
    await announce(standby)
    assert (await owner.contexts.view("ctx")).standbys == ({"server": standby.me.id, "mode": "cold"},)
    await standby.standbys.tend()
    assert standby.standbys.hot == (context.id,)


async def test_a_frozen_hot_standby_is_replaced_and_the_failover_does_not_wait_for_it(two):
    cluster, servers = two
    context, _, _ = await hot_context(cluster, servers)
    active, frozen = cluster.launcher.living()
    frozen.freeze()
    active.kill()
    await until(lambda: cluster.store.contexts[context.id].last_failover, "restored")
    assert cluster.store.contexts[context.id].last_failover.kind == "restored-cold"
    await until(lambda: not frozen.alive, "the frozen one was ended")


async def test_while_a_failover_goes_on_the_hot_driver_is_kept(two):
    cluster, servers = two
    context, owner, standby = await hot_context(cluster, servers)
    keeper = owner.registry.keeper(context.id)
    held = asyncio.Event()

    async def not_yet(context_id):
        await held.wait()

    keeper._parts = replace(keeper._parts, takeover=replace(keeper._parts.takeover, hot=not_yet))
    cluster.launcher.living()[0].kill()
    await until(lambda: keeper.phase is Phase.STARTING, "the takeover has come to the driver")
    await standby.standbys.tend()
    assert standby.standbys.hot == (context.id,), "it may be just what the next owner comes for"
    held.set()


async def test_the_next_owner_keeps_its_hot_driver_until_its_gate_is_open(two):
    cluster, servers = two
    context, owner, standby = await hot_context(cluster, servers)
    keeper, held = standby.registry.keeper(context.id), asyncio.Event()
    connect = keeper._parts.takeover.connect

    async def later(driver, *, timeout):
        await held.wait()
        return await connect(driver, timeout=timeout)

    keeper._parts = replace(keeper._parts, takeover=replace(keeper._parts.takeover, connect=later))
    active = next(driver for driver in cluster.launcher.living() if driver.context_id == context.id)
    await cluster.kill(owner)
    await until(lambda: keeper.phase is Phase.ADOPTING, "it is elected, and tries the driver on record")
    await standby.standbys.tend()
    assert standby.standbys.hot == (context.id,), "its own takeover may come for it"
    active.kill()
    held.set()
    await until(lambda: cluster.store.contexts[context.id].last_failover, "restored")
    assert cluster.store.contexts[context.id].last_failover.kind == "restored-hot"


async def test_a_hot_driver_that_an_adoption_did_not_need_is_let_go(two):
    cluster, servers = two
    _, owner, standby = await hot_context(cluster, servers)
    await cluster.kill(owner)
    await until(lambda: standby.registry.owned(), "it has the context")
    await standby.standbys.tend()
    assert standby.standbys.hot == ()


async def test_a_server_that_its_picture_does_not_show_keeps_what_it_has(two):
    cluster, servers = two
    context, _, standby = await hot_context(cluster, servers)
    shown = cluster.ensemble.servers.pop(standby.me.id)
    cluster.ensemble.tell_servers()
    await until(lambda: standby.me.id not in standby.coordination.servers, "it is not shown")
    await standby.standbys.tend()
    assert standby.standbys.hot == (context.id,)
    cluster.ensemble.servers[standby.me.id] = shown
    cluster.ensemble.tell_servers()


async def test_who_joins_while_a_hot_driver_is_started_starts_none(two):
    cluster, servers = two
    context = await servers[0].contexts.create("ctx", {"standby": "hot"})
    owner = cluster.owner(context.id)
    (standby,) = [server for server in servers if server is not owner]
    told, go_on, start = asyncio.Event(), asyncio.Event(), standby.pool.start_extra

    async def slow(spec):
        told.set()
        await go_on.wait()
        return await start(spec)

    standby.pool.start_extra = slow
    tending = asyncio.create_task(standby.standbys.tend())
    await told.wait()
    assert standby.standbys.readying == (context.id,)
    await standby.coordination.announce(replace(standby.me, readying=standby.standbys.readying))
    third = await cluster.start("s3")
    await third.standbys.tend()
    assert (third.standbys.hot, third.standbys.readying) == ((), ())
    go_on.set()
    await tending
    assert (standby.standbys.hot, standby.standbys.readying) == ((context.id,), ())


async def test_a_server_keeps_no_more_hot_drivers_than_its_limit(two):
    cluster, servers = two
    for server in servers:
        await server.coordination.announce(replace(server.me, hot_limit=1))
    contexts = [await servers[0].contexts.create(f"ctx{n}", {"standby": "hot"}) for n in range(4)]
    for server in servers:
        await server.standbys.tend()
    assert [len(server.standbys.hot) for server in servers] == [1, 1]
    assert len(cluster.launcher.living()) == len(contexts) + 2


async def test_a_cold_context_leaves_the_warm_drivers_to_others_failovers(tmp_path):
    cluster = FakeCluster(tmp_path, warm=1, start_timeout=5.0)
    server = await cluster.start("s1")
    try:
        context = await server.contexts.create("ctx", {"standby": "cold"})
        await server.pool._fill_now()
        cluster.launcher.living()[0].kill()
        await until(lambda: cluster.store.contexts[context.id].last_failover, "restored")
        assert cluster.store.contexts[context.id].last_failover.kind == "restored-cold"
        assert server.pool.ready == 1
    finally:
        await cluster.close()


def test_a_standby_that_is_none_of_the_three_is_refused():
    check_context(Settings(), {"standby": "hot"})
    with pytest.raises(BadRequest, match=r"standby is 'lukewarm'; it must be one of cold, warm, hot"):
        check_context(Settings(), {"standby": "lukewarm"})


async def test_a_driver_that_was_silent_before_its_owner_was_lost_is_not_waited_for_again(two):
    """Owner and driver frozen together: by the time that the session ends, the silence of the driver is known."""
    cluster, servers = two
    context, owner, standby = await hot_context(cluster, servers)
    keeper = standby.registry.keeper(context.id)
    for_ever = replace(keeper._parts.takeover, adopt_timeout=3600.0, silence=lambda driver: 3600.0)
    keeper._parts = replace(keeper._parts, takeover=for_ever)
    next(driver for driver in cluster.launcher.living() if driver.context_id == context.id).freeze()
    await cluster.kill(owner)
    await until(lambda: standby.registry.owned(), "it has the context")
    assert cluster.owner(context.id) is standby
    assert keeper.jobs is not None


async def test_the_silence_of_the_driver_that_would_be_adopted_is_known_and_ends(two):
    cluster, servers = two
    context, owner, standby = await hot_context(cluster, servers)
    active = next(driver for driver in cluster.launcher.living() if driver.context_id == context.id)
    record = (await standby.store.context(context.id)).driver
    await standby.vigil.look()
    assert standby.vigil.silence(record) == 0.0
    active.freeze()
    await standby.vigil.look()
    first = standby.vigil.silence(record)
    assert first >= PATIENCE
    await standby.vigil.look()
    assert standby.vigil.silence(record) > first, "counted from the first question without an answer"
    active.thaw()
    await standby.vigil.look()
    assert standby.vigil.silence(record) == 0.0
    active.kill()
    await until(lambda: owner.registry.owned() and owner.registry.owned()[0].epoch == 2, "it is replaced")
    await standby.vigil.look()
    assert standby.vigil.silence((await standby.store.context(context.id)).driver) == 0.0
    watching = asyncio.create_task(standby.vigil.run())
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching])
    assert not standby.vigil._watched
