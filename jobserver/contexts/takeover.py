"""The steps of one takeover under one epoch: grant, adopt, base, start, plan; and the guarded writes that belong to it.

Each step returns the event that the ownership machine takes next. Which step comes when is the machine's decision.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ParamSpec, Protocol, TypeVar

import checkpoint.errors as checkpoint_errors
from checkpoint.epoch import Base, Step, begin_epoch
from checkpoint.files import FileStore
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
from jobserver.contexts.fail_points import Point, Reach, nowhere
from jobserver.contexts.jobs import STORE_RETRY, BinaryPath, ContextJobs, JobsSettings
from jobserver.contexts.launch_spec import LaunchSpec, flatten
from jobserver.contexts.launcher import Launcher
from jobserver.contexts.link import Connect, DriverLink, LinkBroken, RefusedByDriver
from jobserver.contexts.pool import DriverPool, StartedDriver, answers_within
from jobserver.contexts.waiters import JobWaiters
from jobserver.errors import ContextInitFailed, JobServerError, OutcomeUnknown, StoreUnavailable
from jobserver.errors import Superseded as SupersededError
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
from jobserver.store.metadata import Metadata

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

_LIVING = (ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING, ContextState.STOPPING)


_POINTS = {Step.MARKER: Point.MARKED, Step.BASE: Point.BASE_READ, Step.PIN: Point.PINNED}


async def no_hot(_context_id: str) -> StartedDriver | None:
    """For servers that keep no hot standbys."""
    return None


class Run(Protocol):
    """Carries out a function that blocks, beside the event loop."""

    async def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What it returns or raises."""


