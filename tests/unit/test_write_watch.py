"""Whether the checkpoint store takes data: looked at beside requests, told with its reason, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from checkpoint import layout
from checkpoint.files import FileStore
from checkpoint.local import LocalFiles
from ha.coordination import Link
from jobserver import write_watch
from jobserver.vitals import Vitals
from jobserver.write_watch import PATIENCE, WriteWatch
from tests.fakes.files import Fault, FaultyFiles

LIMIT = 10.0


@pytest.fixture
def faulty() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture(params=["local", "faulty"])
def files(request: pytest.FixtureRequest, tmp_path: Path, faulty: FaultyFiles) -> FileStore:
    return LocalFiles(tmp_path / "store") if request.param == "local" else faulty


async def test_a_store_that_takes_data_is_well_and_holds_nothing_of_the_look(files: FileStore) -> None:
    files.write_new("binaries/a", b"1")
    watch = WriteWatch(files, "s1")
    assert watch.trouble() is None
    await watch.look()
    assert watch.trouble() is None
    assert files.names(layout.PROBES) == []
    assert files.read("binaries/a") == b"1"


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        *(("write_new", fault) for fault in Fault if fault is not Fault.STALE),
        ("read", Fault.DOWN),
        ("remove", Fault.DOWN),
    ],
)
async def test_whatever_goes_wrong_in_a_look_is_told_with_its_reason_until_the_next_goes_well(
    faulty: FaultyFiles, operation: str, fault: Fault
) -> None:
    watch = WriteWatch(faulty, "s1")
    faulty.inject(fault, operation, layout.PROBES)
    await watch.look()
    told = watch.trouble()
    assert told is not None
    assert told.startswith("the checkpoint store takes no data")
    assert fault.name in told
    faulty.land()
    await watch.look()
    assert watch.trouble() is None
    assert faulty.content == {}


async def test_a_store_that_gives_back_other_bytes_is_no_good_one(faulty: FaultyFiles) -> None:
    watch = WriteWatch(faulty, "s1")
    held = faulty.hold("read", layout.PROBES)
    look = asyncio.create_task(watch.look())
    await asyncio.to_thread(held.reached.wait, LIMIT)
    (path,) = faulty.content
    faulty.damage(path, b"something else")
    held.release()
    await look
    assert "other bytes" in str(watch.trouble())


async def test_a_local_store_in_which_nothing_can_be_made_says_so_although_it_lists(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "store")
    files.write_new("data/a", b"1")
    (tmp_path / "store" / layout.PROBES).write_text("in the way")
    watch = WriteWatch(files, "s1")
    await watch.look()
    assert files.names(layout.DATA) == ["a"]
    assert str(watch.trouble()).startswith("the checkpoint store takes no data")
    (tmp_path / "store" / layout.PROBES).unlink()
    await watch.look()
    assert watch.trouble() is None


async def test_what_an_earlier_look_had_to_leave_goes_and_what_another_server_writes_stays(
    faulty: FaultyFiles,
) -> None:
    faulty.write_new("probes/s1/left", b"")
    faulty.write_new("probes/s2/of-another", b"")
    await WriteWatch(faulty, "s1").look()
    assert list(faulty.content) == ["probes/s2/of-another"]


async def test_a_look_that_does_not_end_is_told_and_not_waited_for(faulty: FaultyFiles) -> None:
    now = [0.0]
    watch = WriteWatch(faulty, "s1", lambda: now[0])
    held = faulty.hold("write_new", layout.PROBES)
    look = asyncio.create_task(watch.look())
    await asyncio.to_thread(held.reached.wait, LIMIT)
    now[0] = PATIENCE
    assert watch.trouble() is None
    now[0] = PATIENCE + 5
    assert f"for {PATIENCE + 5:.0f} s" in str(watch.trouble())
    held.release()
    await look
    assert watch.trouble() is None


async def test_a_watch_looks_at_once_and_again_whatever_it_meets(
    faulty: FaultyFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paused, go_on = asyncio.Queue[float](), asyncio.Semaphore(0)

    async def pause(seconds: float) -> None:
        paused.put_nowait(seconds)
        await go_on.acquire()

    monkeypatch.setattr(write_watch.asyncio, "sleep", pause)
    watch = WriteWatch(faulty, "s1")
    faulty.inject(Fault.FULL)
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(LIMIT):
        assert await paused.get() == write_watch.AGAIN
        plain = watch._try
        monkeypatch.setattr(watch, "_try", lambda: 1 / 0)
        go_on.release()
        assert await paused.get() == write_watch.AGAIN
        monkeypatch.setattr(watch, "_try", plain)
        go_on.release()
        assert await paused.get() == write_watch.EVERY
    assert "could not be looked at" in caplog.text
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def vitals(files: FileStore, watch: WriteWatch) -> Vitals:
    store = SimpleNamespace(find_jobs=AsyncMock(return_value=[]), write_trouble=AsyncMock(return_value=None))
    coordination = SimpleNamespace(link=Link.CONNECTED)
    return Vitals("s1", store, coordination, files, None, None, watch)  # type: ignore[arg-type]


async def test_a_server_whose_checkpoint_store_takes_no_data_says_that_it_is_degraded_and_why(
    faulty: FaultyFiles,
) -> None:
    watch = WriteWatch(faulty, "s1")
    server = vitals(faulty, watch)
    assert (await server.health()).degraded == ()
    faulty.inject(Fault.FULL)
    await watch.look()
    health = await server.health()
    assert health.down is None
    (why,) = health.degraded
    assert "takes no data" in why
    assert "FULL" in why


async def test_who_asks_for_a_servers_health_causes_no_write_and_is_told_one_reason_of_a_store_that_is_away(
    faulty: FaultyFiles,
) -> None:
    watch = WriteWatch(faulty, "s1")
    server = vitals(faulty, watch)
    faulty.inject(Fault.DOWN)
    await watch.look()
    del faulty.calls[:]
    faulty.inject(Fault.DOWN, "names")
    (why,) = (await server.health()).degraded
    assert "does not answer" in why
    assert [operation for operation, _ in faulty.calls] == ["names"]
