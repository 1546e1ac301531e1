"""Standing for a context's election: when not to, what its incumbent says, and whose node is newer than our own.

What is asked of SQL here keeps no safety: the grant does. It spares elections that would come to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ha.coordination import Elected, OwnerNode
from ha.errors import CoordinationLost
from ha.events import (
    ContextEnded,
    CoordinationSilent,
    ElectionLost,
    ElectionWon,
    Event,
    IncumbentAnswered,
    IncumbentSilent,
    OwnerSeen,
    Superseded,
)
from jobserver.contexts.background import Background
from jobserver.contexts.clock import now
from jobserver.contexts.fail_points import Point
from jobserver.contexts.parts import KeeperParts
from jobserver.contexts.takeover import Takeover
from jobserver.errors import OwnerUnavailable, StoreUnavailable


class Candidacy:
    """This server's part in the elections of one context. `takeover`: what it has begun, if anything."""

    def __init__(
        self,
        context_id: str,
        parts: KeeperParts,
        background: Background,
        *,
        takeover: Callable[[], Takeover | None],
        post: Callable[[Event], None],
    ) -> None:
        self._context_id = context_id
        self._parts = parts
        self._background = background
        self._takeover = takeover
        self._post = post
        self._elected: OwnerNode | None = None

    def see_owner(self, node: OwnerNode) -> None:
        """The owner node as now seen.

        One with a lower count than our own election is a picture from before it, which is no news, or from after a wipe of
        ZooKeeper, where counts begin anew: ZooKeeper is asked which.
        """
        if node.incarnation == self._parts.me.incarnation:
            return
        if self._elected is not None and node.election <= self._elected.election:
            self._background.spawn(self._look_past_picture(self._elected), "look-past-picture")
        else:
            self._post(OwnerSeen(node.server))

    async def _look_past_picture(self, elected: OwnerNode) -> None:
        """Whoever holds the node at a moment after our election is its owner, whatever the counts say."""
        with contextlib.suppress(CoordinationLost):  # everything is read anew after a break
            node = await self._parts.coordination.owner(self._context_id)
            others = node is not None and node.incarnation != self._parts.me.incarnation
            if node is not None and others and self._elected is elected:
                self._post(OwnerSeen(node.server))

    async def ask_incumbent(self) -> Event:
        """The recorded owner keeps its context when it answers within the grace, in the same incarnation."""
        ends = now() + self._parts.times.incumbent_grace
        row = await self._parts.takeover.store.fence(self._context_id)
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

    async def elect(self, replaced: OwnerNode | None) -> Event:
        """One election; `replaced` is the owner node that it puts aside."""
        forbidden = await self._no_candidate()
        if forbidden is not None:
            return forbidden
        try:
            result = await self._parts.coordination.elect(self._context_id, replaced)
            if replaced is not None and not isinstance(result, Elected) and result.owner is None:
                # the dead owner's node went by itself meanwhile: there is nothing to replace any more
                result = await self._parts.coordination.elect(self._context_id)
        except CoordinationLost as error:
            return CoordinationSilent(str(error))
        if isinstance(result, Elected):
            self._elected = result.node
            self._parts.takeover.reached(Point.ELECTED, self._context_id)
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
            context = await self._parts.takeover.store.context(self._context_id)
            takeover = self._takeover()
            superseded = takeover is not None and await takeover.is_superseded()
        except StoreUnavailable:
            return None
        if context is None or context.state.final:
            return ContextEnded()
        return Superseded("SQL has a higher epoch") if superseded else None
