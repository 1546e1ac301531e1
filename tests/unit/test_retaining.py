"""The chore that removes the past: the leader's look at the cluster, and each server's at its own folders."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from jobserver.chores import FolderLimits, retain
from jobserver.retention import Removed


class Pruner:
    """Counts its passes."""

    def __init__(self, removed: Removed) -> None:
        self.removed = removed
        self.passes = 0
        self.went_on: list[bool] = []

    async def prune(self, goes_on) -> Removed:
        self.passes += 1
        self.went_on.append(goes_on())
        return self.removed


def old_folder(root: Path) -> Path:
    made = root / "driver"
    made.mkdir()
    os.utime(made, (1, 1))
    return made


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def begin(tmp_path):
    tasks = []

    def begin(pruner, leads):
        task = asyncio.create_task(retain(pruner, tmp_path, FolderLimits(3600.0, None), leads, 0.01))
        tasks.append(task)
        return task

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_the_leader_prunes_as_long_as_it_leads_and_tells_what_it_did(begin, tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    pruner = Pruner(Removed(jobs=3, unfinished=["logs: the store is away"]))
    begin(pruner, lambda: True)
    await until(lambda: pruner.passes > 1)
    assert pruner.went_on[0]
    assert "retention removed 3 jobs, 0 results" in caplog.text
    assert "retention did not finish logs: the store is away" in caplog.text


async def test_a_server_that_does_not_lead_removes_its_own_folders_only(begin, tmp_path) -> None:
    pruner = Pruner(Removed())
    folder = old_folder(tmp_path)
    asked = []

    def leads() -> bool:
        asked.append(True)
        return False

    begin(pruner, leads)
    await until(lambda: len(asked) > 1)
    assert not folder.exists()
    assert pruner.passes == 0


async def test_a_pass_that_breaks_is_told_and_the_next_one_comes(
    begin, tmp_path, caplog, monkeypatch
) -> None:
    pruner = Pruner(Removed())
    answers = iter([RuntimeError("a row in a bad state")])

    async def prune(goes_on) -> Removed:
        for error in answers:
            raise error
        pruner.passes += 1
        return Removed()

    pruner.prune = prune

    def unreadable(*args, **kwargs) -> int:
        raise PermissionError("no")

    monkeypatch.setattr("jobserver.chores.remove_ended", unreadable)
    begin(pruner, lambda: True)
    await until(lambda: pruner.passes > 1)
    assert "a row in a bad state" in caplog.text
    assert "PermissionError" in caplog.text
