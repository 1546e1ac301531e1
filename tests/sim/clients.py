"""What clients do: submit with a key, repeat on another server when there is no answer, kill, remember what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobserver.errors import (
    CallerError,
    ContextExists,
    ContextInitFailed,
    JobServerError,
    NotFound,
    TimedOut,
)
from jobserver.model import JobRecord
from jobserver.service import Submission
from tests.sim.scenario import SERVERS, Request
from tests.sim.server import SimServer
from tests.sim.world import CLIENT, World

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds a client repeats its request."""
PAUSE = 0.4


class Clients:
    """All clients of a run. They never fail themselves; `idle` tells when none has anything to do any more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: list[str] = []

    @property
    def idle(self) -> bool:
        return all(task.done() for task in self._tasks)

    async def create_context(self, name: str) -> None:
        """Until it is there, by whichever server."""
        while True:
            try:
                await self._ask(25.0, lambda server: server.contexts.create(name, {}))
                return
            except ContextExists:
                return
            except JobServerError as error:
                self._world.say(CLIENT, f"creating {name}: {error.message}")
                await asyncio.sleep(PAUSE)

    def begin(self) -> None:
        """Sends every request of the scenario at its time."""
        start = self._world.loop.time()
        for number, request in enumerate(self._world.scenario.requests):
            self._tasks.append(asyncio.create_task(self._client(start, number, request)))

    async def _client(self, start: float, number: int, request: Request) -> None:
        await asyncio.sleep(start + request.at - self._world.loop.time())
        submission = _submission(number, request)
        job_id = await self._submit(number, request, submission)
        if job_id is not None and request.kill_after:
            await asyncio.sleep(request.kill_after)
            await self._kill(job_id)
        if job_id is not None:
            await self._follow(job_id)

    async def _submit(self, number: int, request: Request, submission: Submission) -> str | None:
        """The id of the accepted job; None when it was refused, or nobody knows."""
        ends = self._world.loop.time() + PATIENCE
        server = request.server
        while self._world.loop.time() < ends:
            try:
                done = await self._world.call(
                    None, f"http://{server}", request.wait + 3.0, lambda one: one.jobs.submit(submission)
                )
            except TimedOut as error:
                if error.job_id is not None:
                    return self._accepted(number, request, error.job_id)
            except (CallerError, ContextInitFailed) as error:
                self._world.say(CLIENT, f"request {number} is refused: {error.message}")
                return None
            except JobServerError as error:
                self._world.say(CLIENT, f"request {number} at {server}: {error.message}")
                self.failed.append(f"request {number} at {server}: {error.message}")
            else:
                self._shown(done.job)
                return self._accepted(number, request, done.job.id)
            if not request.keyed:
                return None
            await asyncio.sleep(PAUSE)
            server = self._world.random.choice(SERVERS)
        return None

    def _accepted(self, number: int, request: Request, job_id: str) -> str:
        self._world.say(CLIENT, f"request {number} ({request.main}) is job {job_id}")
        self._world.oracle.acceptance(f"request {number}", job_id)
        return job_id

    def _shown(self, job: JobRecord) -> None:
        self._world.say(CLIENT, f"was shown job {job.id}: {job.state} {job.result or ''}")
        self._world.oracle.answer(job)

    async def _kill(self, job_id: str) -> None:
        self._world.oracle.kills.add(job_id)
        try:
            self._shown(await self._ask(15.0, lambda server: server.jobs.kill(job_id)))
        except (NotFound, JobServerError) as error:
            self._world.say(CLIENT, f"killing {job_id}: {error.message}")

    async def _follow(self, job_id: str) -> None:
        """Asks now and then until the job has ended."""
        while True:
            try:
                job = await self._ask(5.0, lambda server: server.store.job(job_id))
            except JobServerError:
                job = None
            if job is not None:
                self._world.oracle.answer(job)
                if job.state.final:
                    return
            await asyncio.sleep(2.0)

    async def _ask(self, timeout: float, call: Callable[[SimServer], Awaitable[T]]) -> T:
        url = f"http://{self._world.random.choice(SERVERS)}"
        return await self._world.call(None, url, timeout, call)


def _submission(number: int, request: Request) -> Submission:
    return Submission(
        request.main,
        ("bin",),
        {},
        request.context,
        request.sync,
        request.wait,
        max_attempts=request.max_attempts,
        on_failover=request.on_failover,
        idempotency_key=f"key-{number}" if request.keyed else None,
        request_digest="d" if request.keyed else None,
    )
