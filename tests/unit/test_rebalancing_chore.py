"""A move of the rebalancer may take its whole grace: what the leader looks for every few seconds does not wait for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from jobserver.chores import chores


class SlowRebalancer:
    """A move that does not end."""

    def __init__(self) -> None:
        self.moving = asyncio.Event()

    async def rebalance(self) -> None:
        self.moving.set()
        await asyncio.Event().wait()


class CountingRegistry:
    """Counts its sweeps."""

    def __init__(self) -> None:
        self.sweeps = 0
        self.swept = asyncio.Condition()

    async def sweep(self) -> None:
        async with self.swept:
            self.sweeps += 1
            self.swept.notify_all()

    async def leader_changed(self) -> None:
        await asyncio.Event().wait()

    async def change(self, timeout: float) -> None:
        await asyncio.Event().wait()


async def nothing(**_: Any) -> None:
    pass


async def test_the_sweep_goes_on_while_a_context_is_being_moved() -> None:
    registry, rebalancer = CountingRegistry(), SlowRebalancer()
    core: Any = SimpleNamespace(
        ports=SimpleNamespace(me=SimpleNamespace(id="s1"), coordination=SimpleNamespace(leader="s1")),
        registry=registry,
        contexts=SimpleNamespace(start_predefined=nothing, claim_unowned=nothing),
        rebalancer=rebalancer,
        standbys=None,
        announcer=SimpleNamespace(run=nothing),
    )
    work = [asyncio.create_task(chore) for chore in chores(core, 0.001, unowned_after=0.0).values()]
    try:
        async with asyncio.timeout(10):
            await rebalancer.moving.wait()
            seen = registry.sweeps
            async with registry.swept:
                await registry.swept.wait_for(lambda: registry.sweeps > seen + 2)
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)
