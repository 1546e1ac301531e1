"""A rehearsal with a Spark that only counts: it runs every query, ends when it is told to, and harms nobody when it fails."""

import fcntl
import itertools
import os
import threading
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from jobserver.driver import rehearsal
from jobserver.driver.rehearsal import GROUP, ROUNDS, Rehearsal

LIMIT = 10.0


@pytest.fixture
def spark():
    return MagicMock()


@pytest.fixture
def asked(monkeypatch):
    """The runs of the only query; it waits for `go_on` where that is cleared."""
    runs, go_on = [], threading.Event()
    go_on.set()
    monkeypatch.setattr(rehearsal, "f", MagicMock())

    def query(rows):
        runs.append(rows)
        assert go_on.wait(LIMIT)

    monkeypatch.setattr(rehearsal, "queries", lambda: [query])
    query.runs, query.go_on = runs, go_on
    return query


def test_all_queries_are_run_in_the_pool_that_yields(spark, asked):
    made = Rehearsal(spark, Path("/driver"), None)
    made.begin().join(LIMIT)
    assert len(asked.runs) == ROUNDS
    assert made.done
    spark.java.scala_context.setLocalProperty.assert_called_with("spark.scheduler.pool", "background")
    made.end()
    spark.java.scala_context.cancelJobGroup.assert_not_called()


def test_that_it_is_warm_is_answered_only_after_the_driver_has_begun_to_yield_for_good(spark, asked):
    """Whoever hears it may bind the driver at once, which ends that."""
    made, answered = Rehearsal(spark, Path("/driver"), None), []
    made.warmed = lambda: answered.append(made._warm.done())
    made.begin().join(LIMIT)
    assert (answered, made.wait_warm()) == ([False], True)


def test_an_end_gives_up_the_query_that_runs_and_begins_no_other(spark, asked):
    asked.go_on.clear()
    cancelled = spark.java.scala_context.cancelJobGroup
    cancelled.side_effect = lambda group: asked.go_on.set()
    made = Rehearsal(spark, Path("/driver"), None)
    thread = made.begin()
    while not asked.runs:
        assert thread.is_alive()
    made.end()
    made.end()
    thread.join(LIMIT)
    cancelled.assert_called_once_with(GROUP)
    assert (len(asked.runs), made.done) == (1, False)


@pytest.mark.parametrize(("ended", "told"), [(False, True), (True, False)], ids=["failed", "given up"])
def test_a_failure_is_told_unless_the_driver_had_work(spark, asked, caplog, ended, told):
    made = Rehearsal(spark, Path("/driver"), None)

    def fail():
        if ended:
            made.end()
        raise OSError("no space left")

    spark.root.newSession.side_effect = fail
    made.begin().join(LIMIT)
    assert not made.done
    assert ("given up: no space left" in caplog.text) == told


def test_of_two_drivers_on_a_machine_one_rehearses_at_a_time_and_an_end_waits_for_no_turn(
    spark, asked, tmp_path
):
    asked.go_on.clear()
    made = [Rehearsal(spark, Path("/driver"), tmp_path / "lock") for _ in range(3)]
    first = made[0].begin()
    while not asked.runs:
        assert first.is_alive()
    second, third = made[1].begin(), made[2].begin()
    made[2].end()
    third.join(LIMIT)
    assert (third.is_alive(), second.is_alive(), len(asked.runs)) == (False, True, 1)
    asked.go_on.set()
    first.join(LIMIT)
    second.join(LIMIT)
    assert [one.done for one in made] == [True, True, False]
    assert len(asked.runs) == 2 * ROUNDS


class Frozen:
    """Another driver that has the turn and does not go on; `wakes()` and `ends()`."""

    def __init__(self, path):
        self._path = path
        self._file = path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._signs = itertools.count(1)

    def wakes(self):
        os.utime(self._path, (0, next(self._signs)))


@pytest.fixture
def frozen(tmp_path):
    made = Frozen(tmp_path / "lock")
    yield made
    made._file.close()


def test_a_rehearsal_that_shows_signs_is_waited_for_and_a_frozen_one_is_passed_by(
    spark, asked, frozen, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(rehearsal, "LOOK_AGAIN", 0.001)
    looks = itertools.count()

    def clock():
        look = next(looks)
        assert asked.runs == []
        if look < 100:
            frozen.wakes()
        return look * rehearsal.SILENT / 2

    made = Rehearsal(spark, Path("/driver"), tmp_path / "lock", clock)
    made.begin().join(LIMIT)
    assert made.done
    assert next(looks) in range(103, 110)
    assert caplog.text.count("begins beside it") == 1


@pytest.mark.parametrize("passes", [False, True], ids=["in its turn", "passing a frozen one by"])
def test_who_rehearses_shows_a_sign_before_each_query(spark, asked, tmp_path, request, monkeypatch, passes):
    lock, signs = tmp_path / "lock", []

    def query(rows):
        signs.append(lock.stat().st_mtime_ns)
        os.utime(lock, (0, 0))

    monkeypatch.setattr(rehearsal, "queries", lambda: [query])
    if passes:
        request.getfixturevalue("frozen")
        monkeypatch.setattr(rehearsal, "LOOK_AGAIN", 0.001)
    made = Rehearsal(spark, Path("/driver"), lock, itertools.count(0, rehearsal.SILENT).__next__)
    made.begin().join(LIMIT)
    assert (made.done, len(signs)) == (True, ROUNDS)
    assert all(signs)


def test_a_turn_ends_also_for_the_copy_of_its_file_in_a_forked_child(spark, asked, tmp_path):
    """A copy of a descriptor keeps a lock as long as it is open, unless it is given back by name."""
    lock, copies = tmp_path / "lock", []
    first = Rehearsal(spark, Path("/driver"), lock)
    spark.root.newSession.side_effect = lambda: (
        copies.extend(map(os.dup, descriptors_of(lock))) or MagicMock()
    )
    first.begin().join(LIMIT)
    assert len(copies) == 1
    second = Rehearsal(spark, Path("/driver"), lock)
    second.begin().join(LIMIT)
    assert second.done
    for copy in copies:
        os.close(copy)


def descriptors_of(path):
    links = {int(each.name): each for each in Path("/proc/self/fd").iterdir()}
    return [number for number, link in links.items() if link.exists() and link.resolve() == path]
