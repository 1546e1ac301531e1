"""Rehearsals of real drivers that share a machine: one that dies in the middle of its own leaves its turn to the next, and
an activation in the middle of one is answered at once. What yields to whom in a driver, and until when."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from driver_client import DriverClient, DriverProcess, Uploads, class_archives, eventually, is_running

from checkpoint.epoch import begin_epoch
from checkpoint.local import LocalFiles
from jobserver.driver.niceness import YIELDING, may_be_lowered
from jobserver.driver.rehearsal import GROUP, ROUNDS, queries
from jobserver.protocol import HURRY

CONTEXT = {"id": "ctx-1", "name": "shared", "settings": {}}
LIMIT = 60.0
"""Seconds for a rehearsal to come to its queries, beside other tests."""
AT_ONCE = 10.0
"""Seconds for a first answer, beside other tests; how long it takes is measured by `benchmarks/`."""

QUERY = f"""
import threading

def run(spark, env, config):
    rows = spark.range(1000).selectExpr("id % 7 as part", "id").groupBy("part").sum("id").orderBy("part").collect()
    tracker = spark.sparkContext.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup("{GROUP}")]
    return {{
        "sums": [row[1] for row in rows],
        "jobs": len(jobs),
        "running": sum(job is not None and job.status == "RUNNING" for job in jobs),
        "rehearses": any(thread.name == "rehearsal" for thread in threading.enumerate()),
    }}
