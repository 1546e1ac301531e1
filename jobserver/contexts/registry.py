"""All contexts of this server: turns what coordination and dead processes tell into events for the keepers.

Owns no rule of ownership; `ha/ownership.py` does. Keeps one keeper per context that anybody has heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from ha.coordination import (
    Coordination,
    CoordinationEvent,
    LeaderChanged,
    OwnerChanged,
    OwnerNode,
    ServerInfo,
    ServersChanged,
)
from ha.deaths import Deaths, LocalDeaths, WatchDeaths
from ha.errors import CoordinationLost
from ha.events import ContextEnded, OwnerDead, OwnerVanished, Wanted
from ha.ownership import Phase
from ha.placement import standby_rank
from jobserver.contexts.clock import within
from jobserver.contexts.keeper import ContextKeeper
from jobserver.contexts.looks import Look
from jobserver.contexts.parts import KeeperParts
from jobserver.contexts.peers import MoveOrder
from jobserver.contexts.waiters import Accepted, JobNews, Offer, Until
from jobserver.errors import MoveRefused, OwnerUnavailable, TimedOut
from jobserver.job_events import EventId
from jobserver.model import ContextState, JobRecord, ObjectOrder
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)
T = TypeVar("T")

ELECTION_TIMEOUT = 10.0
"""Seconds that the election of a planned move may take; as long, the context's gate stays closed."""


class OwnerMoved(OwnerUnavailable):
    """Whoever asked the owner asks the next one."""


