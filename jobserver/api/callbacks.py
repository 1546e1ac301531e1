"""Telling clients of the end of their jobs: requests to `callbackUrl` (rest_contract 5.9), from rows in SQL.

The leader looks for what is due; whoever takes a row alone makes its next try. A server that dies in the middle of a try lets
its lease run out, so every callback is made at least once while tries are left, and can be made twice. Redirects are not
followed, and a name is looked at after it was resolved: it cannot lead to an address that the settings forbid.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from jobserver.api import job_answers
from jobserver.callback_rules import check_url, delay_after, may_connect, refusal
from jobserver.errors import BadRequest, JobServerError
from jobserver.model import JobRecord
from jobserver.saved import Callback

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two looks of the leader."""
AT_ONCE = 16
"""Tries that a server makes at a time; the others wait for their turn in SQL."""
LEASE_MARGIN = 5.0
"""Seconds that a try's lease is longer than the try may take."""


@dataclass(frozen=True, slots=True)
class CallbackSettings:
    """`tries` in all; `timeout` of one in seconds; `private`: loopback and private networks may be called."""

    tries: int
    timeout: float
    private: bool


class CallbackRows(Protocol):
    """`jobserver.store.callbacks.Callbacks`."""

    async def due(self, now: datetime, limit: int) -> list[Callback]: ...
    async def take(self, callback: Callback, until: datetime) -> bool: ...
    async def delivered(self, job_id: str, tries: int, at: datetime) -> bool: ...
    async def failed(self, job_id: str, tries: int, error: str, next_at: datetime) -> bool: ...
    async def given_up(self, job_id: str, tries: int, error: str, at: datetime) -> bool: ...


class JobRows(Protocol):
    """Where ended jobs are read."""

    async def job(self, job_id: str) -> JobRecord | None: ...


class CallbackDelivery:
    """One per server. Create it and close it inside the event loop."""

    def __init__(
        self,
        rows: CallbackRows,
        jobs: JobRows,
        settings: CallbackSettings,
        *,
        leads: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._rows = rows
        self._jobs = jobs
        self._settings = settings
        self._leads = leads
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Until cancelled: while this server leads, makes what is due."""
        try:
            while True:
                await asyncio.sleep(EVERY)
                if self._leads():
                    try:
                        await self.deliver()
                    except JobServerError as error:
                        log.warning("callbacks were not looked for: %s", error.message)
                    except (
                        Exception
                    ):  # the next look comes: one row in a bad state must not end all callbacks
                        log.exception("a look for callbacks ended in an unforeseen way")
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def deliver(self) -> int:
        """Makes one try of everything that is due now; how many tries that were. Raises Unavailable.

        A try that breaks leaves the others alone; its row is due again when its lease is over.
        """
        due = await self._rows.due(self._now(), AT_ONCE)
        made = await asyncio.gather(*(self._try(callback) for callback in due), return_exceptions=True)
        for callback, end in zip(due, made, strict=True):
            if isinstance(end, JobServerError):
                log.warning("the callback of job %s is left for later: %s", callback.job_id, end.message)
            elif isinstance(end, BaseException):
                log.error("the callback of job %s broke in an unforeseen way", callback.job_id, exc_info=end)
        return sum(end is True for end in made)

    async def _try(self, callback: Callback) -> bool:
        number = callback.tries + 1
        lease = timedelta(seconds=self._settings.timeout + LEASE_MARGIN)
        if not await self._rows.take(callback, self._now() + lease):
            return False
        job = await self._jobs.job(callback.job_id)
        if job is None:  # removed with its callback
            return False
        trouble = await self._send(callback.url, job)
        if trouble is None:
            await self._rows.delivered(job.id, number, self._now())
        elif number >= self._settings.tries:
            log.error("the callback of job %s is given up after %d tries: %s", job.id, number, trouble)
            await self._rows.given_up(job.id, number, trouble, self._now())
        else:
            next_at = self._now() + timedelta(seconds=delay_after(number))
            await self._rows.failed(job.id, number, trouble, next_at)
        return True

    async def _send(self, url: str, job: JobRecord) -> str | None:
        """None when the other side took it, else what went wrong."""
        limit = aiohttp.ClientTimeout(total=self._settings.timeout)
        headers = {"Content-Type": "application/json", "Idempotency-Key": job.id}
        try:
            check_url(url, private=self._settings.private)
            body = job_answers.ended(job_answers.without_stored(job)).body
            async with self._client().post(
                url, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                status = answer.status
        except BadRequest as error:
            return error.message
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error.__cause__ or error}"[:500]
        if status < 300:
            return None
        return f"the other side answers {status}" + (": redirects are not followed" if status < 400 else "")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = GuardedResolver(private=self._settings.private)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=AT_ONCE, resolver=resolver, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class GuardedResolver(AbstractResolver):
    """Resolves names as the system does, and leaves out addresses that callbacks may not go to."""

    def __init__(self, *, private: bool, resolver: AbstractResolver | None = None) -> None:
        self._private = private
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError when nothing is left."""
        found = await self._resolver.resolve(host, port, family)
        allowed = [each for each in found if may_connect(each["host"], private=self._private)]
        if not allowed:
            raise OSError(refusal(host, private=self._private))
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
