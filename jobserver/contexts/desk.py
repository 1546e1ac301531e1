"""Creating, showing and deleting contexts: on the server that the client talks to, owner or not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ha.coordination import Coordination
from ha.placement import place
from jobserver.contexts.clock import now, seconds_left
from jobserver.contexts.kept import KeptCheckpoints, restore_source
from jobserver.contexts.peers import Peers
from jobserver.contexts.readiness import Picture, Readiness
from jobserver.contexts.registry import ContextRegistry
from jobserver.errors import (
    ContextExists,
    ContextInitFailed,
    JobServerError,
    NotFound,
    OwnerUnavailable,
    Superseded,
    TimedOut,
)
from jobserver.model import ContextRecord, ContextState
from jobserver.service import ContextView
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)

INCUMBENT_TIMEOUT = 1.0
"""Seconds the recorded owner of a context without owner node has to say that it lives."""
RETRY = 0.1
"""Seconds between looks at SQL and the owners while a context comes up or moves."""


class ContextDesk:
    """One per server. Times in seconds; `defaults` and `predefined` as in section `contexts` of the settings."""

    def __init__(
        self,
        me: str,
        store: Metadata,
        registry: ContextRegistry,
        coordination: Coordination,
        peers: Peers,
        *,
        defaults: Mapping[str, Any],
        predefined: Mapping[str, Mapping[str, Any]],
        creation_timeout: float,
        deletion_timeout: float,
        check: Callable[[Mapping[str, Any]], None],
        readiness: Readiness,
        kept: KeptCheckpoints,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._me = me
        self._store = store
        self._registry = registry
        self._coordination = coordination
        self._peers = peers
        self._defaults = defaults
        self._predefined = predefined
        self._creation_timeout = creation_timeout
        self._deletion_timeout = deletion_timeout
        self._check = check
        self._kept = kept
        self._readiness = readiness
        self._new_id = new_id
        self._starting: set[asyncio.Task[None]] = set()

    # Reading

    async def names(self) -> list[str]:
        """Names in RUNNING, RESTARTING or STOPPING, newest first."""
        return [context.name for context in await self._store.listed_contexts()]

    async def view(self, name: str) -> ContextView:
        """The most recent context of a name with what coordination knows. Raises NotFound."""
        context = await self._store.latest_context(name)
        if context is None:
            raise NotFound(f"can't find context with name {name}")
        fence = await self._store.fence(context.id)
        return ContextView(
            record=context,
            epoch=fence.epoch if fence else 0,
            owner=None if context.state.final else self.owner(context.id),
            standbys=(await self.standbys([context]))[context.id],
        )

    def owner(self, context_id: str) -> str | None:
        """Id of the server that holds the owner node, as last seen."""
        node = self._registry.owner(context_id)
        return node.server if node else None

    async def standbys(self, contexts: Sequence[ContextRecord]) -> dict[str, tuple[Picture, ...]]:
        """The servers next in line of each context, with what they keep ready, by context id."""
        return await self._readiness.of(contexts)

    # Creating

    async def create(self, name: str, settings: Mapping[str, Any]) -> ContextRecord:
        """Returns when it runs. Raises BadRequest, ContextExists, ContextInitFailed, TimedOut, Unavailable."""
        await self._kept.check_source(settings)
        context = await self.insert(name, settings, adhoc=False)
        await self._start(context, now() + self._creation_timeout)
        return await self._store.context(context.id) or context

    async def insert(self, name: str, settings: Mapping[str, Any], *, adhoc: bool) -> ContextRecord:
        """The row of a new context in STARTED; nobody owns it yet."""
        settings = {**self._defaults, **settings}
        self._check(settings)
        source = restore_source(settings)
        context = ContextRecord(
            id=self._new_id(),
            name=name,
            settings=settings,
            state=ContextState.STARTED,
            adhoc=adhoc,
            started_at=datetime.now(UTC),
        )
        await self._store.create_context(context, restored_from=source.context_id if source else None)
        return context

    def start_in_background(self, context: ContextRecord) -> None:
        """For ad-hoc contexts: whoever waits for the job learns of a failure by the job's end."""
        self._begin(self._start_quietly(context))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def start_predefined(self) -> None:
        """The leader starts configured contexts that do not live; one that fails is reported and tried at the next sweep."""
        for name, settings in self._predefined.items():
            context = await self._store.latest_context(name)
            if context is None or context.state.final:
                with contextlib.suppress(ContextExists):
                    self.start_in_background(await self.insert(name, settings, adhoc=False))

    async def claim_unowned(self, older_than: float) -> None:
        """The leader's sweep: living contexts whose owner node is missing are given to a server."""
        for context in await self._store.active_contexts():
            age = (datetime.now(UTC) - context.started_at).total_seconds()
            if age >= older_than and self._registry.owner(context.id) is None:
                log.warning("context %s (%s) has no owner: looking for one", context.name, context.id)
                self._begin(self._give_away(context))

    async def _give_away(self, context: ContextRecord) -> None:
        """To the owner that SQL knows, if it lives: it may be about to make its node again, after ZooKeeper was away."""
        incumbent = await self._incumbent(context.id)
        if incumbent is not None:
            with contextlib.suppress(JobServerError):
                await self._claim(incumbent, context.id, self._creation_timeout)
                return
        await self._start_quietly(context)

    async def _incumbent(self, context_id: str) -> str | None:
        """The server that SQL has as owner, when that very life of it answers."""
        with contextlib.suppress(JobServerError):
            row = await self._store.fence(context_id)
            url = self._registry.url_of(row.owner) if row and row.owner else None
            if (
                row
                and url
                and await self._peers.incarnation(url, timeout=INCUMBENT_TIMEOUT) == row.incarnation
            ):
                return row.owner
        return None

    async def _start_quietly(self, context: ContextRecord) -> None:
        try:
            await self._start(context, now() + self._creation_timeout)
        except JobServerError as error:
            log.error("context %s was not started: %s", context.name, error.message)

    async def _start(self, context: ContextRecord, deadline: float) -> None:
        """Asks servers to own the context, best placed first, until one runs it."""
        while (left := seconds_left(deadline)) > 0:
            for server in place(context.id, self._coordination.servers, self._coordination.owners.values()):
                try:
                    await self._claim(server, context.id, left)
                    return
                except OwnerUnavailable:
                    if await self._runs(context.id):
                        return
            await self._registry.change(RETRY)
            if await self._runs(context.id):
                return
        raise TimedOut(
            f"context {context.name} did not come up within {self._creation_timeout:g} s; it may still"
        )

    async def _claim(self, server: str, context_id: str, seconds: float) -> None:
        if server == self._me:
            await self._registry.claim(context_id, seconds)
            return
        url = self._registry.url_of(server)
        if url is None:
            raise OwnerUnavailable(f"server {server} is not known")
        await self._peers.claim(url, context_id, seconds=seconds)

    async def _runs(self, context_id: str) -> bool:
        """Whether it came up otherwise. Raises ContextInitFailed when it has ended instead."""
        context = await self._store.context(context_id)
        if context is None or context.state.final:
            reason = (
                context.error.message if context and context.error else "it was stopped before it was ready"
            )
            raise ContextInitFailed(reason)
        return context.state is ContextState.RUNNING

    # Stopping

    async def delete(self, name: str, *, force: bool, keep: bool = False) -> bool:
        """True when it has ended, False when it is still stopping at the end of the wait.

        With `keep` its checkpoint stays. Raises NotFound, StoreUnavailable.
        """
        context = await self._store.latest_context(name)
        if context is None or context.state.final:
            raise NotFound(f"context {name} not found")
        if keep:
            await self._kept.keep(context.id)
        await self._store.request_stop(context.id)
        return await self._stop(context, now() + self._deletion_timeout, force=force)

    async def reset(self, *, wait: bool) -> None:
        """Stops every context; with `wait`, returns after their end and starts the configured ones again."""
        contexts = await self._store.active_contexts()
        for context in contexts:
            await self._store.request_stop(context.id)
        deadline = now() + self._deletion_timeout
        stops = [asyncio.create_task(self._stop(context, deadline, force=False)) for context in contexts]
        if not wait:
            for stop in stops:
                stop.add_done_callback(lambda task: task.cancelled() or task.exception())
            return
        await asyncio.gather(*stops)
        await self.start_predefined()

    async def _stop(self, context: ContextRecord, deadline: float, *, force: bool) -> bool:
        while True:
            found = await self._store.context(context.id)
            if found is None or found.state.final:
                return True
            if (left := seconds_left(deadline)) <= 0:
                return False
            try:
                if self._registry.is_mine(context.id):
                    await self._registry.stop(context.id, left, force=force)
                else:
                    await self._peers.stop(
                        self._registry.owner_url(context.id), context.id, seconds=left, force=force
                    )
            except (OwnerUnavailable, Superseded):
                await self._registry.change(min(RETRY, left))