class ContextRegistry:
    """Belongs to the event loop. `claim_stagger` in seconds."""

    def __init__(
        self,
        me: ServerInfo,
        coordination: Coordination,
        store: Metadata,
        *,
        claim_stagger: float,
        watch_deaths: WatchDeaths = LocalDeaths,
    ) -> None:
        self._me = me
        self._coordination = coordination
        self._store = store
        self._claim_stagger = claim_stagger
        self._parts: KeeperParts | None = None
        self._keepers: dict[str, ContextKeeper] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._urls: dict[str, str] = {}
        self._last_owner: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._asked: dict[asyncio.Future[Any], tuple[str, OwnerNode | None]] = {}
        self._leaving = False
        self.draining = False
        self._deaths: Deaths = watch_deaths(me, self._server_died)
        self._leader_change = asyncio.Event()

    def use(self, parts: KeeperParts) -> None:
        """The parts of keepers need this registry's `url_of`, so they come second."""
        self._parts = parts

    # Coordination

    def hear(self, event: CoordinationEvent) -> None:
        """The listener of the coordination port."""
        match event:
            case OwnerChanged():
                self._owner_changed(event)
            case ServersChanged(servers=servers):
                self._urls.update({info.id: info.url for info in servers.values()})
                self._deaths.watch(servers)
                self._check_incarnations()
            case LeaderChanged():
                self._leader_change.set()
                self._leader_change = asyncio.Event()
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for asked, (context_id, node) in self._asked.items():
            if self.owner(context_id) != node:
                asked.cancel()

    def url_of(self, server: str) -> str | None:
        """The URL of a server that was ever seen."""
        return self._urls.get(server)

    async def change(self, timeout: float) -> None:
        """Returns after the next change of owners or servers, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def answer_of_owner(self, context_id: str, call: Coroutine[Any, Any, T]) -> T:
        """What the owner answers, for as long as it owns the context: one that is frozen or cut off never would.

        Raises OwnerMoved at its owner node's next change, and what the call raises.
        """
        node = self.owner(context_id)
        asked = asyncio.ensure_future(call)
        self._asked[asked] = context_id, node
        try:
            return await asked
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            # by its owner's change, which may be over already: who asks was not cancelled, and must not end as if
            raise OwnerMoved("the context has lost the owner that was asked") from None
        finally:
            del self._asked[asked]
            asked.cancel()

    async def leader_changed(self) -> None:
        """Returns when another server leads."""
        await self._leader_change.wait()

    def _owner_changed(self, event: OwnerChanged) -> None:
        owner = event.owner
        if self._leaving:
            return
        keeper = self.keeper(event.context_id)
        if owner is None:
            gone = self._last_owner.get(event.context_id)
            keeper.post(OwnerVanished(event.witnessed, self._delay(event.context_id, but=gone)))
            return
        self._last_owner[event.context_id] = owner.server
        if owner.incarnation != self._me.incarnation:
            keeper.candidacy.see_owner(owner)
            if (
                owner.server == self._me.id
            ):  # of the others' incarnations the cache may be older than this node
                self._owner_dead(owner)

    def _check_incarnations(self) -> None:
        """A server that lives again under another incarnation is proof that its earlier life is over."""
        for node in list(self._coordination.owners.values()):
            info = self._coordination.servers.get(node.server)
            if info is not None and info.incarnation != node.incarnation:
                self._owner_dead(node)

    def _server_died(self, info: ServerInfo, context_id: str | None = None) -> None:
        """Proven for all its contexts, or for one of them."""
        log.info(
            "server %s (pid %d) is proven dead%s",
            info.id,
            info.pid,
            f" for context {context_id}" if context_id else "",
        )
        for node in list(self._coordination.owners.values()):
            theirs = (node.server, node.incarnation) == (info.id, info.incarnation)
            if theirs and context_id in (None, node.context_id):
                self._owner_dead(node)
        self._tell_changed()

    def _owner_dead(self, node: OwnerNode) -> None:
        if not self._leaving:
            self.keeper(node.context_id).post(OwnerDead(node, self._delay(node.context_id, but=node.server)))

    def _delay(self, context_id: str, *, but: str | None = None) -> float:
        if but == self._me.id:
            but = None
        return self._claim_stagger * standby_rank(
            context_id, self._coordination.servers, self._me.id, but=but
        )

    # Keepers

    def keeper(self, context_id: str) -> ContextKeeper:
        """The keeper of a context; made when it is first heard of. Raises OwnerUnavailable once this server leaves."""
        if self._leaving:
            raise OwnerUnavailable("this server is leaving the cluster and takes no context any more")
        keeper = self._keepers.get(context_id)
        if keeper is None:
            if self._parts is None:
                raise RuntimeError("use() comes first")
            keeper = self._keepers[context_id] = ContextKeeper(context_id, self._parts)
            self._lives[context_id] = asyncio.create_task(keeper.run(), name=f"keeper-{context_id}")
        return keeper

    def owned(self) -> list[ContextKeeper]:
        """Keepers of contexts that this server owns with an open gate."""
        return [keeper for keeper in self._keepers.values() if keeper.jobs is not None]

    def takes_over(self, context_id: str) -> bool:
        """Whether this server has been elected for the context and its gate is not open yet: it may still need a driver.

        By the owner node, of which is heard before the keeper has taken its election in.
        """
        node, keeper = self.owner(context_id), self._keepers.get(context_id)
        mine = node is not None and node.incarnation == self._me.incarnation
        return mine and (keeper is None or keeper.jobs is None)

    def held(self) -> list[str]:
        """Ids of contexts that this server owns or is taking over."""
        return [keeper.context_id for keeper in self._keepers.values() if keeper.holding]

    def ended(self, context_id: str) -> None:
        """The context is in a final state: forget it."""
        life = self._lives.pop(context_id, None)
        self._keepers.pop(context_id, None)
        self._last_owner.pop(context_id, None)
        if life is not None:
            life.cancel()
        self._tell_changed()

    def owner(self, context_id: str) -> OwnerNode | None:
        """Who owns the context, as last seen."""
        return self._coordination.owners.get(context_id)

    def owner_url(self, context_id: str) -> str:
        """Where the owner is reached. Raises OwnerUnavailable."""
        node = self.owner(context_id)
        url = self.url_of(node.server) if node else None
        if url is None or (node and node.incarnation == self._me.incarnation):
            raise OwnerUnavailable("the context has no owner at this moment")
        return url

    def is_mine(self, context_id: str) -> bool:
        """Whether this server owns the context or is taking it over."""
        keeper = self._keepers.get(context_id)
        return keeper is not None and keeper.holding

    # What this server does as an owner, for itself and for others

    async def claim(self, context_id: str, seconds: float) -> None:
        """Owns the context and waits for its gate.

        Raises ContextInitFailed, OwnerUnavailable (another server has it, or this one leaves), TimedOut.
        """
        keeper = self.keeper(context_id)
        ready = asyncio.ensure_future(keeper.ready())
        keeper.post(Wanted())
        try:
            await asyncio.wait_for(ready, seconds)
        except TimeoutError as error:
            raise TimedOut(f"the context was not ready within {seconds:g} s; it may still come up") from error

    async def submit(self, offer: Offer, until: Until, seconds: float) -> Accepted:
        """Accepts a new job of a context of ours and waits for its news; it is accepted also when the time is over.

        Raises as `Metadata.insert_job`, and OwnerUnavailable: then it may have been accepted.
        """
        keeper = self._mine(offer.record.context_id)
        if keeper.jobs is None:
            raise OwnerUnavailable("the context is being taken over")
        news = keeper.waiters.add(offer.record.id, until)
        try:
            job = await keeper.jobs.accept(offer)
            if job.id != offer.record.id or job.state.final:
                return Accepted(job, done=job.state.final)
            return Accepted((await within(news, max(0.0, seconds))).job, done=True)
        except TimeoutError:
            return Accepted(job, done=False)
        finally:
            news.cancel()

    async def follow_id(self, context_id: str, job_id: str, until: Until, seconds: float) -> JobNews | None:
        """The same for a job that another server accepted. Raises OwnerUnavailable."""
        self._mine(context_id)
        job = await self._store.job(job_id)
        if job is None or job.state.final:
            return JobNews(job) if job else None
        return await self.follow(job, until, seconds)

    async def follow(self, job: JobRecord, until: Until, seconds: float) -> JobNews | None:
        """Makes sure that the job is known here and waits for its news. Raises OwnerUnavailable.

        Should its row have moved on since it was read, its start is refused by SQL, and who waits is told what SQL says.
        """
        keeper = self._mine(job.context_id)
        news = keeper.waiters.add(job.id, until)
        try:
            if keeper.jobs is not None:
                await keeper.jobs.arrive(job)
            return await within(news, max(0.0, seconds))
        except TimeoutError:
            return None
        finally:
            news.cancel()

    async def kill(self, context_id: str, job_id: str) -> bool:
        """Whether the job was killed; False when it is not living here. Raises OwnerUnavailable."""
        keeper = self._mine(context_id)
        job = await self._store.job(job_id)
        jobs = keeper.jobs
        if jobs is None:
            raise OwnerUnavailable("the context is being taken over")
        if job is not None and not job.state.final:
            await jobs.arrive(job)
        killed = await jobs.kill(job_id)
        return killed is not None

    async def look(self, job: JobRecord, after: EventId | None, seconds: float) -> Look | None:
        """The job once it is newer than `after`; None when its owner's jobs know it no more. Raises OwnerUnavailable."""
        jobs = self._mine(job.context_id).jobs
        if jobs is None:
            raise OwnerUnavailable("the context is being taken over")
        await jobs.arrive(job)
        return await jobs.look(job.id, after, seconds)

    async def look_id(
        self, context_id: str, job_id: str, after: EventId | None, seconds: float
    ) -> Look | None:
        """The same for another server. Raises OwnerUnavailable."""
        self._mine(context_id)
        job = await self._store.job(job_id)
        return None if job is None or job.state.final else await self.look(job, after, seconds)

    async def tails(self, context_id: str, job_id: str) -> list[dict[str, Any]]:
        """Output of a job that is not in the store yet. Raises OwnerUnavailable."""
        jobs = self._mine(context_id).jobs
        if jobs is None:
            raise OwnerUnavailable("the context is being taken over")
        return await jobs.tails(job_id)

    async def stop(self, context_id: str, seconds: float, *, force: bool) -> bool:
        """Stops the context; whether it ended within the time. Raises OwnerUnavailable."""
        keeper = self._mine(context_id)
        stopping = asyncio.ensure_future(keeper.ending.stop(ContextState.FINISHED, force=force))
        done, _ = await asyncio.wait([stopping], timeout=seconds)
        if not done:
            stopping.add_done_callback(lambda task: task.cancelled() or task.exception())
            return False
        stopping.result()
        return True

    async def move(self, context_id: str, order: MoveOrder) -> None:
        """Hands an owned context over; returns when the next owner was elected. Raises MoveRefused, OwnerUnavailable."""
        await self._mine(context_id).move(order)

    async def take_over(self, node: OwnerNode, *, adopt: bool) -> None:
        """Is elected in place of `node`. Raises MoveRefused."""
        if self._leaving or self.draining:
            raise MoveRefused(f"server {self._me.id} takes no contexts: it drains or leaves")
        await self.keeper(node.context_id).take_over(node, adopt=adopt, seconds=ELECTION_TIMEOUT)

    async def objects(self, context_id: str) -> list[dict[str, Any]]:
        """Named objects of an owned context."""
        return await self._mine(context_id).objects()

    async def data(self, context_id: str) -> dict[str, Any] | None:
        """The named objects of an owned context as a whole, as its driver told them last. Raises OwnerUnavailable."""
        return self._mine(context_id).watch.data

    async def object(self, context_id: str, order: ObjectOrder) -> dict[str, Any] | None:
        """Carries out an order about one named object. Raises NotFound, ObjectRefused, OwnerUnavailable."""
        return await self._mine(context_id).object(order)

    def _mine(self, context_id: str) -> ContextKeeper:
        keeper = self._keepers.get(context_id)
        if keeper is None or not keeper.holding:
            raise OwnerUnavailable("this server does not own the context")
        return keeper

    async def sweep(self) -> None:
        """What lost messages left behind, an owner node that went unnoticed, and keepers of contexts that have ended."""
        for keeper in self.owned():
            await keeper.sweep()
            node = self.owner(keeper.context_id)
            if node is None and keeper.phase is Phase.OWNING:
                keeper.post(OwnerVanished(witnessed=True, delay=0.0))
        self._mind_own_nodes()
        await self._forget_ended()

    def _mind_own_nodes(self) -> None:
        """An owner node of ours that no keeper minds: its release got lost. What the cache says is asked of ZooKeeper first."""
        for context_id, node in list(self._coordination.owners.items()):
            if node.incarnation == self._me.incarnation and not self.is_mine(context_id):
                self.keeper(context_id).post(Wanted())

    async def _forget_ended(self) -> None:
        idle = [keeper for keeper in self._keepers.values() if keeper.phase is Phase.WATCHING]
        for keeper in idle:
            if self.owner(keeper.context_id) is None:
                context = await self._store.context(keeper.context_id)
                if context is None or context.state.final:
                    keeper.post(ContextEnded())

    async def leave(self) -> None:
        """Gives every context to the next owner, drivers running, and claims none any more.

        Clients that wait here are followed to the next owner as long as this server's session stands.
        """
        self._leaving = True
        self._deaths.close()
        keepers = list(self._keepers.values())
        owned = [keeper.context_id for keeper in keepers if keeper.holding or keeper.elections]
        elections = {election for keeper in keepers for election in keeper.elections}
        lives = list(self._lives.values())
        for life in lives:
            life.cancel()
        if lives:
            await asyncio.wait(lives)
        if elections:  # one that is won now would leave a node that nobody minds
            await asyncio.wait(elections, timeout=ELECTION_TIMEOUT)
        self._lives.clear()
        self._keepers.clear()
        for context_id in owned:
            with contextlib.suppress(CoordinationLost):  # then the session's end releases it
                await self._coordination.release(context_id)
