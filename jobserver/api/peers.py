"""What servers ask of each other, over HTTP: the client's side. `internal.py` has the routes.

Every call carries the cluster's secret; without it the routes answer 401. A server that is gone, is not the owner or answers
nonsense is `OwnerUnavailable`: the caller looks for the owner again.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import aiohttp

from ha.coordination import OwnerNode
from jobserver.api.job_records import accepted_of, driver_of, job_of, offer_bytes
from jobserver.api.offers import NotSpoken, OfferLink
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.looks import LOOK_TIMEOUT, Look
from jobserver.contexts.moving import FLUSH_TIMEOUT
from jobserver.contexts.peers import MoveOrder
from jobserver.contexts.registry import ELECTION_TIMEOUT
from jobserver.contexts.waiters import Accepted, JobNews, Offer, Until
from jobserver.errors import (
    ContextInitFailed,
    MoveRefused,
    NotFound,
    ObjectRefused,
    OwnerUnavailable,
    TimedOut,
)
from jobserver.job_events import EventId
from jobserver.model import DriverRecord, ObjectOrder
from jobserver.progress import progress_of

SECRET_HEADER = "X-Jobserver-Secret"
MOVE_GRACE = FLUSH_TIMEOUT + ELECTION_TIMEOUT + 5.0
"""Seconds a move may take beyond what it waits for drivers and jobs."""
GRACE = 2.0
"""Seconds an answer may come later than the wait that was asked for."""
OBJECT_GRACE = 10.0
"""Seconds that an owner may wait for its driver beside the time that an order about a named object allows."""


class HttpPeers:
    """`contexts.peers.Peers` on one aiohttp session. Create and close it inside the event loop."""

    def __init__(self, secret: str) -> None:
        self._session = aiohttp.ClientSession(
            headers={SECRET_HEADER: secret},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._offers: dict[str, OfferLink] = {}

    async def close(self) -> None:
        """Ends the connections."""
        await asyncio.gather(*(link.close() for link in self._offers.values()))
        await self._session.close()

    async def incarnation(self, url: str, *, timeout: float) -> str:
        answer = await self._call("GET", f"{url}/internal/incarnation", timeout)
        return str(answer["incarnation"])

    async def claim(self, url: str, context_id: str, *, seconds: float) -> None:
        answer = await self._call(
            "POST", f"{url}/internal/contexts/{context_id}/claim", seconds, seconds=seconds
        )
        if answer.get("failed") == "init":
            raise ContextInitFailed(answer["message"])
        if answer.get("failed") == "time":
            raise TimedOut(answer["message"])

    async def submit(self, url: str, context_id: str, offer: Offer, until: Until, seconds: float) -> Accepted:
        link = self._offers.get(url)
        if link is None:
            link = self._offers[url] = OfferLink(self._session, url)
        try:
            return await link.submit(offer, until, seconds)
        except NotSpoken:
            return await self._submit_by_call(url, context_id, offer, until, seconds)

    async def _submit_by_call(
        self, url: str, context_id: str, offer: Offer, until: Until, seconds: float
    ) -> Accepted:
        """To a server of an older release."""
        path = f"{url}/internal/contexts/{context_id}/jobs"
        body = offer_bytes(offer)
        answer = await self._read("POST", path, seconds, body, seconds=seconds, until=until.value)
        try:
            return accepted_of(answer)
        except ValueError as error:
            raise OwnerUnavailable(f"{path} answers something else than an accepted job") from error

    async def follow(
        self, url: str, context_id: str, job_id: str, until: Until, seconds: float
    ) -> JobNews | None:
        path = f"{url}/internal/contexts/{context_id}/jobs/{job_id}/follow"
        answer = await self._call("POST", path, seconds, seconds=seconds, until=until.value)
        return JobNews(job_of(answer["job"])) if answer.get("job") else None

    async def kill(self, url: str, context_id: str, job_id: str) -> bool:
        answer = await self._call("POST", f"{url}/internal/contexts/{context_id}/jobs/{job_id}/kill", 10.0)
        return bool(answer["killed"])

    async def look(
        self, url: str, context_id: str, job_id: str, after: EventId | None, seconds: float
    ) -> Look | None:
        path = f"{url}/internal/contexts/{context_id}/jobs/{job_id}/look"
        answer = await self._call("POST", path, seconds + LOOK_TIMEOUT, seconds=seconds, after=after or "")
        if answer.get("job") is None:
            return None
        progress = answer.get("progress")
        return Look(job_of(answer["job"]), None if progress is None else progress_of(progress))

    async def tails(self, url: str, context_id: str, job_id: str) -> list[dict[str, Any]]:
        path = f"{url}/internal/contexts/{context_id}/jobs/{job_id}/tails"
        return list((await self._call("GET", path, LOOK_TIMEOUT))["tails"])

    async def stop(self, url: str, context_id: str, *, seconds: float, force: bool) -> bool:
        path = f"{url}/internal/contexts/{context_id}/stop"
        answer = await self._call("POST", path, seconds, seconds=seconds, force=str(force).lower())
        return bool(answer["ended"])

    async def take_hot(self, url: str, context_id: str) -> DriverRecord | None:
        answer = await self._call("POST", f"{url}/internal/contexts/{context_id}/take-hot", 2.0)
        return driver_of(answer["driver"]) if answer.get("driver") else None

    async def take_warm(self, url: str, spec: LaunchSpec) -> DriverRecord | None:
        answer = await self._call("POST", f"{url}/internal/take-warm", 2.0, spec=spec.digest)
        return driver_of(answer["driver"]) if answer.get("driver") else None

    async def behind(self, url: str) -> dict[str, dict[str, Any]]:
        answer = await self._call("GET", f"{url}/internal/standbys", 1.5)
        return dict(answer["standbys"])

    async def make_ready(self, url: str, context_id: str, *, seconds: float) -> None:
        path = f"{url}/internal/contexts/{context_id}/make-ready"
        _not_refused(await self._call("POST", path, seconds, seconds=seconds))

    async def move(self, url: str, context_id: str, order: MoveOrder) -> None:
        answer = await self._call(
            "POST",
            f"{url}/internal/contexts/{context_id}/move",
            order.seconds + order.grace + MOVE_GRACE,
            **asdict(order),
        )
        _not_refused(answer)

    async def take_over(self, url: str, node: OwnerNode, *, adopt: bool) -> None:
        path = f"{url}/internal/contexts/{node.context_id}/take-over"
        query = {"server": node.server, "incarnation": node.incarnation, "election": node.election}
        _not_refused(await self._call("POST", path, ELECTION_TIMEOUT, adopt=adopt, **query))

    async def drain(self, url: str, *, grace: float, keep_drivers: bool) -> None:
        await self._call("POST", f"{url}/internal/drain", 5.0, grace=grace, keep_drivers=keep_drivers)

    async def undrain(self, url: str) -> None:
        await self._call("POST", f"{url}/internal/undrain", 5.0)

    async def objects(self, url: str, context_id: str) -> list[dict[str, Any]]:
        answer = await self._call("GET", f"{url}/internal/contexts/{context_id}/objects", 10.0)
        return list(answer["objects"])

    async def data(self, url: str, context_id: str) -> dict[str, Any] | None:
        answer = await self._call("GET", f"{url}/internal/contexts/{context_id}/data", 1.0)
        found: dict[str, Any] | None = answer["data"]
        return found

    async def object(self, url: str, context_id: str, order: ObjectOrder) -> dict[str, Any] | None:
        path = f"{url}/internal/contexts/{context_id}/object"
        query = {
            "name": order.name,
            "do": order.deed.value,
            "seconds": order.seconds,
            "version": order.version,
        }
        answer = await self._call("POST", path, order.seconds + OBJECT_GRACE, **query)
        match answer.get("failed"):
            case "absent":
                raise NotFound(answer["message"])
            case "refused":
                raise ObjectRefused(answer["message"])
        found: dict[str, Any] | None = answer["object"]
        return found

    async def _call(self, method: str, url: str, timeout: float, **query: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(await self._read(method, url, timeout, **query))
        except ValueError as error:
            raise OwnerUnavailable(f"{url} answers no JSON") from error
        return answer

    async def _read(
        self, method: str, url: str, timeout: float, body: bytes | None = None, **query: Any
    ) -> bytes:
        limit = aiohttp.ClientTimeout(total=timeout + GRACE, sock_connect=min(timeout + 0.1, 2.0))
        params = {key: str(value) for key, value in query.items()}
        try:
            async with self._session.request(
                method, url, params=params, data=body, timeout=limit
            ) as response:
                if response.status != 200:
                    raise OwnerUnavailable(f"{url} answers {response.status}")
                return await response.read()
        except (TimeoutError, aiohttp.ClientError, ValueError, OSError) as error:
            raise OwnerUnavailable(f"{url} does not answer: {type(error).__name__}") from error


def _not_refused(answer: dict[str, Any]) -> None:
    """A refusal is an answer, not a broken call. Raises MoveRefused."""
    if "refused" in answer:
        raise MoveRefused(answer["refused"])
