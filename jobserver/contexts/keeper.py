"""One context on this server: the thin shell around the ownership machine (`ha/ownership.py`).

A keeper takes events one by one, lets the machine decide, logs the decision, and carries out its actions. Lasting work (an
election, a grant, adopting, making the base, starting a driver, planning) runs as one task at a time whose end is the next
event. The keeper is the only one on this server that writes the fence of its context.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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
from ha.coordination import Coordination, Elected, OwnerNode, ServerInfo
from ha.errors import CoordinationLost
from ha.events import (
    ContextEnded,
    CoordinationSilent,
    DriverLost,
    ElectionLost,
    ElectionWon,
    Event,
    IncumbentAnswered,
    IncumbentSilent,
    MoveAsked,
    OwnerSeen,
    Superseded,
    TakeOverAsked,
    WaitOver,
    WorkFailed,
)
from ha.ownership import Ownership, Phase, step
from jobserver.contexts.clock import StepClock, now
from jobserver.contexts.fail_points import Point
from jobserver.contexts.jobs import ContextJobs
from jobserver.contexts.moving import Mover, Moves
from jobserver.contexts.object_orders import ask_driver
from jobserver.contexts.peers import MoveOrder, Peers
from jobserver.contexts.pool import REFILL_DELAY
from jobserver.contexts.takeover import Takeover, TakeoverParts
from jobserver.contexts.waiters import JobWaiters
from jobserver.errors import (
    ContextInitFailed,
    JobServerError,
    MoveRefused,
    OwnerUnavailable,
    StoreUnavailable,
)
from jobserver.errors import Superseded as SupersededError
from jobserver.model import (
    ContextRecord,
    ContextState,
    ErrorInfo,
    Failover,
    JobRecord,
    ObjectOrder,
    OutcomeKind,
)
from jobserver.protocol import Request

log = logging.getLogger(__name__)

PING_INTERVAL = 1.0
"""Seconds between pings to the driver."""


@dataclass(frozen=True, slots=True)
class KeeperTimes:
    """Seconds; the settings of section `ha` and `driver`."""

    incumbent_grace: float
    takeover_timeout: float
    driver_timeout: float
    stop_timeout: float
    replace_when_stuck: bool = False


@dataclass(frozen=True, slots=True)
class KeeperParts:
    """What every keeper of a server shares."""

    me: ServerInfo
    coordination: Coordination
    takeover: TakeoverParts
    peers: Peers
    times: KeeperTimes
    url_of: Callable[[str], str | None]
    ended: Callable[[str], None]


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
        self.store_trouble: Mapping[str, int] = {}
        self.stuck_jobs = 0
        self._elected: OwnerNode | None = None
        self._jobs: ContextJobs | None = None
        self._ready: asyncio.Future[None] | None = None
        self._steps = StepClock(phase.value for phase in (Phase.ELECTING, *_TAKING_OVER))
        self._deadline: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._stopping: asyncio.Task[None] | None = None
        self._needless = False
        self.data: dict[str, Any] | None = None
        self._moves = Moves()

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

    def see_owner(self, node: OwnerNode) -> None:
        """The owner node as now seen.

        One with a lower count than our own election is a picture from before it, which is no news, or from after a wipe of
        ZooKeeper, where counts begin anew: ZooKeeper is asked which.
        """
        if node.incarnation == self._parts.me.incarnation:
            return
        if self._elected is not None and node.election <= self._elected.election:
            self._spawn(self._look_past_picture(self._elected), "look-past-picture")
        else:
            self.post(OwnerSeen(node.server))

    async def _look_past_picture(self, elected: OwnerNode) -> None:
        """Whoever holds the node at a moment after our election is its owner, whatever the counts say."""
        with contextlib.suppress(CoordinationLost):  # everything is read anew after a break
            node = await self._parts.coordination.owner(self.context_id)
            others = node is not None and node.incarnation != self._parts.me.incarnation
            if node is not None and others and self._elected is elected:
                self.post(OwnerSeen(node.server))

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
        if self._state.phase is not Phase.OWNING or jobs is None or takeover is None or self._stopping:
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

    async def stop_context(self, state: ContextState = ContextState.FINISHED, *, force: bool = False) -> None:
        """Ends the context: its state first, its jobs second. `force`: its driver at once. Raises OwnerUnavailable."""
        jobs, takeover = self.jobs, self._takeover
        if jobs is None or takeover is None:
            raise OwnerUnavailable("this server does not own the context")
        if force and self._takeover is not None:
            takeover.link.on_closed = lambda why: None  # its end is no reason to replace it
            takeover.kill_driver()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
            return
        self._stopping = self._spawn(self._stop(jobs, takeover, state), "stop-context")
        self._stopping.add_done_callback(self._stopped)
        await asyncio.shield(self._stopping)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """One that failed (superseded) must not keep a later ownership of this server from stopping the context."""
        self._stopping = None

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
            self._spawn(self._stop_quietly(ContextState.FINISHED), "stop-left-over")
        elif context is not None and context.state is ContextState.RESTARTING and takeover is self._takeover:
            # our own statement of the takeover was carried out twice, late: its fence is still ours
            self._spawn(takeover.publish(None), "publish-again")

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
            for task in list(self._background):
                task.cancel()
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
                return self._ask_incumbent()
            case Elect(replace=node):
                return self._elect(node)
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

    async def _ask_incumbent(self) -> Event:
        """The recorded owner keeps its context when it answers within the grace, in the same incarnation."""
        ends = now() + self._parts.times.incumbent_grace
        row = await self._parts.takeover.store.fence(self.context_id)
        if row is not None and row.owner == self._parts.me.id:
            return IncumbentSilent()  # our own earlier life
        while (left := ends - now()) > 0:
            url = self._parts.url_of(row.owner) if row and row.owner else None
            if row and url:
                with contextlib.suppress(OwnerUnavailable):
                    lives = await self._parts.peers.incarnation(url, timeout=left) == row.incarnation
                    return IncumbentAnswered() if lives else IncumbentSilent()
            await asyncio.sleep(min(0.1, left))
        return IncumbentSilent()

    async def _elect(self, replaced: OwnerNode | None) -> Event:
        forbidden = await self._no_candidate()
        if forbidden is not None:
            return forbidden
        try:
            result = await self._parts.coordination.elect(self.context_id, replaced)
            if replaced is not None and not isinstance(result, Elected) and result.owner is None:
                # the dead owner's node went by itself meanwhile: there is nothing to replace any more
                result = await self._parts.coordination.elect(self.context_id)
        except CoordinationLost as error:
            return CoordinationSilent(str(error))
        if isinstance(result, Elected):
            self._elected = result.node
            self._reached(Point.ELECTED)
            return ElectionWon()
        if result.owner is None:
            return CoordinationSilent(f"not elected, and nobody else is: {result.reason}")
        mine = result.owner.incarnation == self._parts.me.incarnation
        return ElectionWon() if mine else ElectionLost()

    async def _no_candidate(self) -> Event | None:
        """Why not to stand: the owner node also goes when the context has ended, and an owner that makes its node again may
        have been superseded while it was cut off. SQL in trouble is no reason to stand back.
        """
        try:
            context = await self._parts.takeover.store.context(self.context_id)
            superseded = self._takeover is not None and await self._takeover.is_superseded()
        except StoreUnavailable:
            return None
        if context is None or context.state.final:
            return ContextEnded()
        return Superseded("SQL has a higher epoch") if superseded else None

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
        self._spawn(self._watch_driver(takeover), "watch-driver")
        self._spawn(self._publish(takeover, self._steps.seconds), "publish")
        self._parts.takeover.pool.refill(REFILL_DELAY)
        node = self._parts.coordination.owners.get(self.context_id)
        if node is not None:
            self.see_owner(node)

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
            await self.stop_context()
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
            self._spawn(takeover.shut_down(self._parts.times.stop_timeout), "end-moved-driver")

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
                await takeover.end_context(ContextState.ERROR, ErrorInfo(why, "jobserver.ContextInitFailed"))
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

    async def _watch_driver(self, takeover: Takeover) -> None:
        """Pings; a driver that is silent for too long is dead: ended if it is ours to end, then replaced."""
        limit = self._parts.times.driver_timeout
        self.stuck_jobs = 0
        while not takeover.link.closed:
            silence, stuck = 0.0, 0
            with contextlib.suppress(JobServerError):
                answer = await takeover.link.request(Request.PING, timeout=limit)
                silence = answer.get("jvm_silence", 0.0)
                self.store_trouble = answer.get("store_trouble", {})
                stuck = int(answer.get("abandoned", 0))
                self.data = answer.get("data")
            silence = max(silence, now() - takeover.link.heard_at)
            if silence >= limit and not takeover.link.closed:
                self._give_up_driver(takeover, f"the driver or its JVM was silent for {silence:.1f} s")
                return
            if self._is_stuck(stuck) and not takeover.link.closed:
                self._give_up_driver(takeover, f"{stuck} killed jobs could not be ended")
                return
            await asyncio.sleep(PING_INTERVAL)

    def _give_up_driver(self, takeover: Takeover, why: str) -> None:
        takeover.kill_driver()
        if self._stopping is None:  # of a context that is being stopped, nothing is replaced
            self._hear(takeover, DriverLost(why))

    def _is_stuck(self, stuck: int) -> bool:
        """Whether the driver is to be replaced, as killed jobs go on in it and the settings want that."""
        if stuck > self.stuck_jobs:
            log.warning("context %s: %d killed jobs could not be ended", self.context_id, stuck)
        self.stuck_jobs = stuck
        return stuck > 0 and self._parts.times.replace_when_stuck

    async def _stop(self, jobs: ContextJobs, takeover: Takeover, state: ContextState) -> None:
        await takeover.request_stop()
        jobs.close()
        takeover.link.on_closed = lambda why: None
        await takeover.shut_down(self._parts.times.stop_timeout)
        name = takeover.context.name
        await takeover.end_context(state, None, ErrorInfo(f"Context ({name}) for this job was terminated"))
        await self._tell_ended(takeover)
        self.post(ContextEnded())

    async def _tell_ended(self, takeover: Takeover) -> None:
        for job_id in self.waiters.waited_for():
            job = await takeover.job(job_id)
            if job is not None and job.state.final:
                self.waiters.ended(job)

    def _job_ended(self, takeover: Takeover, job: JobRecord) -> None:
        """A job that is killed can end when the next takeover has begun already: what counts is the one it ran under."""
        if self._stopping is not None:
            return
        failed = job.outcome not in (OutcomeKind.FINISHED, None)
        if takeover.context.adhoc:
            self._spawn(self._stop_quietly(ContextState.FINISHED), "stop-adhoc")
        elif failed and takeover.stop_on_error:
            self._spawn(self._stop_quietly(ContextState.KILLED), "stop-on-error")

    async def _stop_quietly(self, state: ContextState) -> None:
        with contextlib.suppress(OwnerUnavailable):  # it moved: the next owner finds its state in SQL
            await self.stop_context(state)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background_done)
        return task

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, JobServerError):
            log.warning("context %s: %s: %s", self.context_id, task.get_name(), error)
        else:
            log.error("context %s: %s failed", self.context_id, task.get_name(), exc_info=error)


_OWNING = (Phase.OWNING, Phase.QUIESCING, Phase.HANDING, Phase.RECLAIMING)
_TAKING_OVER = (Phase.GRANTING, Phase.ADOPTING, Phase.BASING, Phase.STARTING, Phase.PLANNING)
_HOLDING = (*_TAKING_OVER, *_OWNING)
