"""The cluster with one fence switched off each: what the simulation must notice. Never used but to test the simulation."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from checkpoint.fence import Marker
from checkpoint.writer import CheckpointWriter
from ha.coordination import ServerInfo
from ha.peerlinks import Sight
from jobserver.driver.attempts import AttemptRefused
from jobserver.driver.binding import Binding
from jobserver.model import AttemptOutcome, AttemptRef, Fence
from jobserver.protocol import Message, outcome_message
from tests.sim.driver import FULL_EVERY, SECRET, SimDriver
from tests.sim.links import SimLinks
from tests.sim.metadata import SimStore


class NoEpochInSql(SimStore):
    """Guarded writes compare no epoch, and nobody looks over the shoulder of the guard: only consequences can tell."""

    def holds(self, fence: Fence) -> bool:
        return fence.context_id in self.fences

    def _check_epoch(self, done: bool, fence: Fence, what: str) -> None:
        return None


class AnyEpochAdopts(SimDriver):
    """The driver takes every owner, also one whose epoch is not above its own."""

    def _rebind(self, epoch: int, token: str, nonce: str) -> Binding:
        return replace(self.binding, epoch=epoch, token=token)

    def _readopt(self, epoch: int, token: str) -> None:
        if self.writer is not None and epoch > self.writer.epoch:
            self.writer.readopt(epoch, token)


class _BlindWriter(CheckpointWriter):
    """Acknowledges what it sealed, without reading the markers."""

    def _pass_fence(self, mine: Marker) -> None:
        return None


class NoMarkersRead(SimDriver):
    """Its writer acknowledges without looking."""

    def _make_writer(self, context_id: str, epoch: int, token: str, base: Any) -> CheckpointWriter:
        return _BlindWriter(self._files, context_id, epoch, token, base, SECRET, FULL_EVERY)


class _CarelessWriter(CheckpointWriter):
    """Its sweep does not know what is being written right now."""

    def _keep(self, issued: str) -> None:
        return None

    def _is_fresh(self, issued: str) -> bool:
        return False


class SweepsWhatIsNew(SimDriver):
    """Its sweep takes data whose manifest is not sealed yet for garbage."""

    def _make_writer(self, context_id: str, epoch: int, token: str, base: Any) -> CheckpointWriter:
        return _CarelessWriter(self._files, context_id, epoch, token, base, SECRET, FULL_EVERY)


class NoAttemptCompared(SimDriver):
    """A start under way survives an adoption, and whatever attempt ends, it ends for the newest one."""

    def _begin(self, ref: AttemptRef, main: str) -> None:
        self._loop.call_later(self._random.uniform(0.0, 2.0), self._begin_late, ref, main)

    def _begin_late(self, ref: AttemptRef, main: str) -> None:
        self._newest[ref.job_id] = max(ref.attempt, self._newest.get(ref.job_id, 0))
        with contextlib.suppress(AttemptRefused):
            super()._begin(ref, main)

    def _report(self, outcome: AttemptOutcome) -> Message:
        return outcome_message(replace(outcome, attempt=self._newest[outcome.job_id]))

    @property
    def _newest(self) -> dict[str, int]:
        return self.__dict__.setdefault("_newest_attempts", {})


class NoWitnessAsked(SimLinks):
    """A refused connection is enough: what the others see counts for nothing."""

    async def sight(self, other: ServerInfo, of: ServerInfo) -> Sight | None:
        return Sight.LOST
