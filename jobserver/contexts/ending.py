"""The end of a context at its owner: asked for, or because its jobs are done or failed. Its state first, its jobs second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ha.events import ContextEnded, Event
from jobserver.contexts.background import Background
from jobserver.contexts.takeover import Takeover
from jobserver.contexts.waiters import JobWaiters
from jobserver.errors import OwnerUnavailable
from jobserver.model import ContextState, ErrorInfo, JobRecord, OutcomeKind


class ContextEnd:
    """Belongs to the event loop. `owned`: the takeover whose gate is open, or None; `stop_timeout` in seconds."""

    def __init__(
        self,
        background: Background,
        waiters: JobWaiters,
        *,
        owned: Callable[[], Takeover | None],
        post: Callable[[Event], None],
        stop_timeout: float,
    ) -> None:
        self._background = background
        self._waiters = waiters
        self._owned = owned
        self._post = post
        self._stop_timeout = stop_timeout
        self._stopping: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the context is being stopped: nothing of it is replaced or moved any more."""
        return self._stopping is not None

    async def stop(self, state: ContextState = ContextState.FINISHED, *, force: bool = False) -> None:
        """Ends the context. `force`: its driver at once. Raises OwnerUnavailable."""
        takeover = self._owned()
        if takeover is None:
            raise OwnerUnavailable("this server does not own the context")
        if force:
            takeover.link.on_closed = lambda why: None  # its end is no reason to replace it
            takeover.kill_driver()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
            return
        self._stopping = self._background.spawn(self._stop(takeover, state), "stop-context")
        self._stopping.add_done_callback(self._stopped)
        await asyncio.shield(self._stopping)

    def stop_soon(self, state: ContextState, name: str) -> None:
        """The same beside everything else. One that moves meanwhile is left to its next owner, who finds its state in SQL."""
        self._background.spawn(self._stop_quietly(state), name)

    def job_ended(self, takeover: Takeover, job: JobRecord) -> None:
        """An ad-hoc context ends with its job, others with a failed one if their settings say so.

        A job that is killed can end when the next takeover has begun already: what counts is the one it ran under.
        """
        if self._stopping is not None:
            return
        failed = job.outcome not in (OutcomeKind.FINISHED, None)
        if takeover.context.adhoc:
            self.stop_soon(ContextState.FINISHED, "stop-adhoc")
        elif failed and takeover.stop_on_error:
            self.stop_soon(ContextState.KILLED, "stop-on-error")

    async def _stop_quietly(self, state: ContextState) -> None:
        with contextlib.suppress(OwnerUnavailable):
            await self.stop(state)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """One that failed (superseded) must not keep a later ownership of this server from stopping the context."""
        self._stopping = None

    async def _stop(self, takeover: Takeover, state: ContextState) -> None:
        await takeover.writes.request_stop()
        if takeover.jobs is not None:
            takeover.jobs.close()
        takeover.link.on_closed = lambda why: None
        await takeover.shut_down(self._stop_timeout)
        name = takeover.context.name
        await takeover.writes.end_context(
            state, None, ErrorInfo(f"Context ({name}) for this job was terminated")
        )
        await self._tell_ended(takeover)
        self._post(ContextEnded())

    async def _tell_ended(self, takeover: Takeover) -> None:
        for job_id in self._waiters.waited_for():
            job = await takeover.writes.job(job_id)
            if job is not None and job.state.final:
                self._waiters.ended(job)
