"""What a server does unasked while it serves: looks for what messages missed, tends its standbys, tells what it keeps ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jobserver.assembly import Core
from jobserver.contexts.drain import Rebalancer
from jobserver.contexts.standbys import tend_always
from jobserver.driver_folders import remove_ended
from jobserver.errors import JobServerError
from jobserver.pruning import Pruner

log = logging.getLogger(__name__)


REMOVE_EVERY = 30.0
"""Seconds between two looks for checkpoints of ended contexts: one listing of the store."""


def chores(core: Core, interval: float, *, unowned_after: float) -> dict[str, Coroutine[Any, Any, None]]:
    """By name, each to be run until the server leaves. Seconds: between two looks; age of a context that should have an owner."""
    found = {
        "chores": _look_around(core, interval, unowned_after),
        "standbys": tend_always(core.standbys, core.registry, interval),
        "announcer": core.announcer.run(),
    }
    if core.rebalancer is not None:
        found["rebalancer"] = _rebalance(core, core.rebalancer, interval)
    return found


async def retain(
    pruner: Pruner, folders: Path, limits: FolderLimits, leads: Callable[[], bool], interval: float
) -> None:
    """Removes what retention no longer keeps: the leader of the cluster's past, each server of its own drivers' folders."""
    while True:
        await asyncio.sleep(interval)
        for work in (partial(_prune_folders, folders, limits), partial(_prune, pruner, leads)):
            try:
                await work()
            except (
                Exception
            ):  # the next pass comes: one file or row in a bad state must not end retention for good
                log.exception("a pass of retention ended in an unforeseen way")


async def _prune_folders(folders: Path, limits: FolderLimits) -> None:
    gone = await asyncio.to_thread(remove_ended, folders, time.time(), age=limits.age, most=limits.most)
    if gone:
        log.info("retention removed %d folders of ended drivers", gone)


async def _prune(pruner: Pruner, leads: Callable[[], bool]) -> None:
    if not leads():
        return
    removed = await pruner.prune(leads)
    if removed.total:
        log.info("retention removed %s", removed)
    for left in removed.unfinished:
        log.warning("retention did not finish %s", left)


@dataclass(frozen=True, slots=True)
class FolderLimits:
    """How long (seconds) and how many folders of ended drivers stay."""

    age: float | None
    most: int | None


async def remove_ended_checkpoints(core: Core) -> None:
    """The leader's: checkpoints of contexts that were deleted go, some time after the context."""
    while True:
        await asyncio.sleep(REMOVE_EVERY)
        if core.ports.coordination.leader == core.ports.me.id:
            try:
                await core.kept.remove_ended()
            except JobServerError as error:
                log.warning("no checkpoint was removed: %s", error.message)


async def _rebalance(core: Core, rebalancer: Rebalancer, interval: float) -> None:
    """The leader's. Beside the sweep: a move may take its whole grace, and lost messages are looked for meanwhile."""
    while True:
        await asyncio.sleep(interval)
        if core.ports.coordination.leader == core.ports.me.id:
            try:
                await rebalancer.rebalance()
            except Exception:
                # the next look may find what this one stumbled over gone
                log.exception("the contexts were not rebalanced")


async def _look_around(core: Core, interval: float, unowned_after: float) -> None:
    """The owner's and, while this server leads, the leader's regular looks for what a lost message left behind."""
    me, coordination = core.ports.me.id, core.ports.coordination
    while True:
        try:
            await core.registry.sweep()
            if coordination.leader == me:
                await core.contexts.start_predefined()
                await core.contexts.claim_unowned(older_than=unowned_after)
        except JobServerError as error:
            log.warning("the sweep was not finished: %s", error.message)
        except Exception:
            # without this chore lost messages stay lost: the next look may find what this one stumbled over gone
            log.exception("the sweep was not finished")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval):
                await core.registry.leader_changed()
