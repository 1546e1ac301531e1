"""The life of a server process: open, announce, listen, look around, leave. What it is made of is in `wiring`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import uvloop
from aiohttp import web

from ha.errors import HaError
from jobserver import context_settings
from jobserver.api.connections import listening
from jobserver.api.limits import ApiLimits
from jobserver.chores import FolderLimits, chores, remove_ended_checkpoints, retain
from jobserver.errors import CoordinationUnavailable
from jobserver.preloading import preload
from jobserver.pruning import Pace, Pruner
from jobserver.settings import Settings, database_url
from jobserver.store.metadata import Metadata
from jobserver.watchdog import Watchdog
from jobserver.wiring import Parts, wire

log = logging.getLogger(__name__)

LEAVE_TIMEOUT = 30.0
"""Seconds that requests under way have when the server leaves."""
KEEPALIVE = 75.0
"""Seconds an idle connection of a client stays open; a little more than the contract's 60."""


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then leaves: contexts go to the other servers, drivers go on running."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings):
        await stop.wait()
        log.info("server %s leaves", settings.server.id)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Parts]:
    """A server that listens. Raises CoordinationUnavailable, StoreUnavailable, WrongSchema.

    It leaves in this order: look around no more, give the contexts away, let requests end, close the session.
    """
    async with contextlib.AsyncExitStack() as stack:
        url = database_url(settings.database, os.environ)
        store = await Metadata.open(url, timeout=settings.database.timeout, server=settings.server.id)
        stack.push_async_callback(store.close)
        await store.check()
        watchdog = Watchdog(settings.ha.watchdog_timeout)
        watchdog.start()
        stack.callback(watchdog.stop)
        parts = wire(settings, store)
        core = parts.core
        stack.push_async_callback(parts.peers.close)
        stack.push_async_callback(parts.links.stop)
        stack.push_async_callback(core.pool.close)
        stack.callback(core.standbys.close)
        for name in await preload(core.binaries, settings.binaries.preload, ApiLimits()):
            log.info("binary %s was uploaded from the settings", name)
        runner = web.AppRunner(
            parts.app, access_log=None, shutdown_timeout=LEAVE_TIMEOUT, keepalive_timeout=KEEPALIVE
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await _announce(parts)
        stack.push_async_callback(parts.coordination.stop)
        stack.push_async_callback(runner.cleanup)
        await stack.enter_async_context(
            listening(runner, settings.server.host, settings.server.port, settings.api.max_connections)
        )
        stack.push_async_callback(core.registry.leave)
        interval = settings.ha.sweep_interval
        unasked = {
            **chores(core, interval, unowned_after=interval),
            "callbacks": parts.callbacks.run(),
            "vigil": core.vigil.run(),
            "writes": parts.writes.run(),
            "removal": remove_ended_checkpoints(core),
        }
        for name, chore in unasked.items():
            stack.push_async_callback(_cancelled, _task(chore, name))
        stack.push_async_callback(_cancelled, _task(_retention(settings, parts, store), "retention"))
        core.pool.refill()
        log.info("server %s serves at %s", core.ports.me.id, core.ports.me.url)
        yield parts


def _retention(settings: Settings, parts: Parts, store: Metadata) -> Coroutine[Any, Any, None]:
    kept, ports = settings.retention, parts.core.ports
    pruner = Pruner(
        store.retention,
        ports.files,
        context_settings.retention_limits(settings),
        Pace(kept.batch, kept.pause),
    )
    return retain(
        pruner,
        context_settings.drivers_folder(settings),
        FolderLimits(kept.drivers_age, kept.drivers_count),
        lambda: parts.coordination.leader == ports.me.id,
        kept.interval,
    )


async def _announce(parts: Parts) -> None:
    try:
        await parts.coordination.start(parts.core.ports.me, parts.core.registry.hear)
    except HaError as error:
        raise CoordinationUnavailable(str(error)) from error


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task whose unforeseen end is told in the log, not kept for the garbage collector."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell_end)
    return task


def _tell_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error(
            "%s ended by an unforeseen error; this server goes on without it", task.get_name(), exc_info=error
        )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
