"""What servers ask of each other about contexts and jobs. Implemented over HTTP by `jobserver/api/peers.py`."""

from __future__ import annotations

from typing import Any, Protocol

from jobserver.contexts.waiters import JobNews, Until
from jobserver.model import DriverRecord, ObjectOrder


class Peers(Protocol):
    """Calls to another server by its URL. All raise OwnerUnavailable when it cannot be reached or is not the owner."""

    async def incarnation(self, url: str, *, timeout: float) -> str:
        """Which life of the server answers."""

    async def claim(self, url: str, context_id: str, *, seconds: float) -> None:
        """Asks the server to own the context and waits for its gate. Raises ContextInitFailed, TimedOut."""

    async def follow(
        self, url: str, context_id: str, job_id: str, until: Until, seconds: float
    ) -> JobNews | None:
        """Tells the owner of a job and waits for news of it; None when the time is over."""

    async def kill(self, url: str, context_id: str, job_id: str) -> bool:
        """Whether a living job was killed."""

    async def stop(self, url: str, context_id: str, *, seconds: float, force: bool) -> bool:
        """Asks the owner to stop the context; whether it has ended within the time."""

    async def take_hot(self, url: str, context_id: str) -> DriverRecord | None:
        """The server's hot standby of the context, given away to the caller; None when it has none."""

    async def objects(self, url: str, context_id: str) -> list[dict[str, Any]]:
        """Named objects as the driver tells them."""

    async def object(self, url: str, context_id: str, order: ObjectOrder) -> dict[str, Any] | None:
        """Passes on an order about one named object. Raises NotFound, ObjectRefused."""
