"""The steps of one takeover under one epoch: grant, adopt, base, start, plan; and the guarded writes that belong to it.

Each step returns the event that the ownership machine takes next. Which step comes when is the machine's decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

import checkpoint.errors as checkpoint_errors
from checkpoint.epoch import Base, Step, begin_epoch
from checkpoint.transplant import source_of, transplant
from ha.actions import Action, Adopt, MakeBase, PlanJobs, StartDriver
from ha.coordination import ServerInfo
from ha.events import (
    Adopted,
    AdoptFailed,
    BaseReady,
    ContextEnded,
    DriverReady,
    Event,
    Granted,
    GrantRefused,
    JobsPlanned,
    StartFailed,
    Superseded,
    WorkFailed,
)
from jobserver.contexts.acquisition import Acquisition
from jobserver.contexts.epoch_writes import LIVING, EpochWrites, answered
from jobserver.contexts.fail_points import Point
from jobserver.contexts.job_writes import STORE_RETRY
from jobserver.contexts.jobs import ContextJobs
from jobserver.contexts.launch_spec import flatten
from jobserver.contexts.link import DriverLink, LinkBroken, RefusedByDriver
from jobserver.contexts.parts import TakeoverParts
from jobserver.contexts.pool import StartedDriver, answers_within
from jobserver.contexts.waiters import JobWaiters
from jobserver.errors import ContextInitFailed, JobServerError, OutcomeUnknown
from jobserver.model import (
    AttemptRef,
    ContextRecord,
    ContextState,
    DriverRecord,
    ErrorInfo,
    Failover,
    Fence,
    FenceRow,
    JobRecord,
)
from jobserver.protocol import Message, Refused, Request, outcome_of
from jobserver.recovery import Held

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

ADOPT_LEAST = 0.1
"""Seconds that a driver is asked for which has been silent for `adopt_timeout` already: it may have woken a moment ago."""

_POINTS = {Step.MARKER: Point.MARKED, Step.BASE: Point.BASE_READ, Step.PIN: Point.PINNED}


class Takeover:
    """One epoch of one context on this server, from its grant on. Belongs to the event loop."""

    def __init__(
        self,
        context_id: str,
        parts: TakeoverParts,
        waiters: JobWaiters,
        me: ServerInfo,
        *,
        superseded: Callable[[str], None],
        driver_lost: Callable[[str], None],
        job_ended: Callable[[JobRecord], None],
        previous: Takeover | None,
    ) -> None:
        self._context_id = context_id
        self._parts = parts
        self._waiters = waiters
        self._me = me
        self._superseded = superseded
        self._driver_lost = driver_lost
        self._job_ended = job_ended
        self._previous = previous
        self._context: ContextRecord | None = None
        self._fence: Fence | None = None
        self._driver: DriverRecord | None = None
        self._link: DriverLink | None = None
        self._held: Held | None = None
        self._base: str | None = None
        self._saved: dict[str, int] = {}  # attempts by job whose progress is in the base
        self._acquisition = Acquisition(parts)
        self._writes: EpochWrites | None = None
        self.jobs: ContextJobs | None = None
        self.how = "adopted"
        self.is_failover = False
        self.damage: tuple[str, ...] = ()

    # Facts

    @property
    def context(self) -> ContextRecord:
        """The context as read after the grant."""
        return _known(self._context)

    @property
    def fence(self) -> Fence:
        """The right to write that this takeover was granted."""
        return _known(self._fence)

    @property
    def writes(self) -> EpochWrites:
        """What it writes about its context."""
        return _known(self._writes)

    async def publish(self, failover: Failover | None) -> None:
        """RUNNING, and what the failover was. Raises Superseded."""
        await self.writes.publish(failover)
        if failover is not None:
            self._context = replace(self.context, last_failover=failover)

    async def is_superseded(self) -> bool:
        """Whether the fence is another's by now; not before it was granted. Raises StoreUnavailable."""
        return self._writes is not None and await self._writes.is_superseded()

    @property
    def link(self) -> DriverLink:
        """The connection to the driver."""
        return _known(self._link)

    @property
    def stop_on_error(self) -> bool:
        """Context setting `stop-context-on-job-error`."""
        return dict(flatten(self.context.settings)).get("stop-context-on-job-error", "false") == "true"

    def _reached(self, point: Point) -> None:
        self._parts.reached(point, self._context_id)

    def work_of(self, action: Action) -> Awaitable[Event]:
        """The step that carries out an action of the machine."""
        match action:
            case Adopt():
                return self._adopt()
            case MakeBase():
                return self._make_base()
            case StartDriver():
                return self._start_driver()
            case PlanJobs():
                return self._plan_jobs()
        raise RuntimeError(f"{action} is no step of a takeover")

    # Steps

    async def grant(self) -> Event:
        """Raises the fence by one. A lost reply is settled by reading the token back.

        An owner that replaces its driver raises its own epoch only: one that was superseded (and lost its driver by being
        adopted away) is refused here, and cannot take the context back from its successor.
        """
        held = self._previous._fence if self._previous is not None else None
        if self._previous is not None:
            await self._previous.drop()
            self._previous = None
        row = await answered(self._context_id, lambda: self._parts.store.fence(self._context_id))
        if row is None:
            return ContextEnded()
        if held is not None and row.token != held.token:
            return GrantRefused()
        fence = Fence(self._context_id, row.epoch + 1, self._parts.new_token())
        if not await answered(self._context_id, lambda: self._try_grant(row, fence)):
            return GrantRefused()
        self._reached(Point.GRANTED)
        context = await answered(self._context_id, lambda: self._parts.store.context(self._context_id))
        if context is None or context.state not in LIVING:
            return ContextEnded()
        self._context, self._fence, self._driver = context, fence, context.driver
        self._writes = EpochWrites(self._parts.store, fence, self._superseded)
        self.is_failover = context.state is not ContextState.STARTED
        return Granted(fence.epoch, context.driver is not None)

    async def _try_grant(self, row: FenceRow, fence: Fence) -> bool:
        me = self._me
        try:
            granted = await self._parts.store.grant(
                self._context_id, row.epoch, me.id, me.incarnation, fence.token
            )
        except OutcomeUnknown:
            granted = False
        if granted:
            return True
        now = await answered(self._context_id, lambda: self._parts.store.fence(self._context_id))
        return now is not None and now.token == fence.token

    async def _adopt(self) -> Event:
        """Two messages: hello names no epoch, so its failure leaves the epoch free; adopt spends it."""
        driver = _known(self._driver)
        timeout = max(self._parts.adopt_timeout - self._parts.silence(driver), ADOPT_LEAST)
        link: DriverLink | None = None
        try:
            link = await self._parts.connect(driver, timeout=timeout)
            hello = await link.request(Request.HELLO, timeout=timeout)
            self._reached(Point.HELLO)
        except (LinkBroken, RefusedByDriver, TimeoutError) as error:
            return await self._not_adopted(link, spent=False, why=str(error))
        if hello.get("context_id") != self._context_id:
            return await self._not_adopted(link, spent=False, why="the process there serves another context")
        try:
            reply = await link.request(
                Request.ADOPT,
                timeout=timeout,
                sent=lambda: self._reached(Point.ADOPT_SENT),
                epoch=self.fence.epoch,
                token=self.fence.token,
                nonce=hello["nonce"],
            )
        except RefusedByDriver as error:
            return await self._not_adopted(link, spent=error.code == Refused.STALE_NONCE, why=error.message)
        except LinkBroken as error:
            return await self._not_adopted(link, spent=True, why=error.message)
        if link.closed:
            return await self._not_adopted(
                link, spent=True, why="the driver went right after it had confirmed"
            )
        self._reached(Point.ADOPTED)
        self._hold(link, replace(driver, epoch=self.fence.epoch))
        self._held = {
            AttemptRef(job["job_id"], job["attempt"]): outcome_of(job["outcome"]) if job["outcome"] else None
            for job in reply["jobs"]
        }
        return Adopted()

    async def _not_adopted(self, link: DriverLink | None, *, spent: bool, why: str) -> Event:
        if link is not None:
            await link.close()
        return AdoptFailed(spent, why)

    async def _make_base(self) -> Event:
        """The old driver is put to an end if it is on this machine; the fences hold it off in any case.

        A context that was asked to stop is ended instead: nothing is restored only to be stopped.
        """
        if self.context.state is not ContextState.STOPPING:
            self._acquisition.begin(self.context, is_failover=self.is_failover)
        if self._driver is not None:
            self._parts.launcher.kill(self._driver)
            self._driver = None
        if self.context.state is ContextState.STOPPING:
            await self.writes.end_context(
                ContextState.FINISHED,
                None,
                ErrorInfo(f"Context ({self.context.name}) for this job was terminated"),
            )
            return ContextEnded()
        if self.context.state is ContextState.RUNNING:
            await self.writes.restarting()
        try:
            base = await self._begin_epoch()
        except checkpoint_errors.Superseded as error:
            return Superseded(f"the checkpoint has a higher marker: {error}")
        except checkpoint_errors.CheckpointError as error:
            return WorkFailed(f"no base could be made: {error}")
        for report in base.damaged:
            log.error("context %s: damaged checkpoint: %s", self.context.name, report)
        self.damage = tuple(str(report) for report in base.damaged)
        self._base = base.name
        self._saved = {job: progress.attempt for job, progress in base.progress.items()}
        return BaseReady()

    async def _begin_epoch(self) -> Base:
        """A store that does not answer is asked again for as long as the takeover may last.

        A new context that starts from another's checkpoint gets it before its first base; afterwards it has its own.
        """
        text = dict(flatten(self.context.settings)).get("restore-from")
        source = None if text is None else source_of(text)
        while True:
            try:
                if source is not None:
                    await self._parts.run(
                        transplant,
                        self._parts.files,
                        source,
                        self._context_id,
                        self._parts.checkpoint_secret,
                    )
                return await self._parts.run(
                    begin_epoch,
                    self._parts.files,
                    self._context_id,
                    self.fence.epoch,
                    self.fence.token,
                    self._parts.checkpoint_secret,
                    lambda step: self._reached(_POINTS[step]),
                )
            except checkpoint_errors.StoreUnavailable as error:
                log.warning("context %s: the checkpoint store does not answer: %s", self.context.name, error)
                await asyncio.sleep(STORE_RETRY)

    async def _start_driver(self) -> Event:
        self._acquisition.begin(self.context, is_failover=self.is_failover)
        try:
            started = await self._acquisition.driver()
        except ContextInitFailed as error:
            return StartFailed(spent=False, hopeless=not self.is_failover, why=error.message)
        # from here on this step ends the driver, until it is held
        self._reached(Point.DRIVER_TAKEN)
        if not await self._answers(started):
            return StartFailed(spent=False, hopeless=False, why=f"the {started.how} driver does not answer")
        try:
            reply = await self._activate(started)
        except JobServerError as error:
            spent = not (isinstance(error, RefusedByDriver) and error.code == Refused.BOUND)
            self._parts.pool.discard(started)
            return StartFailed(spent=spent, hopeless=False, why=error.message)
        except asyncio.CancelledError:
            self._parts.pool.discard(started)
            raise
        if started.link.closed:
            self._parts.pool.discard(started)
            return StartFailed(spent=True, hopeless=False, why="the driver went right after it had confirmed")
        self._reached(Point.ACTIVATED)
        self.how = f"restored-{started.how}"
        self._hold(
            started.link,
            replace(
                started.record,
                epoch=self.fence.epoch,
                jvm_pid=reply.get("jvm_pid"),
                application_id=reply.get("application_id"),
                ui_url=reply.get("ui_url"),
            ),
        )
        return DriverReady()

    async def _answers(self, started: StartedDriver) -> bool:
        """Whether one that has waited still does; a frozen one must not cost the time that an activation may take."""
        if started.how == "cold":
            return True
        answered = False
        try:
            answered = await answers_within(started, self._parts.adopt_timeout)
        finally:
            if not answered:
                self._parts.pool.discard(started)
        return answered

    async def _activate(self, started: StartedDriver) -> Message:
        """Raises RefusedByDriver, LinkBroken."""
        return await started.link.request(
            Request.ACTIVATE,
            timeout=self._parts.activate_timeout,
            sent=lambda: self._reached(Point.ACTIVATE_SENT),
            context={"id": self._context_id, "name": self.context.name, "settings": self.context.settings},
            epoch=self.fence.epoch,
            token=self.fence.token,
            base=_known(self._base),
            cluster=self._parts.cluster,
            checkpoint_root=self._parts.checkpoint_root,
        )

    def _hold(self, link: DriverLink, driver: DriverRecord) -> None:
        """From here on the link's end is an event. Nothing is awaited between the look at `closed` and this."""
        self._link, self._driver = link, driver
        link.on_closed = self._driver_lost

    async def _plan_jobs(self) -> Event:
        """The driver is on record last: whoever adopts it may then conclude that what it does not hold never reached it."""
        driver = _known(self._driver)
        self.jobs = ContextJobs(
            self.context,
            self.fence,
            self.link,
            self._parts.store,
            self._waiters,
            self._parts.jobs_of(self.context),
            binary_path=self._parts.binary_path,
            superseded=self._superseded,
            job_ended=self._job_ended,
        )
        await answered(self._context_id, lambda: _known(self.jobs).recover(self._held, self._saved))
        self._reached(Point.PLANNED)
        await self.writes.record_driver(driver)
        self._reached(Point.RECORDED)
        return JobsPlanned()

    # The end

    def kill_driver(self) -> None:
        """Ends the driver's process if it is on this machine."""
        if self._driver is not None:
            self._parts.launcher.kill(self._driver)

    async def shut_down(self, timeout: float) -> None:
        """Asks the driver to end; ends it when it has not within the time."""
        try:
            await self.link.request(Request.SHUTDOWN, timeout=timeout, reason="the context was stopped")
            await self.link.until_closed(timeout)
        except (JobServerError, TimeoutError) as error:
            log.info("context %s: the driver did not end by itself: %s", self.context.name, error)
        self.kill_driver()
        await self.link.close()

    async def drop(self) -> None:
        """Lets go of everything without ending the driver; one that was started for nothing is ended."""
        if self.jobs is not None:
            self.jobs.close()
        if self._link is not None:
            await self._link.close()
        self._acquisition.drop()


def _known(value: T | None) -> T:
    if value is None:
        raise RuntimeError("a step of the takeover came before the step that it needs")
    return value
