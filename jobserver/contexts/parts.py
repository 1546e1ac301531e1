"""What all keepers and takeovers of a server share: ports, settings, and how blocking work is done. Values only."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from checkpoint.files import FileStore
from ha.coordination import Coordination, ServerInfo
from jobserver.contexts.delivery import BinaryPath
from jobserver.contexts.fail_points import Reach, nowhere
from jobserver.contexts.jobs import JobsSettings
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.launcher import Launcher
from jobserver.contexts.link import Connect, DriverLink
from jobserver.contexts.peers import Peers
from jobserver.contexts.pool import DriverPool, StartedDriver
from jobserver.model import ContextRecord, DriverRecord
from jobserver.store.metadata import Metadata

T = TypeVar("T")
P = ParamSpec("P")


async def no_hot(_context_id: str) -> StartedDriver | None:
    """For servers that keep no hot standbys."""
    return None


async def no_warm(_spec: LaunchSpec) -> StartedDriver | None:
    """For servers that ask no others for theirs."""
    return None


class Run(Protocol):
    """Carries out a function that blocks, beside the event loop."""

    async def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What it returns or raises."""


def new_token() -> str:
    """What tells one grant of an epoch from every other."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class TakeoverParts:
    """What every takeover of a server shares. Times in seconds."""

    store: Metadata
    files: FileStore
    pool: DriverPool
    launcher: Launcher
    spec_of: Callable[[ContextRecord], LaunchSpec]
    jobs_of: Callable[[ContextRecord], JobsSettings]
    binary_path: BinaryPath
    checkpoint_root: str
    cluster: str
    checkpoint_secret: bytes
    adopt_timeout: float
    activate_timeout: float
    connect: Connect = DriverLink.connect
    run: Run = asyncio.to_thread
    new_token: Callable[[], str] = new_token
    hot: Callable[[str], Awaitable[StartedDriver | None]] = no_hot
    warm: Callable[[LaunchSpec], Awaitable[StartedDriver | None]] = no_warm
    silence: Callable[[DriverRecord], float] = lambda driver: 0.0
    reached: Reach = nowhere
    standby_of: Callable[[ContextRecord], str] = lambda context: "warm"


@dataclass(frozen=True, slots=True)
class KeeperTimes:
    """Seconds; the settings of section `ha` and `driver`."""

    incumbent_grace: float
    takeover_timeout: float
    driver_timeout: float
    stop_timeout: float
    replace_when_stuck: bool = False


@dataclass(frozen=True, slots=True)
class KeeperParts:
    """What every keeper of a server shares."""

    me: ServerInfo
    coordination: Coordination
    takeover: TakeoverParts
    peers: Peers
    times: KeeperTimes
    url_of: Callable[[str], str | None]
    ended: Callable[[str], None]
