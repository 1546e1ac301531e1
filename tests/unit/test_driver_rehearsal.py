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
    made = Rehearsal(spark, Path("/driver"))
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
    made = Rehearsal(spark, Path("/driver"))
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
    made = Rehearsal(spark, Path("/driver"))

    def fail():
        if ended:
            made.end()
        raise OSError("no space left")

    spark.root.newSession.side_effect = fail
    made.begin().join(LIMIT)
    assert not made.done
    assert ("given up: no space left" in caplog.text) == told
