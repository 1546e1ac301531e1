"""Clients at work while things fail: synchronous and asynchronous submissions with idempotency keys, repeated until answered.

A client asks one server after the other with the same key; 503 and a silent server mean "ask the next". What it saw goes into
the history, which `checker` judges. Knows the REST API and nothing else of the product.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from tests.drills.checker import Operation

ATTEMPT = 8.0
"""Seconds a client waits for one server's answer before it asks the next."""
PATIENT_ATTEMPT = 20.0
"""The same while it has been told through whom to go: then it has no reason to give one up."""
PATIENCE = 90.0
"""Seconds after which a submission without an answer is a fault."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is submitted: `query` of POST /jobs, and for a number the body and the right result."""

    query: Mapping[str, str]
    config: Callable[[int, bool], Mapping[str, Any]]
    expected: Callable[[int], Any]


class Workload:
    """`urls` are the servers that may be asked at this moment. Runs in a thread of its own while the block lasts.

    An asynchronous client pauses after each submission: it must not submit more than the context can run, or what is accepted
    is final only long after the faults. A synchronous one asks again at once, unless it is given a pause, too: what it asks
    may take all of the machine's cores, and then all else takes as long as that lets it. `through` names those of the servers
    that are to be asked; `repeated` tells of each attempt that had to be made again.
    """

    def __init__(
        self,
        urls: Callable[[], Sequence[str]],
        task: Task,
        *,
        sync_clients: int = 1,
        async_clients: int = 1,
        pause: float = 0.3,
        sync_pause: float = 0.0,
        attempt: float = ATTEMPT,
    ) -> None:
        self.through: Sequence[str] | None = None
        self.repeated: list[str] = []
        self._attempt = attempt
        self.history: list[Operation] = []
        self.name = uuid.uuid4().hex[:8]
        self._urls = urls
        self._task = task
        self._clients = [True] * sync_clients + [False] * async_clients
        self.pauses = {True: sync_pause, False: pause}
        self._numbers = itertools.count(1)
        self._turn = itertools.count()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=f"load-{self.name}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def answered(self, since: float = 0.0) -> int:
        """How many submissions were answered after a moment of the monotonic clock."""
        return sum(one.job_id is not None and one.ended > since for one in list(self.history))

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            await asyncio.gather(*(self._client(session, sync) for sync in self._clients))

    async def _client(self, session: aiohttp.ClientSession, sync: bool) -> None:
        while not self._ends.is_set():
            self.history.append(await self._submit(session, next(self._numbers), sync))
            await asyncio.sleep(self.pauses[sync])

    async def _submit(self, session: aiohttp.ClientSession, number: int, sync: bool) -> Operation:
        begun, key = time.monotonic(), f"{self.name}-{number}"
        status, answer = await self._answer(session, number, sync, key)
        job_id, result, fault = None, None, None
        if status == (200 if sync else 202) and ("status" in answer) is not sync and "jobId" in answer:
            job_id, result = str(answer["jobId"]), answer.get("result")
        else:
            fault = f"{status} {str(answer)[:1000]}"
        expected = self._task.expected(number)
        return Operation(number, key, sync, expected, begun, time.monotonic(), job_id, result, fault)

    async def _answer(
        self, session: aiohttp.ClientSession, number: int, sync: bool, key: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and body; status 0 when nobody answered within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            urls = self.through or self._urls()
            url = urls[next(self._turn) % len(urls)] if urls else ""
            try:
                async with asyncio.timeout(PATIENT_ATTEMPT if self.through else self._attempt):
                    status, answer = await self._ask(session, url, number, sync, key)
            except (TimeoutError, aiohttp.ClientError) as error:
                status, answer = 503, {"error": repr(error)}
            if status != 503:
                return status, answer
            self.repeated.append(f"job {number} (sync {sync}) through {url}: {answer}")
            await asyncio.sleep(0.05)
        return 0, {"last": self.repeated[-1:]}

    async def _ask(
        self, session: aiohttp.ClientSession, url: str, number: int, sync: bool, key: str
    ) -> tuple[int, dict[str, Any]]:
        if not url:
            return 503, {"error": "nobody to ask"}
        query = {**self._task.query, "sync": str(sync).lower(), "timeout": "60"}
        body, headers = self._task.config(number, sync), {"Idempotency-Key": key}
        async with session.post(f"{url}/jobs", params=query, json=body, headers=headers) as reply:
            text = await reply.text()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        return reply.status, answer if isinstance(answer, dict) else {"answer": answer}
