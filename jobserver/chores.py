"""What a server does unasked while it serves: looks for what messages missed, tends its standbys, tells what it keeps ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from jobserver.assembly import Core
from jobserver.contexts.standbys import tend_always
from jobserver.errors import JobServerError

log = logging.getLogger(__name__)


def chores(core: Core, interval: float, *, unowned_after: float) -> dict[str, Coroutine[Any, Any, None]]:
    """By name, each to be run until the server leaves. Seconds: between two looks; age of a context that should have an owner."""
    return {
        "chores": _look_around(core, interval, unowned_after),
        "standbys": tend_always(core.standbys, core.registry, interval),
        "announcer": core.announcer.run(),
    }


async def _look_around(core: Core, interval: float, unowned_after: float) -> None:
    """The owner's and, while this server leads, the leader's regular looks for what a lost message left behind."""
    me, coordination = core.ports.me.id, core.ports.coordination
    while True:
        try:
            await core.registry.sweep()
            if coordination.leader == me:
                await core.contexts.start_predefined()
                await core.contexts.claim_unowned(older_than=unowned_after)
                if core.rebalancer is not None:
                    await core.rebalancer.rebalance()
        except JobServerError as error:
            log.warning("the sweep was not finished: %s", error.message)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(core.registry.leader_changed(), interval)
