"""The statements themselves: each query by its index, each guard in the statement with a lock where one is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Select, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.sql import Executable

from jobserver.listing import JobQuery, Place
from jobserver.model import ContextState, Fence, JobRecord, JobSpec, JobState
from jobserver.store import (
    audit,
    binaries,
    callbacks,
    contexts,
    fences,
    history,
    insertions,
    jobs,
    retention,
    saved,
    schema,
    tables,
)
from jobserver.store.database import Database
from jobserver.store.listings import listing
from jobserver.store.statement import Statement

THEN = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = Place(THEN, "j1")
FAILED = frozenset({JobState.ERROR})

QUERIES: dict[str, tuple[Select, str]] = {
    "jobs, newest": (listing(JobQuery(50)), "ix_jobs_submitted"),
    "jobs, the next page": (listing(JobQuery(50, after=PLACE)), "ix_jobs_submitted"),
    "jobs of a time": (listing(JobQuery(50, since=THEN, until=THEN)), "ix_jobs_submitted"),
    "jobs, newest in a state": (listing(JobQuery(50, states=FAILED)), "ix_jobs_state"),
    "jobs of a context": (listing(JobQuery(50, context="ctx")), "ix_jobs_context_name"),
    "jobs of a context, the next page": (
        listing(JobQuery(50, context="ctx", after=PLACE)),
        "ix_jobs_context_name",
    ),
    "jobs of a class": (listing(JobQuery(50, main_class="demo.Job")), "ix_jobs_class"),
    "jobs of a class, the next page in a state": (
        listing(JobQuery(50, main_class="demo.Job", states=FAILED, after=PLACE)),
        "ix_jobs_",
    ),
    "jobs of a context in a state": (listing(JobQuery(50, context="ctx", states=FAILED)), "ix_jobs_"),
    "jobs by everything": (
        listing(
            JobQuery(50, states=FAILED, context="ctx", main_class="c", since=THEN, until=THEN, after=PLACE)
        ),
        "ix_jobs_",
    ),
    "unfinished jobs of a context": (jobs.unfinished_of("c1"), "ix_jobs_context"),
    "a job": (select(tables.jobs).where(tables.jobs.c.id == "j1"), "sqlite_autoindex_jobs"),
    "a job by its key": (
        select(tables.jobs).where(tables.jobs.c.principal == "p", tables.jobs.c.idempotency_key == "k"),
        "sqlite_autoindex_jobs",
    ),
    "unfinished jobs' binaries": (binaries.UNFINISHED_SPECS, "ix_jobs_state"),
    "living contexts": (contexts.LIVING, "ix_contexts_state"),
    "newest context of a name": (contexts.newest_of("ctx"), "ix_contexts_name"),
    "history of a job": (history.moves_of("j1"), "PRIMARY KEY"),
    "configs by name": (saved.page_of(tables.configs, 50, "a"), "sqlite_autoindex_configs"),
    "queries by name": (saved.page_of(tables.queries, 50, "a"), "sqlite_autoindex_queries"),
    "newest operations": (audit.newest_of(50), "ix_audit_at"),
    "the job that is too many": (retention.place_of_newest(1000), "ix_jobs_submitted"),
    "submitted jobs from a place on": (retention.submitted_jobs(PLACE, THEN), "ix_jobs_submitted"),
    "the context that is too many": (retention.end_of_newest_context(1000), "ix_contexts_ended"),
    "old operations": (retention.old_operations(THEN), "ix_audit_at"),
    "interrupted removals": (retention.interrupted_removals(THEN), "ix_binary_files_state"),
}

LOOKED_UP: dict[str, tuple[Select, str]] = {
    "old jobs": (retention.old_jobs(THEN).limit(200), "ix_jobs_submitted"),
    "surplus jobs": (retention.jobs_up_to(PLACE).limit(200), "ix_jobs_submitted"),
    "unused bytes": (retention.unused_bytes(THEN).limit(200), "ix_binary_files_state"),
    "old contexts": (retention.old_contexts(THEN).limit(200), "ix_contexts_ended"),
}
"""Queries with another one inside: the outer goes by its index, in its order."""

GUARDED: dict[str, Statement] = {
    "start": jobs.START,
    "restart": jobs.RESTART,
    "finish": jobs.finish_statement(JobState.FINISHED),
    "end waiting": jobs.end_waiting_statement(JobState.KILLED),
    "move context": contexts.move_statement(frozenset({ContextState.STARTED}), ContextState.RUNNING),
    "end context": contexts.move_statement(frozenset({ContextState.STARTED}), ContextState.ERROR),
    "driver": contexts.DRIVER,
    "failover": contexts.FAILOVER,
    "accept and start": insertions.INSERT_STARTED,
}


OTHERS: dict[str, Statement] = {
    "insert": insertions.INSERT,
    "turn": insertions.TURN,
    "grant": fences.GRANT,
    "history of an end": history.RECORD_END,
    "history of a context's end": history.RECORD_END_OF_CONTEXT,
    "take a callback": callbacks.TAKE,
    "settle a callback": callbacks.SETTLE,
}


@pytest.fixture(scope="module")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    path: Path = tmp_path_factory.mktemp("plans") / "metadata.db"
    database = Database.open(f"sqlite:///{path}", timeout=5)
    await database.write(schema.upgrade)
    yield database
    await database.close()


async def plan_of(database: Database, query: Executable) -> list[str]:
    text = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))

    def explain(connection: Connection) -> list[str]:
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]

    return await database.read(explain)


@pytest.mark.parametrize(("query", "index"), QUERIES.values(), ids=QUERIES)
async def test_a_query_goes_by_its_index_and_sorts_nothing(
    database: Database, query: Select, index: str
) -> None:
    plan = await plan_of(database, query)
    assert all("USING" in step and index in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize(("query", "index"), LOOKED_UP.values(), ids=LOOKED_UP)
async def test_what_may_go_is_found_by_its_age_and_nothing_is_sorted_or_walked_through(
    database: Database, query: Select, index: str
) -> None:
    plan = await plan_of(database, query)
    assert index in plan[0], plan
    assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in plan), plan


async def test_due_callbacks_are_found_by_their_time_and_their_jobs_by_id(database: Database) -> None:
    plan = await plan_of(database, callbacks.due_at(datetime(2026, 1, 1, tzinfo=UTC), 50))
    assert [index for step in plan for index in ("ix_callbacks_due", "autoindex_jobs") if index in step] == [
        "ix_callbacks_due",
        "autoindex_jobs",
    ]
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("statement", [*GUARDED.values(), *OTHERS.values()], ids=[*GUARDED, *OTHERS])
async def test_no_write_of_the_hot_path_walks_through_a_table(
    database: Database, statement: Statement
) -> None:
    compiled = statement.clause.compile(dialect=sqlite.dialect())
    parameters = tuple(0 for _ in compiled.positiontup)

    def explain(connection: Connection) -> list[str]:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", parameters)
        return [row.detail for row in rows]

    plan = await database.read(explain)
    assert plan
    one_row = ("SCAN CONSTANT ROW", "SCAN unfinished")
    assert not any(step.startswith("SCAN") and step not in one_row for step in plan), plan


@pytest.mark.parametrize("statement", GUARDED.values(), ids=GUARDED)
def test_a_guarded_write_looks_at_epoch_and_token_and_locks_the_fence_where_that_is_needed(
    statement: Statement,
) -> None:
    text = " ".join(str(statement.clause.compile(dialect=mysql.dialect())).split())
    guard = text[text.index("EXISTS") :]
    assert "fences.epoch = %s AND fences.token = %s LOCK IN SHARE MODE" in guard


@pytest.mark.parametrize(
    "statement",
    [insertions.INSERT, insertions.INSERT_STARTED, history.RECORD],
    ids=["queued", "started", "history"],
)
def test_no_insertion_of_the_hot_path_selects_its_row(statement: Statement) -> None:
    """MariaDB writes its log to the disk for each INSERT … SELECT, also within a transaction."""
    text = " ".join(str(statement.clause.compile(dialect=mysql.dialect())).split())
    assert text.startswith("INSERT IGNORE INTO ")
    assert ") VALUES (" in text


def test_an_acceptance_takes_its_turn_at_the_context_before_it_counts_the_queue() -> None:
    record = JobRecord("j1", "c1", "ctx", JobSpec("demo.Job", ()), JobState.QUEUED, THEN)
    for change in (
        jobs.accept(record, 9, "s1"),
        jobs.accept_started(Fence("c1", 1, "t"), record, 9, THEN, "s1"),
    ):
        lock, count = [
            " ".join(str(one.clause.compile(dialect=mysql.dialect())).split()) for one in change.steps[0].turn
        ]
        assert lock == "UPDATE contexts SET state=contexts.state WHERE contexts.id = %s"
        assert count.startswith("SELECT COUNT(*) INTO @%s FROM jobs WHERE context_id = %s AND state IN (")
