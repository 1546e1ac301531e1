"""Planned moves (design 4.5): the owner's steps until the next owner is elected, and who waits for a move on this server.

Everything up to the election can be taken back: a step that fails raises `MoveRefused`, and the keeper opens the gate again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ha.actions import HandOver, Quiesce
from ha.coordination import OwnerNode
from ha.events import Event, MoveAsked, MoveFailed, OwnerSeen, Quiet, TakeOverAsked
from ha.ownership import Phase
from jobserver.contexts.jobs import ContextJobs
from jobserver.contexts.link import DriverLink
from jobserver.contexts.peers import MoveOrder, Peers
from jobserver.errors import JobServerError, MoveRefused
from jobserver.protocol import Request

YOUNG_LIMIT = 2.0
"""Seconds that jobs which started during the move have to end with the gate closed, at most the grace."""
FLUSH_TIMEOUT = 30.0
"""Seconds that sealing the asynchronous updates may take while the gate is closed."""


@dataclass(frozen=True, slots=True)
class Mover:
    """One move of one context. `node` is the owner node that the next owner replaces."""

    order: MoveOrder
    node: OwnerNode
    jobs: ContextJobs
    link: DriverLink
    peers: Peers
    url_of: Callable[[str], str | None]

    async def work_of(self, action: Quiesce | HandOver) -> Event:
        """Carries the action out; what goes wrong is `MoveFailed`."""
        try:
            if isinstance(action, HandOver):
                return await self._hand_over(adopt=action.adopt)
            return await self._quiesce()
        except JobServerError as error:
            return MoveFailed(error.message)

    async def _quiesce(self) -> Event:
        """The next owner gets ready while everything runs on; only then jobs are kept from starting."""
        await self.peers.make_ready(self._url(), self.node.context_id, seconds=self.order.seconds)
        await self._let_jobs_end(self.order.grace)
        await self._seal()
        return Quiet(self.order.to)

    async def _let_jobs_end(self, grace: float) -> None:
        """Jobs that run already have the grace to end while others start; then the gate closes, and those that started
        meanwhile, mostly short ones, end too. What runs then goes back to the queue; refused if it may not run twice.
        """
        old = self.jobs.running
        await self.jobs.ended(old, grace)
        self.jobs.pause()
        await self.jobs.ended(self.jobs.running - old, min(grace, YOUNG_LIMIT))
        stuck = self.jobs.not_again()
        if stuck:
            raise MoveRefused(
                f"job {stuck[0].id} may not run a second time (onFailover: fail, or its last attempt) and did not end within "
                f"{grace:g} s: repeat with a longer grace, or with the driver kept"
            )
        await self.jobs.put_back(f"The context moved to server {self.order.to}")

    async def _seal(self) -> None:
        reply = await self.link.request(Request.FLUSH, timeout=FLUSH_TIMEOUT + 5.0, seconds=FLUSH_TIMEOUT)
        if not reply["sealed"]:
            raise MoveRefused(
                f"updates of named objects could not be sealed within {FLUSH_TIMEOUT:g} s: "
                "look at the checkpoint store, then repeat"
            )

    async def _hand_over(self, *, adopt: bool) -> Event:
        await self.peers.take_over(self._url(), self.node, adopt=adopt)
        return OwnerSeen(self.order.to)

    def _url(self) -> str:
        url = self.url_of(self.order.to)
        if url is None:
            raise MoveRefused(f"server {self.order.to} is not known: GET /cluster lists the servers")
        return url


class Moves:
    """What a keeper holds of planned moves: the one it carries out as owner, and the one it was handed."""

    def __init__(self) -> None:
        self._mover: Mover | None = None
        self._moved: asyncio.Future[None] | None = None
        self._elected: asyncio.Future[None] | None = None
        self._planned = False

    def begin(self, mover: Mover) -> asyncio.Future[None]:
        """This server gives the context away; done when the next owner is elected. Raises MoveRefused."""
        if self._moved is not None:
            raise MoveRefused("the context is being moved already: GET /cluster shows where it is")
        self._mover = mover
        self._moved = asyncio.get_running_loop().create_future()
        return self._moved

    def expect(self) -> asyncio.Future[None]:
        """This server is handed the context; done when it is elected."""
        if self._elected is None:
            self._elected = asyncio.get_running_loop().create_future()
        self._planned = True
        return self._elected

    def work_of(self, action: Quiesce | HandOver) -> Awaitable[Event]:
        """The step of the move under way."""
        if self._mover is None:
            raise RuntimeError("a move begins with an order")
        return self._mover.work_of(action)

    def told(self, how: str) -> str:
        """The kind of a takeover that is now complete: `moved-…` when it was asked for."""
        planned, self._planned = self._planned, False
        return f"moved-{how.removeprefix('restored-')}" if planned else how

    def came_too_late(self, event: Event, phase: Phase) -> None:
        """The context had left the phase in which it could be moved before the event's turn came."""
        if isinstance(event, MoveAsked):
            self._end_move(MoveRefused(f"the context was {phase}: repeat in a while"))
        elif isinstance(event, TakeOverAsked):
            self._end_election(MoveRefused(f"this server was {phase} about the context: repeat in a while"))

    def follow(self, phase: Phase, because: str) -> None:
        """Tells who waits what the keeper's new phase means for them."""
        if phase not in (Phase.QUIESCING, Phase.HANDING):
            self._end_move(None if phase is Phase.WATCHING else MoveRefused(because))
        if phase in _IDLE:
            self._end_election(MoveRefused(because))
        elif phase is not Phase.ELECTING:
            self._end_election(None)

    def _end_move(self, refused: MoveRefused | None) -> None:
        moved, self._moved = self._moved, None
        _answer(moved, refused)

    def _end_election(self, refused: MoveRefused | None) -> None:
        if refused is not None:
            self._planned = False
        elected, self._elected = self._elected, None
        _answer(elected, refused)


_IDLE = (Phase.WATCHING, Phase.WAITING, Phase.ASKING, Phase.ENDED)


def _answer(waiting: asyncio.Future[None] | None, refused: MoveRefused | None) -> None:
    if waiting is None or waiting.done():
        return
    if refused is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(refused)
        waiting.exception()  # whoever asked may be gone