"""
SUMS = [sum(range(part, 1000, 7)) for part in range(7)]


class Waiting(DriverProcess):
    """A driver that waits without a context, as in a pool, and what its rehearsal shows to others."""

    def __init__(self, folder: Path, shared: Path, *, warm_up: bool = True) -> None:
        super().__init__(folder, driver_id=folder.name, warm_up=warm_up, archive_dir=str(shared))
        assert "error" not in self.facts, self.facts
        self._root, self._lock = folder, shared / "rehearsal.lock"

    @property
    def has_turn(self) -> bool:
        if not self._lock.exists():  # none of them is warm yet
            return False
        inode = str(self._lock.stat().st_ino)
        locks = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return any(
            lock[1] == "FLOCK" and lock[4] == str(self.process.pid) and lock[5].endswith(":" + inode)
            for lock in locks
        )

    @property
    def has_rows(self) -> bool:
        return (self.folder / "rehearsal.parquet" / "_SUCCESS").exists()

    @property
    def in_the_middle(self) -> bool:
        return self.has_turn and self.has_rows

    def activated(self) -> DriverClient:
        """The connection of its owner."""
        files = LocalFiles(self._root / "checkpoints" / "test")
        base = begin_epoch(files, "ctx-1", 1, "t1", b"cluster secret")
        client = self.connect()
        answer = client.ask("activate", context=CONTEXT, epoch=1, token="t1", base=base.name)
        assert answer["ok"], answer
        return client

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        for pid in (self.process.pid, self.facts["jvm_pid"]):
            os.kill(pid, number)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine's class archives, and a lock that is not the machine's."""
    folder = tmp_path_factory.mktemp("shared")
    for made in class_archives().glob("spark-*.jsa"):
        (folder / made.name).symlink_to(made)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[list[Waiting]]:
    """Two of them, in a hurry, none of which rehearsed before the other was warm."""
    root = tmp_path_factory.mktemp("pair")
    with (shared / "rehearsal.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with ThreadPoolExecutor(2) as pool:
            drivers = list(pool.map(lambda name: Waiting(_folder(root / name), shared), ("d-1", "d-2")))
        for driver in drivers:
            os.kill(driver.process.pid, HURRY)  # or they would yield to the tests beside this one
        # kept, or the second would end as one that nobody wants
        clients = [driver.connect() for driver in drivers]
        for client in clients:
            assert client.ask("warm")["warm"]
            os.utime(turn.fileno())  # or they would pass by who has the turn and shows no sign
    try:
        yield drivers
    finally:
        for driver in drivers:
            driver.stop()
        assert eventually(lambda: not any(is_running(driver.facts["jvm_pid"]) for driver in drivers))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_driver_killed_in_the_middle_of_its_rehearsal_lets_the_next_one_rehearse(
    pair: list[Waiting],
) -> None:
    assert eventually(lambda: any(driver.in_the_middle for driver in pair), LIMIT)
    first, second = sorted(pair, key=lambda driver: not driver.has_turn)
    first.freeze()  # or its rehearsal could end in the meantime
    try:
        assert second.connect().ask("bind", context=CONTEXT)["rehearsing"], "it waits for its turn"
        assert not second.has_rows
        assert first.in_the_middle
    finally:
        first.kill()
    assert eventually(lambda: second.in_the_middle, LIMIT)


def test_an_activation_in_the_middle_of_a_rehearsal_is_answered_at_once_and_leaves_no_job_of_it(
    pair: list[Waiting], tmp_path: Path
) -> None:
    assert eventually(lambda: any(driver.in_the_middle for driver in pair), LIMIT)
    driver = next(driver for driver in pair if driver.has_turn)
    binary = Uploads(tmp_path / "uploads").python(QUERY)
    client = driver.activated()

    def answer(number: int) -> Any:
        asked = client.ask(
            "run", job_id=f"job-{number}", attempt=1, main_class="job:run", binaries=[binary], config="{}", interactive=True
        )  # fmt: skip
        assert asked["ok"], asked
        event = client.event("finished", f"job-{number}", AT_ONCE)
        assert event["kind"] == "finished", event["error"]
        return json.loads(event["result"])

    seen = [answer(1)]
    assert eventually(lambda: seen.append(answer(len(seen) + 1)) or not seen[-1]["rehearses"])
    assert all(each["sums"] == SUMS for each in seen)
    last = seen[-1]
    assert last["running"] == 0, last
    assert 0 < last["jobs"] < ROUNDS * len(queries()), "it was given up in the middle"
    assert not driver.has_turn


@pytest.mark.parametrize("needed", ["activated", "awaited"])
def test_a_driver_that_waits_yields_to_all_others_until_it_is_needed(
    tmp_path: Path, shared: Path, needed: str
) -> None:
    """Those of its Python workers, too, which are there from the warm-up on."""
    driver = Waiting(_folder(tmp_path / "d-3"), shared)
    try:
        assert driver.connect().ask("warm")["warm"]
        assert eventually(lambda: _niceness(driver) == {YIELDING if may_be_lowered() else 0})
        if needed == "activated":
            driver.activated()
        else:
            os.kill(driver.process.pid, HURRY)
        assert eventually(lambda: _niceness(driver) == {0})
    finally:
        driver.stop()


def test_of_a_driver_that_a_context_waits_for_only_the_optimizing_compiler_yields_until_after_its_activation(
    tmp_path: Path, shared: Path
) -> None:
    driver = Waiting(_folder(tmp_path / "d-4"), shared, warm_up=False)
    try:
        assert not driver.connect().ask("warm")["warm"]
        assert _niceness_by_name(driver) == ({"C2": YIELDING} if may_be_lowered() else {})
        driver.activated()
        assert eventually(lambda: not _niceness_by_name(driver))
    finally:
        driver.stop()


def _niceness_by_name(driver: Waiting) -> dict[str, int]:
    """Of the JVM's threads whose niceness is not the usual one."""
    usual, found = os.getpriority(os.PRIO_PROCESS, 0), {}
    for thread in Path(f"/proc/{driver.facts['jvm_pid']}/task").iterdir():
        with contextlib.suppress(OSError):  # some threads come and go
            found[(thread / "comm").read_text().split()[0]] = (
                os.getpriority(os.PRIO_PROCESS, int(thread.name)) - usual
            )
    return {name: niceness for name, niceness in found.items() if niceness}


def _niceness(driver: Waiting) -> set[int]:
    """Of its processes with all their threads, over the usual one; what makes a class archive beside it has its own."""
    usual, found = os.getpriority(os.PRIO_PROCESS, 0), set()
    processes = [
        psutil.Process(driver.process.pid),
        *psutil.Process(driver.facts["jvm_pid"]).children(recursive=True),
    ]
    assert len(processes) > 1, "there are Python workers"
    for pid in [driver.facts["jvm_pid"], *(process.pid for process in processes)]:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # others come and go
                found.add(os.getpriority(os.PRIO_PROCESS, int(thread.name)) - usual)
    return found
