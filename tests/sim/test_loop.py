"""The order in which the simulated processes do things."""

from __future__ import annotations

import asyncio

from tests.sim.loop import Process, SimLoop


def test_what_reached_a_frozen_process_first_is_done_first_when_it_is_thawed():
    loop = SimLoop(1000)
    process = Process("p", "p", "h")
    done: list[str] = []

    async def main() -> None:
        loop.freeze(process)
        loop.call_soon(done.append, "first", context=process.context)
        await asyncio.sleep(1.0)
        loop.call_soon(done.append, "second", context=process.context)
        loop.thaw(process)
        await asyncio.sleep(1.0)

    loop.run(main())
    assert done == ["first", "second"]
