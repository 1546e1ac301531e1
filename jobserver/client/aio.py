"""The client for asyncio, on aiohttp: the same conversations, other hands."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from jobserver.client.core import (
    JSON,
    UNSENT,
    Conversation,
    Conversations,
    Credentials,
    EndedJob,
    Pause,
    Response,
    Send,
    Work,
)

T = TypeVar("T")
Progress = Callable[[Mapping[str, Any]], None]


class AsyncJobClient:
    """`JobClient` for asyncio: `async with AsyncJobClient([…]) as client`. The methods are the same, awaited."""

    def __init__(
        self, servers: Sequence[str], *, patience: float = 60.0, credentials: Credentials | None = None
    ) -> None:
        self._talk = Conversations(servers, time.monotonic, patience, credentials)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def upload(self, file: str | Path, name: str | None = None) -> str:
        """Uploads a file of code under its own name, or another; the name."""
        path = Path(file)
        chosen = name or path.stem
        data = await asyncio.to_thread(path.read_bytes)
        await self._carry_out(self._talk.upload(chosen, data, path.suffix.lower()))
        return chosen

    async def submit(self, work: Work, *, key: str | None = None) -> str:
        """The id of a job that was accepted and is never lost."""
        return await self._carry_out(self._talk.submit(work, key or uuid.uuid4().hex))

    async def end(
        self, job_id: str, *, seconds: float | None = None, progress: Progress | None = None
    ) -> EndedJob:
        """Waits for a job, through failovers."""
        return await self._carry_out(self._talk.end(job_id, seconds, progress))

    async def run(
        self,
        work: Work,
        *,
        key: str | None = None,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> EndedJob:
        """Submits a job and waits for it."""
        return await self._carry_out(self._talk.run(work, key or uuid.uuid4().hex, seconds, progress))

    async def result(self, job_id: str, accept: str = JSON) -> bytes:
        """A finished job's value alone: JSON, or the rows that were submitted for `ARROW` or `PARQUET`."""
        return await self._carry_out(self._talk.result(job_id, accept))

    async def kill(self, job_id: str) -> None:
        """Kills a job."""
        await self._carry_out(self._talk.kill(job_id))

    async def log(self, job_id: str, offset: int = 0) -> bytes:
        """What a job wrote, from a byte on."""
        return await self._carry_out(self._talk.log(job_id, offset))

    async def create_context(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        """Starts a context; returns when it runs."""
        await self._carry_out(self._talk.create_context(name, settings or {}))

    async def delete_context(self, name: str) -> bool:
        """Stops a context; False when it is still stopping."""
        return await self._carry_out(self._talk.delete_context(name))

    async def read(self, path: str, **query: Any) -> Any:
        """The JSON of any GET."""
        return await self._carry_out(self._talk.read(path, **query))

    async def _carry_out(self, conversation: Conversation[T]) -> T:
        answer: Response | None = None
        try:
            while True:
                step = conversation.send(answer)
                answer = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    answer = await self._exchange(step)
        except StopIteration as done:
            value: T = done.value
            return value

    async def _exchange(self, step: Send) -> Response | None:
        if self._session is None:
            raise RuntimeError("use the client inside `async with`")
        url = URL(step.url + step.path, encoded=True)
        limit = aiohttp.ClientTimeout(total=step.timeout)
        try:
            async with self._session.request(
                step.method,
                url,
                data=step.body or None,
                headers=step.headers,
                timeout=limit,
                allow_redirects=False,
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status, await answer.read(), headers)
        except aiohttp.ClientConnectorError:
            return UNSENT
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None
