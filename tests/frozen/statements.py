"""The statements that this release runs, as texts: `python -m tests.frozen.statements` writes them for its schema.

Every prepared statement of the store is found by itself; what is made at the call is named here.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

import jobserver.store
from jobserver.listing import JobQuery
from jobserver.model import ContextState, JobState
from jobserver.store import contexts, jobs, listings, schema
from jobserver.store.statement import Query, Statement
from jobserver.store.tables import metadata

FOLDER = Path(__file__).parent
DIALECTS: dict[str, Dialect] = {
    "sqlite": SQLiteDialect_pysqlite(paramstyle="qmark"),
    "mysql": MySQLDialect_pymysql(paramstyle="format"),
}


def file_of(revision: str) -> Path:
    """Where the statements of the releases with that schema are kept."""
    return FOLDER / f"statements_{revision}.json"


def present() -> dict[str, ClauseElement]:
    """Name to clause, in an order in which each finds the rows that it needs."""
    tables = metadata.tables
    made: dict[str, ClauseElement] = {
        "create a context": insert(tables["contexts"]).inline(),
        "create a fence": insert(tables["fences"]).inline(),
        **_prepared(),
        **{f"finish as {state}": jobs.finish_statement(state).clause for state in JobState if state.final},
        **{
            f"end waiting as {state}": jobs.end_waiting_statement(state).clause
            for state in (JobState.ERROR, JobState.KILLED)
        },
        "move to RUNNING": contexts.move_statement(
            frozenset({ContextState.STARTED}), ContextState.RUNNING
        ).clause,
        "move to FINISHED": contexts.move_statement(
            frozenset({ContextState.STOPPING}), ContextState.FINISHED
        ).clause,
        "list jobs": listings.listing(JobQuery(limit=50)),
        "list jobs in a state": listings.listing(JobQuery(limit=50, states=frozenset({JobState.ERROR}))),
        "unfinished jobs": jobs.unfinished_of("c"),
    }
    return made | {f"read {name}": select(table) for name, table in sorted(tables.items())}


def _prepared() -> dict[str, ClauseElement]:
    """Every prepared statement in a module of the store; first those that insert jobs, which others refer to."""
    found: dict[str, ClauseElement] = {}
    for module in sorted(
        pkgutil.iter_modules(jobserver.store.__path__), key=lambda one: (one.name != "insertions", one.name)
    ):
        if module.ispkg:
            continue
        for name, value in vars(importlib.import_module(f"jobserver.store.{module.name}")).items():
            if isinstance(value, Statement | Query) and not any(
                value._clause is one for one in found.values()
            ):
                found[f"{module.name} {name.strip('_').lower()}"] = value._clause
    return found


def texts() -> dict[str, dict[str, list[object]]]:
    """Of each kind of database: name to text and number of values."""
    return {
        kind: {
            name: _text(clause, dialect)
            for name, clause in present().items()
            if kind == "mysql" or "@" not in str(clause)  # SQLite has no variables, and takes no turns
        }
        for kind, dialect in DIALECTS.items()
    }


def _text(clause: ClauseElement, dialect: Dialect) -> list[object]:
    compiled = clause.compile(dialect=dialect)
    expanded = compiled.construct_expanded_state(
        {name: 1 for name, bind in compiled.binds.items() if bind.required}
    )  # type: ignore[attr-defined]
    return [expanded.statement, len(expanded.positional_parameters)]


if __name__ == "__main__":
    file_of(schema.newest_revision()).write_text(json.dumps(texts(), indent=1) + "\n")
