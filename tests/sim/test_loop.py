"""The order in which the simulated processes do things."""

from __future__ import annotations

import asyncio

from tests.sim.loop import PROCESS, Process, SimLoop


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


def test_what_is_passed_on_overtakes_nothing_and_waits_for_a_frozen_process():
    loop = SimLoop(1000)
    process = Process("p", "p", "h")
    done: list[str] = []

    async def main() -> None:
        loop.call_soon(done.append, "ready before", context=process.context)
        loop.pass_on(process, done.append, "passed on")
        assert done == []
        await asyncio.sleep(1.0)
        loop.freeze(process)
        loop.pass_on(process, done.append, "while frozen")
        await asyncio.sleep(1.0)
        loop.thaw(process)
        loop.pass_on(process, done.append, "after it")
        await asyncio.sleep(1.0)

    loop.run(main())
    assert done == ["ready before", "passed on", "while frozen", "after it"]


def test_what_is_passed_on_while_nothing_else_is_ready_is_done_at_once():
    loop = SimLoop(1000)
    process = Process("p", "p", "h")
    done: list[Process | None] = []

    async def main() -> None:
        loop.pass_on(process, lambda: done.append(PROCESS.get()))
        assert done == [process]

    loop.run(main())
