"""What servers ask of each other about contexts and jobs. Implemented over HTTP by `jobserver/api/peers.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ha.coordination import OwnerNode
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.looks import Look
from jobserver.contexts.waiters import Accepted, JobNews, Offer, Until
from jobserver.job_events import EventId
from jobserver.model import DriverRecord, ObjectOrder


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """A planned move: to which server, how many seconds running jobs have to end, and whether the driver goes along.

    `seconds` bounds how long the next owner may take to make a driver ready.
    """

    to: str
    grace: float
    keep_driver: bool
    seconds: float


class Peers(Protocol):
    """Calls to another server by its URL. All raise OwnerUnavailable when it cannot be reached or is not the owner."""

    async def incarnation(self, url: str, *, timeout: float) -> str:
        """Which life of the server answers."""

    async def claim(self, url: str, context_id: str, *, seconds: float) -> None:
        """Asks the server to own the context and waits for its gate. Raises ContextInitFailed, TimedOut."""

    async def submit(self, url: str, context_id: str, offer: Offer, until: Until, seconds: float) -> Accepted:
        """Has the owner accept a new job and waits for news of it. OwnerUnavailable: it may have been accepted."""

    async def follow(
        self, url: str, context_id: str, job_id: str, until: Until, seconds: float
    ) -> JobNews | None:
        """Tells the owner of a job and waits for news of it; None when the time is over."""

    async def kill(self, url: str, context_id: str, job_id: str) -> bool:
        """Whether a living job was killed."""

    async def look(
        self, url: str, context_id: str, job_id: str, after: EventId | None, seconds: float
    ) -> Look | None:
        """The job as its owner sees it, once it is newer than `after`; None when the owner knows it no more."""

    async def tails(self, url: str, context_id: str, job_id: str) -> list[dict[str, Any]]:
        """Output of the job that is not in the store yet, as the driver tells it."""

    async def stop(self, url: str, context_id: str, *, seconds: float, force: bool) -> bool:
        """Asks the owner to stop the context; whether it has ended within the time."""

    async def take_hot(self, url: str, context_id: str) -> DriverRecord | None:
        """The server's hot standby of the context, given away to the caller; None when it has none."""

    async def take_warm(self, url: str, spec: LaunchSpec) -> DriverRecord | None:
        """A warm driver of the server's pool, given away to the caller; None when it has none for the spec."""

    async def behind(self, url: str) -> dict[str, dict[str, Any]]:
        """How far each hot driver of the server has read, by context id (`HotStandbys.behind`)."""

    async def make_ready(self, url: str, context_id: str, *, seconds: float) -> None:
        """Has the server start a driver that follows the context, for a planned move. Raises MoveRefused."""

    async def move(self, url: str, context_id: str, order: MoveOrder) -> None:
        """Has the owner hand the context over. Returns when the next owner was elected. Raises MoveRefused."""

    async def take_over(self, url: str, node: OwnerNode, *, adopt: bool) -> None:
        """Hands the context over to the server: returns when it was elected in place of `node`. Raises MoveRefused."""

    async def drain(self, url: str, *, grace: float, keep_drivers: bool) -> None:
        """Has the server give all its contexts away and take no more; returns at once."""

    async def undrain(self, url: str) -> None:
        """Has the server take contexts again."""

    async def objects(self, url: str, context_id: str) -> list[dict[str, Any]]:
        """Named objects as the driver tells them."""

    async def data(self, url: str, context_id: str) -> dict[str, Any] | None:
        """The named objects as a whole, as the owner heard of them last."""

    async def object(self, url: str, context_id: str, order: ObjectOrder) -> dict[str, Any] | None:
        """Passes on an order about one named object. Raises NotFound, ObjectRefused."""
