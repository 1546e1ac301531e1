"""Drivers that wait on other servers: the hot standby of a context, or a warm one; given away to the owner that asks."""

from __future__ import annotations

import logging

from ha.coordination import Coordination
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.link import Connect, DriverLink, LinkBroken
from jobserver.contexts.peers import Peers
from jobserver.contexts.pool import CONNECT_TIMEOUT, StartedDriver
from jobserver.contexts.standbys import HotStandbys
from jobserver.errors import OwnerUnavailable
from jobserver.model import DriverRecord

log = logging.getLogger(__name__)


async def find_hot(
    context_id: str,
    me: str,
    coordination: Coordination,
    peers: Peers,
    standbys: HotStandbys,
    connect: Connect = DriverLink.connect,
) -> StartedDriver | None:
    """The hot standby of a context: ours, or one that another server announces and gives away."""
    own = standbys.take(context_id)
    if own is not None:
        return own
    for info in coordination.servers.values():
        if context_id in info.hot and info.id != me:
            try:
                record = await peers.take_hot(info.url, context_id)
            except OwnerUnavailable as error:
                log.warning("the hot standby at %s cannot be had: %s", info.id, error.message)
                continue
            if record is not None and (driver := await _connected(record, "hot", connect)) is not None:
                return driver
            log.warning("the hot standby at %s is gone", info.id)
    return None


async def find_warm(
    spec: LaunchSpec,
    me: str,
    coordination: Coordination,
    peers: Peers,
    connect: Connect = DriverLink.connect,
) -> StartedDriver | None:
    """A warm driver of another server's pool, for a takeover that finds its own empty: the second of two failovers in a row."""
    others = [info for info in coordination.servers.values() if info.id != me and info.warm > 0]
    for info in sorted(others, key=lambda one: -one.warm):
        try:
            record = await peers.take_warm(info.url, spec)
        except OwnerUnavailable as error:
            log.warning("no warm driver can be had from %s: %s", info.id, error.message)
            continue
        if record is not None and (driver := await _connected(record, "warm", connect)) is not None:
            return driver
    return None


async def _connected(record: DriverRecord, how: str, connect: Connect) -> StartedDriver | None:
    """A driver that another server gave away, or None when it cannot be reached."""
    try:
        link = await connect(record, timeout=CONNECT_TIMEOUT)
    except (LinkBroken, TimeoutError) as error:
        log.warning("the driver that was handed over does not answer: %s", error)
        return None
    return StartedDriver(record, link, how)
