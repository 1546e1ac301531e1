"""One context on this server: the thin shell around the ownership machine (`ha/ownership.py`).

A keeper takes events one by one, lets the machine decide, logs the decision, and carries out its actions. Lasting work (an
election, a grant, adopting, making the base, starting a driver, planning) runs as one task at a time whose end is the next
event. The keeper is the only one on this server that writes the fence of its context.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

from ha.actions import (
    Action,
    AskIncumbent,
    CloseGate,
    Elect,
    EndContext,
    EndDriver,
    Grant,
    HandOver,
    OpenGate,
    Quiesce,
    Release,
    Resume,
    StepDown,
    Wait,
)
from ha.coordination import OwnerNode
from ha.errors import CoordinationLost
from ha.events import (
    ContextEnded,
    DriverLost,
    Event,
    MoveAsked,
    Superseded,
    TakeOverAsked,
    WaitOver,
    WorkFailed,
)
from ha.ownership import Ownership, Phase, step
from jobserver.contexts.background import Background
from jobserver.contexts.candidacy import Candidacy
from jobserver.contexts.clock import StepClock
from jobserver.contexts.driver_watch import DriverWatch
from jobserver.contexts.ending import ContextEnd
from jobserver.contexts.fail_points import Point
from jobserver.contexts.jobs import ContextJobs
from jobserver.contexts.moving import Mover, Moves
from jobserver.contexts.object_orders import ask_driver
from jobserver.contexts.parts import KeeperParts
from jobserver.contexts.peers import MoveOrder
from jobserver.contexts.pool import AFTER_ANSWER, REFILL_DELAY
from jobserver.contexts.takeover import Takeover
from jobserver.contexts.waiters import JobWaiters
from jobserver.errors import (
    ContextInitFailed,
    JobServerError,
    MoveRefused,
    OwnerUnavailable,
)
from jobserver.errors import Superseded as SupersededError
from jobserver.model import (
    ContextRecord,
    ContextState,
    ErrorInfo,
    Failover,
    JobRecord,
    ObjectOrder,
)
from jobserver.protocol import Request

log = logging.getLogger(__name__)


class ContextKeeper:
    """Belongs to the event loop; `post` may be called at any time, `run` is its life."""

    def __init__(self, context_id: str, parts: KeeperParts) -> None:
        self.context_id = context_id
        self.waiters = JobWaiters()
        self._parts = parts
        self._state = Ownership()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self.elections: set[asyncio.Task[None]] = set()
        self._takeover: Takeover | None = None
        self._jobs: ContextJobs | None = None
        self._ready: asyncio.Future[None] | None = None
        self._steps = StepClock(phase.value for phase in (Phase.ELECTING, *_TAKING_OVER))
        self._deadline: asyncio.TimerHandle | None = None
        self._background = Background(context_id)
        self._needless = False
        self.watch = DriverWatch(context_id, parts.times, self._give_up_driver)
        self._moves = Moves()
        self._answered = False
        self.candidacy = Candidacy(
            context_id, parts, self._background, takeover=lambda: self._takeover, post=self.post
        )
        self.ending = ContextEnd(
            self._background,
            self.waiters,
            owned=lambda: self._takeover if self.jobs is not None else None,
            post=self.post,
            stop_timeout=parts.times.stop_timeout,
        )

    # What others ask

    @property
    def phase(self) -> Phase:
        return self._state.phase

    @property
    def epoch(self) -> int:
        return self._state.epoch

    @property
    def context(self) -> ContextRecord | None:
        """The context as this owner knows it, or None where it does not own it."""
        return self._takeover.context if self._takeover and self._jobs else None

    @property
    def damage(self) -> tuple[str, ...]:
        """What was found damaged in the checkpoint when this epoch began, in sentences."""
        return () if self._takeover is None else self._takeover.damage

    @property
    def jobs(self) -> ContextJobs | None:
        """The jobs while the gate is open."""
        return self._jobs if self._state.phase in _OWNING else None

    @property
    def holding(self) -> bool:
        """Whether this server owns the context or is taking it over."""
        return self._state.phase in _HOLDING

    def post(self, event: Event) -> None:
        """Something happened."""
        self._events.put_nowait(event)

    async def ready(self) -> None:
        """Returns when the gate is open. Raises ContextInitFailed or OwnerUnavailable when it will not be."""
        if self.jobs is not None:
            return
        if self._ready is None or self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._ready)

    async def move(self, order: MoveOrder) -> None:
        """Hands the context over on purpose; returns when the next owner was elected. Raises MoveRefused, OwnerUnavailable."""
        node = self._parts.coordination.owners.get(self.context_id)
        jobs, takeover = self.jobs, self._takeover
        if self._state.phase is not Phase.OWNING or jobs is None or takeover is None or self.ending.under_way:
            raise MoveRefused(f"the context is {self._state.phase} at this moment: repeat in a while")
        if node is None or node.incarnation != self._parts.me.incarnation:
            raise MoveRefused("the context changes its owner at this moment: repeat in a while")
        mover = Mover(order, node, jobs, takeover.link, self._parts.peers, self._parts.url_of)
        moved = self._moves.begin(mover)
        self.post(MoveAsked(order.to, order.grace, order.keep_driver))
        await asyncio.shield(moved)

    async def take_over(self, node: OwnerNode, *, adopt: bool, seconds: float) -> None:
        """The owner hands the context over to this server; returns when it was elected. Raises MoveRefused."""
        if self.holding:
            raise MoveRefused("this server has the context already")
        elected = self._moves.expect()
        self.post(TakeOverAsked(node, adopt))
        try:
            await asyncio.wait_for(asyncio.shield(elected), seconds)
        except TimeoutError as error:
            raise MoveRefused(f"the election was not decided within {seconds:g} s") from error

    async def objects(self) -> list[dict[str, Any]]:
        """Named objects as the driver tells them. Raises OwnerUnavailable, DriverFailed."""
        if self.jobs is None or self._takeover is None:
            raise OwnerUnavailable("this server does not own the context")
        reply = await self._takeover.link.request(Request.OBJECTS, timeout=self._parts.times.driver_timeout)
        return list(reply["objects"])

    async def object(self, order: ObjectOrder) -> dict[str, Any] | None:
        """Carries out an order about one named object. Raises NotFound, ObjectRefused, OwnerUnavailable."""
        if self.jobs is None or self._takeover is None:
            raise OwnerUnavailable("this server does not own the context")
        return await ask_driver(self._takeover.link, order, self._parts.times.driver_timeout)

    def kill_driver(self) -> None:
        """Ends the driver's process at once, without ceremony, if it is on this machine."""
        if self._takeover is not None:
            self._takeover.kill_driver()

    async def sweep(self) -> None:
        """Looks for what went unnoticed: a higher epoch, jobs, the wish to stop, an ad-hoc context that nobody needs."""
        jobs, takeover = self.jobs, self._takeover
        if jobs is None or takeover is None:
            return
        if await takeover.is_superseded():
            self._hear(takeover, Superseded("SQL has a higher epoch"))
            return
        unfinished = await jobs.sweep()
        context = await self._parts.takeover.store.context(self.context_id)
        # it is inserted before its job is, so that only one without a job at two looks is left over
        before, self._needless = self._needless, takeover.context.adhoc and unfinished == 0
        if (before and self._needless) or (context is not None and context.state is ContextState.STOPPING):
            self.ending.stop_soon(ContextState.FINISHED, "stop-left-over")
        elif context is not None and context.state is ContextState.RESTARTING and takeover is self._takeover:
            # our own statement of the takeover was carried out twice, late: its fence is still ours
            self._background.spawn(takeover.publish(None), "publish-again")

    # Life

    async def run(self) -> None:
        """Takes events until cancelled; then steps down without ending the driver."""
        try:
            while True:
                event = await self._events.get()
                try:
                    await self._take(event)
                except Exception as error:
                    # a keeper that ended here would leave its context unattended on this server for ever
                    log.exception("context %s: %s failed", self.context_id, type(event).__name__)
                    self.post(WorkFailed(repr(error)))
        finally:
            self._cancel_work()
            self._moves.follow(Phase.ENDED, "this server leaves")
            self._background.cancel()
            await self._step_down()

    async def _take(self, event: Event) -> None:
        decision = step(self._state, event)
        if decision.state == self._state and not decision.actions:
            log.debug("context %s: %s", self.context_id, decision.because)
            self._moves.came_too_late(event, self._state.phase)
            return
        log.info(
            "context %s: %s → %s: %s",
            self.context_id,
            self._state.phase,
            decision.state.phase,
            decision.because,
        )
        if decision.state.phase is not self._state.phase:
            self._cancel_work()
        if decision.state.phase is not self._state.phase:
            self._steps.enter(decision.state.phase.value)
        self._state = decision.state
        for action in decision.actions:
            await self._carry_out(action)
        if self._state.phase is Phase.WATCHING:
            self._not_ready("another server has the context")
        self._moves.follow(self._state.phase, decision.because)

    async def _carry_out(self, action: Action) -> None:
        match action:
            case OpenGate():
                self._open_gate()
            case CloseGate():
                await self._close_gate()
            case StepDown():
                await self._step_down()
            case Release():
                await self._release()
            case Resume():
                self._resume()
            case EndDriver():
                await self._end_driver()
            case EndContext(why=why):
                await self._end_context(why)
            case _:
                self._start_work(action)

    def _start_work(self, action: Action) -> None:
        self._cancel_work()
        self._work = asyncio.create_task(
            self._run_work(action), name=f"{type(action).__name__}-{self.context_id}"
        )
        if isinstance(action, Elect):
            self.elections.add(self._work)
            self._work.add_done_callback(self.elections.discard)

    def _cancel_work(self) -> None:
        """An election is left to finish: a node that is won late must be known of."""
        if self._work is not None and self._work not in self.elections:
            self._work.cancel()
        self._work = None

    async def _run_work(self, action: Action) -> None:
        try:
            self.post(await self._work_of(action))
        except asyncio.CancelledError:
            raise
        except JobServerError as error:
            self.post(WorkFailed(error.message))
        except Exception as error:
            log.exception("context %s: %s failed", self.context_id, type(action).__name__)
            self.post(WorkFailed(repr(error)))

    def _work_of(self, action: Action) -> Awaitable[Event]:
        match action:
            case Wait(seconds=seconds):
                return self._wait(seconds)
            case AskIncumbent():
                return self.candidacy.ask_incumbent()
            case Elect(replace=node):
                return self.candidacy.elect(node)
            case Grant():
                return self._grant()
            case Quiesce() | HandOver():
                return self._moves.work_of(action)
            case _:
                if self._takeover is None:
                    raise RuntimeError("a takeover begins with a grant")
                return self._takeover.work_of(action)

    # Work

    async def _wait(self, seconds: float) -> Event:
        await asyncio.sleep(seconds)
        return WaitOver()

    async def _grant(self) -> Event:
        if self._deadline is None:
            self._begin_takeover()
        previous = self._takeover
        self._takeover = takeover = Takeover(
            self.context_id,
            self._parts.takeover,
            self.waiters,
            self._parts.me,
            superseded=lambda why: self._hear(takeover, Superseded(why)),
            driver_lost=lambda why: self._hear(takeover, DriverLost(why)),
            job_ended=lambda job: self._job_ended(takeover, job),
            previous=previous,
        )
        return await takeover.grant()

    def _hear(self, takeover: Takeover, event: Event) -> None:
        """What befalls a takeover that was left behind is no news: its successor has its own fence and driver."""
        if takeover is self._takeover:
            self.post(event)

    def _job_ended(self, takeover: Takeover, job: JobRecord) -> None:
        if not self._answered:
            self._answered = True
            self._parts.takeover.pool.refill(AFTER_ANSWER)
        self.ending.job_ended(takeover, job)

    def _begin_takeover(self) -> None:
        seconds = self._parts.times.takeover_timeout
        self._deadline = asyncio.get_running_loop().call_later(
            seconds, lambda: self.post(WorkFailed(f"the takeover took longer than {seconds:g} s"))
        )

    # Actions that are quick

    def _open_gate(self) -> None:
        takeover = self._takeover
        if takeover is None or takeover.jobs is None:
            raise RuntimeError("the gate opens after the jobs were planned")
        self._end_deadline()
        self._jobs = takeover.jobs
        self._jobs.open_gate()
        self._reached(Point.OPENED)
        self._background.spawn(self.watch.follow(takeover), "watch-driver")
        self._background.spawn(self._publish(takeover, self._steps.seconds), "publish")
        self._answered = False
        self._parts.takeover.pool.refill(REFILL_DELAY)
        node = self._parts.coordination.owners.get(self.context_id)
        if node is not None:
            self.candidacy.see_owner(node)

    async def _publish(self, takeover: Takeover, steps: dict[str, float]) -> None:
        """State RUNNING and the failover on record; a context that was being stopped is stopped now."""
        how = self._moves.told(takeover.how)
        failover = (
            Failover(datetime.now(UTC), how, round(sum(steps.values()), 3), takeover.damage, steps)
            if takeover.is_failover
            else None
        )
        await takeover.publish(failover)
        self._reached(Point.PUBLISHED)
        if takeover.context.state is ContextState.STOPPING:
            await self.ending.stop()
        elif self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        await self._fetch_early()

    async def _fetch_early(self) -> None:
        """Jobs somebody told us of before the gate was open, and whose row came after the plan's reading."""
        if self._jobs is not None:
            await self._jobs.sweep()

    async def _close_gate(self) -> None:
        self._end_deadline()
        if self._jobs is not None:
            self._jobs.close()
            self._jobs = None

    async def _step_down(self) -> None:
        await self._close_gate()
        takeover, self._takeover = self._takeover, None
        if takeover is not None:
            await takeover.drop()
        self.waiters.fail_all("the context has moved to another server")
        self._not_ready("this server gave the context back")

    def _not_ready(self, why: str) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(OwnerUnavailable(why))
            self._ready.exception()

    def _resume(self) -> None:
        if self._jobs is not None:
            self._jobs.open_gate()

    async def _end_driver(self) -> None:
        """The next owner has its own driver, or will; ours has nothing left that is not sealed."""
        takeover, self._takeover = self._takeover, None
        await self._close_gate()
        if takeover is not None and takeover.jobs is not None:
            takeover.jobs.close()
            takeover.link.on_closed = lambda why: None
            self._background.spawn(takeover.shut_down(self._parts.times.stop_timeout), "end-moved-driver")

    async def _release(self) -> None:
        with contextlib.suppress(CoordinationLost):  # the session's end releases it, too
            await self._parts.coordination.release(self.context_id)
            if self._state.phase is Phase.ENDED:
                await self._parts.coordination.forget(self.context_id)
        if self._state.phase is Phase.ENDED:
            self._parts.ended(self.context_id)

    async def _end_context(self, why: str) -> None:
        """No driver can start with these settings: state first, jobs second, and whoever created it is told."""
        takeover = self._takeover
        if takeover is not None:
            try:
                await takeover.writes.end_context(
                    ContextState.ERROR, ErrorInfo(why, "jobserver.ContextInitFailed")
                )
            except SupersededError:
                return  # its next owner finds out by itself whether a driver can start
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ContextInitFailed(why))
            self._ready.exception()
        self.post(ContextEnded())

    def _reached(self, point: Point) -> None:
        self._parts.takeover.reached(point, self.context_id)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # In the background

    def _give_up_driver(self, takeover: Takeover, why: str) -> None:
        takeover.kill_driver()
        if not self.ending.under_way:  # of a context that is being stopped, nothing is replaced
            self._hear(takeover, DriverLost(why))


_OWNING = (Phase.OWNING, Phase.QUIESCING, Phase.HANDING, Phase.RECLAIMING)
_TAKING_OVER = (Phase.GRANTING, Phase.ADOPTING, Phase.BASING, Phase.STARTING, Phase.PLANNING)
_HOLDING = (*_TAKING_OVER, *_OWNING)
