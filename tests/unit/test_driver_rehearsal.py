"""A rehearsal with a Spark that only counts: it runs every query, ends when it is told to, and harms nobody when it fails."""

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
