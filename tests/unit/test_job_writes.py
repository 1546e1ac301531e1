"""A write of which no reply came: whether it happened, and whose it was."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from jobserver.contexts.job_writes import JobWrites
from jobserver.errors import OutcomeUnknown, Superseded
from jobserver.model import Fence, JobState

OURS = Fence("c", 1, "t1")
NOW = datetime.now(UTC)


class LostReply:
    """The first reply is lost; from then on the job runs, and the fence is at `epoch`."""

    def __init__(self, epoch):
        self._epoch = epoch
        self._tries = 0

    async def start_attempt(self, fence, job_id, attempt, at):
        self._tries += 1
        if self._tries == 1:
            raise OutcomeUnknown("no reply")
        return False

    async def job(self, job_id):
        return SimpleNamespace(state=JobState.RUNNING, attempt=1)

    async def fence(self, context_id):
        return SimpleNamespace(epoch=self._epoch, token=f"t{self._epoch}", owner="s2")


async def test_a_start_whose_reply_was_lost_has_happened():
    assert await JobWrites(LostReply(epoch=1), OURS, pytest.fail).start("j", 1, NOW)


async def test_a_start_that_a_later_epoch_made_is_not_taken_for_ours():
    told = []
    with pytest.raises(Superseded):
        await JobWrites(LostReply(epoch=2), OURS, told.append).start("j", 1, NOW)
    assert told == ["epoch 2 of s2 is above ours, 1"]
