"""Warm drivers: who has been taken for a takeover that then ends is used or ended, never left behind."""

import asyncio
from dataclasses import replace

import pytest

from ha.ownership import Phase, Superseded
from jobserver.contexts.pool import AFTER_ANSWER, REFILL_DELAY, DriverPool
from tests.fakes.cluster import SPEC, FakeCluster, submission, until
from tests.fakes.driver import FakeLauncher


class SlowLauncher(FakeLauncher):
    """Starts a driver when the test lets it."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def start(self, spec, *, warm_up):
        self.asked.set()
        await self.go_on.wait()
        return await super().start(spec, warm_up=warm_up)


async def taken_while_it_starts():
    """The launcher, its pool, and who waits for the driver that the pool has begun to start."""
    launcher = SlowLauncher()
    pool = DriverPool(launcher, SPEC, 1)
    pool.refill()
    await launcher.asked.wait()
    taker = asyncio.create_task(pool.take(SPEC))
    await asyncio.sleep(0)
    return launcher, pool, taker


async def test_a_taker_that_gives_up_leaves_the_driver_that_is_being_warmed_to_the_pool():
    launcher, pool, taker = await taken_while_it_starts()
    assert launcher.hurried == 1
    taker.cancel()
    launcher.go_on.set()
    await until(lambda: pool.ready == 1, "it waits in the pool")
    await pool.close()
    await until(lambda: not launcher.living(), "none is left")


async def test_a_driver_that_was_still_being_started_is_told_as_a_cold_one():
    launcher, pool, taker = await taken_while_it_starts()
    launcher.go_on.set()
    assert (await taker).how == "cold"
    await pool.close()


async def test_a_driver_that_is_ready_when_its_taker_gives_up_is_ended():
    launcher, pool, taker = await taken_while_it_starts()
    pool._starting.add_done_callback(lambda done: taker.cancel())
    launcher.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await taker
    await until(lambda: launcher.drivers and not launcher.living(), "it was ended")
    assert pool.ready == 0
    await pool.close()


@pytest.fixture
def warming():
    """A launcher whose drivers are warmed up when the test lets them, and a pool of one that begins to be filled."""
    launcher = FakeLauncher()
    launcher.warm_slowly = True
    pool = DriverPool(launcher, SPEC, 1)
    return launcher, pool


async def begun(launcher, pool):
    pool.refill()
    await until(lambda: pool._warming is not None, "its driver runs")
    return launcher.drivers[-1]


async def test_a_driver_waits_in_the_pool_once_it_is_warmed_up(warming):
    launcher, pool = warming
    driver = await begun(launcher, pool)
    assert pool.ready == 0
    driver.end_warm_up(warm=True)
    await until(lambda: pool.ready == 1, "it is warm")
    await pool.close()


async def test_a_driver_that_runs_and_is_not_warm_yet_is_taken_as_it_is_and_replaced(warming):
    launcher, pool = warming
    driver = await begun(launcher, pool)
    taken = await pool.take(SPEC)
    assert taken.record == driver.record
    driver.kill()  # its warm-up is not answered, and that is not the pool's affair
    await until(lambda: len(launcher.drivers) == 2, "the next one is started")
    await until(lambda: pool._warming is not None, "it runs")
    launcher.drivers[1].end_warm_up(warm=True)
    await until(lambda: pool.ready == 1, "it is warm")
    await pool.close()


async def test_who_wants_a_warm_driver_waits_for_the_one_that_is_being_warmed_up(warming):
    launcher, pool = warming
    driver = await begun(launcher, pool)
    taker = asyncio.create_task(pool.take(SPEC, warm_up=True))
    await until(lambda: len(driver._waiting_for_warm) == 2, "the taker waits, too")
    assert not taker.done()
    driver.end_warm_up(warm=True)
    assert (await taker).record == driver.record
    assert driver.alive
    await pool.close()


async def test_a_driver_that_cannot_be_warmed_up_is_ended(warming, caplog):
    launcher, pool = warming
    driver = await begun(launcher, pool)
    driver.end_warm_up(refused="failed", message="no Python here")
    await until(lambda: not driver.alive, "it is ended")
    await until(lambda: "no Python here" in caplog.text, "the log says why")
    assert pool.ready == 0
    await pool.close()


async def test_a_pool_that_is_closed_ends_the_driver_that_is_being_warmed_up(warming):
    launcher, pool = warming
    driver = await begun(launcher, pool)
    await pool.close()
    assert not driver.alive


async def test_a_warm_driver_that_is_frozen_is_replaced():
    launcher = FakeLauncher()
    pool = DriverPool(launcher, SPEC, 1)
    pool.refill()
    await until(lambda: pool.ready == 1, "it waits in the pool")
    frozen = launcher.drivers[0]
    await pool.look(0.2)
    assert pool.ready == 1
    frozen.freeze()
    await pool.look(0.2)
    assert (pool.ready, frozen.alive) == (0, False)
    pool.refill()
    await until(lambda: pool.ready == 1, "another one waits")
    await pool.close()


async def test_a_takeover_passes_over_a_frozen_warm_driver_long_before_the_time_of_an_activation(tmp_path):
    cluster = FakeCluster(tmp_path, warm=1, start_timeout=30.0)
    server = await cluster.start("s1")
    try:
        context = await server.contexts.create("ctx", {})
        await server.pool._fill_now()
        active, frozen = cluster.launcher.drivers
        frozen.freeze()
        active.kill()
        await until(lambda: cluster.store.contexts[context.id].last_failover, "restored")
        assert not frozen.alive
        assert cluster.store.contexts[context.id].last_failover.kind == "restored-cold"
        assert cluster.store.fences[context.id].epoch == 2, "the epoch was not told to the frozen one"
    finally:
        await cluster.close()


async def test_a_takeover_that_ends_while_it_activates_a_driver_ends_the_driver(tmp_path):
    cluster = FakeCluster(tmp_path)
    server = await cluster.start("s1")
    try:
        context = await server.contexts.create("ctx", {})
        keeper = server.registry.keeper(context.id)
        cluster.launcher.freeze_next = True
        cluster.driver().kill()
        await until(lambda: keeper.phase is Phase.STARTING and cluster.launcher.living(), "it activates")
        frozen = cluster.driver()
        await until(lambda: frozen.unanswered, "the driver was asked, and says nothing")
        keeper.post(Superseded("a test says so"))
        await until(lambda: not frozen.alive, "it was ended")
    finally:
        await cluster.close()


async def test_a_second_failover_in_a_row_takes_the_warm_driver_of_another_server(tmp_path):
    """The pool of the owner is filled again only some time after the first one."""
    cluster = FakeCluster(tmp_path, warm=1, start_timeout=5.0)
    try:
        servers = [await cluster.start(name) for name in ("s1", "s2")]
        context = await servers[0].contexts.create("ctx", {})
        owner = cluster.owner(context.id)
        other = next(server for server in servers if server is not owner)
        for server in servers:
            server.pool.refill()
        await until(lambda: [one.pool.ready for one in servers] == [1, 1], "both have a warm driver")
        await until(lambda: {one.warm for one in owner.coordination.servers.values()} == {1}, "both tell so")
        for nth in (1, 2):
            active = next(one for one in cluster.launcher.living() if one.context_id == context.id)
            active.kill()
            done = await owner.jobs.submit(submission(f"answer:{nth}"))
            assert done.job.result == str(nth)
            failover = (await owner.contexts.view("ctx")).record.last_failover
            assert (failover.kind, cluster.owner(context.id)) == ("restored-warm", owner)
        assert (owner.pool.ready, other.pool.ready) == (0, 0)
    finally:
        await cluster.close()


async def test_a_warm_driver_for_other_settings_is_not_given_away():
    launcher = FakeLauncher()
    pool = DriverPool(launcher, SPEC, 1)
    pool.refill()
    await until(lambda: pool.ready == 1, "it is ready")
    assert pool.hand_over(replace(SPEC, driver_memory="2g").digest) is None
    assert pool.hand_over(SPEC.digest) is not None
    assert pool.hand_over(SPEC.digest) is None
    await pool.close()


async def test_a_pool_that_waits_to_be_filled_is_filled_sooner_when_it_is_asked_to():
    launcher = FakeLauncher()
    pool = DriverPool(launcher, SPEC, 1)
    pool.refill(3600.0)
    pool.refill(7200.0)
    assert pool.ready == 0
    pool.refill(0.0)
    await until(lambda: pool.ready == 1, "it is ready")
    await pool.close()


async def test_the_pool_is_filled_soon_after_the_first_answer(tmp_path, monkeypatch):
    """Not before it: the JVM that starts would take the processor from who waits."""
    asked = []
    cluster = FakeCluster(tmp_path, warm=1)
    try:
        server = await cluster.start("s1")
        monkeypatch.setattr(server.pool, "refill", asked.append)
        await server.contexts.create("ctx", {})
        assert asked == [REFILL_DELAY]
        for _ in range(2):
            await server.jobs.submit(submission("answer:1"))
        assert asked == [REFILL_DELAY, AFTER_ANSWER]
    finally:
        await cluster.close()