def new_token() -> str:
    """What tells one grant of an epoch from every other."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class TakeoverParts:
    """What every takeover of a server shares. Times in seconds."""

    store: Metadata
    files: FileStore
    pool: DriverPool
    launcher: Launcher
    spec_of: Callable[[ContextRecord], LaunchSpec]
    jobs_of: Callable[[ContextRecord], JobsSettings]
    binary_path: BinaryPath
    checkpoint_root: str
    cluster: str
    checkpoint_secret: bytes
    adopt_timeout: float
    activate_timeout: float
    connect: Connect = DriverLink.connect
    run: Run = asyncio.to_thread
    new_token: Callable[[], str] = new_token
    hot: Callable[[str], Awaitable[StartedDriver | None]] = no_hot
    reached: Reach = nowhere
    standby_of: Callable[[ContextRecord], str] = lambda context: "warm"


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
        self._acquiring: asyncio.Task[StartedDriver] | None = None
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
        row = await self._answered(lambda: self._parts.store.fence(self._context_id))
        if row is None:
            return ContextEnded()
        if held is not None and row.token != held.token:
            return GrantRefused()
        fence = Fence(self._context_id, row.epoch + 1, self._parts.new_token())
        if not await self._answered(lambda: self._try_grant(row, fence)):
            return GrantRefused()
        self._reached(Point.GRANTED)
        context = await self._answered(lambda: self._parts.store.context(self._context_id))
        if context is None or context.state not in _LIVING:
            return ContextEnded()
        self._context, self._fence, self._driver = context, fence, context.driver
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
        now = await self._answered(lambda: self._parts.store.fence(self._context_id))
        return now is not None and now.token == fence.token

    async def _adopt(self) -> Event:
        """Two messages: hello names no epoch, so its failure leaves the epoch free; adopt spends it."""
        driver = _known(self._driver)
        timeout = self._parts.adopt_timeout
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
            self._acquire()
        if self._driver is not None:
            self._parts.launcher.kill(self._driver)
            self._driver = None
        if self.context.state is ContextState.STOPPING:
            await self.end_context(
                ContextState.FINISHED,
                None,
                ErrorInfo(f"Context ({self.context.name}) for this job was terminated"),
            )
            return ContextEnded()
        if self.context.state is ContextState.RUNNING:
            await self._guarded(
                lambda: self._parts.store.move_context(
                    self.fence, (ContextState.RUNNING,), ContextState.RESTARTING, at=_now()
                )
            )
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

    def _acquire(self) -> None:
        """A driver is taken or started beside the work on the base."""
        if self._acquiring is None:
            self._acquiring = asyncio.create_task(self._some_driver())

    async def _some_driver(self) -> StartedDriver:
        """Hot, else warm, else cold. A context whose standbys are cold takes nothing that is kept for others' failovers.

        Raises ContextInitFailed.
        """
        spec = self._parts.spec_of(self.context)
        if not self.is_failover:
            return await self._parts.pool.take(spec)
        hot = await self._parts.hot(self._context_id)
        if hot is None and self._parts.standby_of(self.context) == "cold":
            return await self._parts.pool.start_new(spec)
        return hot or await self._parts.pool.take(spec)

    async def _start_driver(self) -> Event:
        self._acquire()
        try:
            started = await asyncio.shield(_known(self._acquiring))
        except ContextInitFailed as error:
            self._acquiring = None
            return StartFailed(spent=False, hopeless=not self.is_failover, why=error.message)
        # until here `drop` ends what was acquired; from here on this step does, until the driver is held
        self._acquiring = None
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
        await self._answered(lambda: _known(self.jobs).recover(self._held))
        self._reached(Point.PLANNED)
        await self._guarded(lambda: self._parts.store.record_driver(self.fence, driver))
        self._reached(Point.RECORDED)
        return JobsPlanned()

    # Guarded writes after the gate is open

    async def publish(self, failover: Failover | None) -> None:
        """RUNNING, and what the failover was."""
        await self._guarded(
            lambda: self._parts.store.move_context(
                self.fence, (ContextState.STARTED, ContextState.RESTARTING), ContextState.RUNNING, at=_now()
            ),
            refusable=True,
        )
        if failover is not None:
            await self._guarded(lambda: self._parts.store.record_failover(self.fence, failover))
            self._context = replace(self.context, last_failover=failover)

    async def request_stop(self) -> None:
        """STOPPING, if it is not yet."""
        await self._answered(lambda: self._parts.store.request_stop(self._context_id))

    async def end_context(
        self, state: ContextState, error: ErrorInfo | None, jobs_error: ErrorInfo | None = None
    ) -> None:
        """The final state first, the jobs second."""
        await self._guarded(
            lambda: self._parts.store.move_context(self.fence, _LIVING, state, at=_now(), error=error),
            refusable=True,
        )
        reason = jobs_error or error or ErrorInfo("The context ended")
        await self._answered(
            lambda: self._parts.store.end_jobs_of_ended_context(self._context_id, reason, _now())
        )

    async def is_superseded(self) -> bool:
        """Whether the fence is another's by now. Raises StoreUnavailable."""
        row = await self._parts.store.fence(self._context_id)
        return self._fence is not None and (row is None or row.token != self._fence.token)

    async def job(self, job_id: str) -> JobRecord | None:
        """The job as SQL has it."""
        return await self._answered(lambda: self._parts.store.job(job_id))

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
        acquiring, self._acquiring = self._acquiring, None
        if acquiring is not None:
            acquiring.cancel()
            acquiring.add_done_callback(self._discard_late)

    def _discard_late(self, acquired: asyncio.Task[StartedDriver]) -> None:
        if not acquired.cancelled() and acquired.exception() is None:
            self._parts.pool.discard(acquired.result())

    # Store

    async def _answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """The store's answer, however long it takes; only for calls that may be repeated."""
        while True:
            try:
                return await call()
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning(
                    "context %s: the store does not answer (%s): trying again", self._context_id, error
                )
                await asyncio.sleep(STORE_RETRY)

    async def _guarded(self, write: Callable[[], Awaitable[bool]], *, refusable: bool = False) -> None:
        """A write under our fence. `refusable`: the state may have moved on under the same fence.

        Raises Superseded when the fence is not ours any more.
        """
        if await self._answered(write):
            return
        row = await self._answered(lambda: self._parts.store.fence(self._context_id))
        if row is None or row.token != self.fence.token:
            why = f"epoch {row.epoch if row else '?'} is above ours, {self.fence.epoch}"
            self._superseded(why)
            raise SupersededError(why)
        if not refusable:
            log.debug("context %s: a guarded write found another state", self._context_id)


def _known(value: T | None) -> T:
    if value is None:
        raise RuntimeError("a step of the takeover came before the step that it needs")
    return value


def _now() -> datetime:
    return datetime.now(UTC)
