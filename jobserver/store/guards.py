"""Conditions that guarded writes carry in their own statement (design 4.3; facts.md, "SQL traps").

A SELECT before an UPDATE is no fence: the condition must be part of the write, and must lock the row it looks at.
SQLite has one writer at a time and ignores the lock clause; MySQL and MariaDB need it.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, bindparam, literal_column, select, text
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from jobserver.model import Fence
from jobserver.store.change import Gate
from jobserver.store.statement import Statement
from jobserver.store.tables import contexts, fences


def fenced(context_id: Column[str]) -> ColumnElement[bool]:
    """True while the fence of the row's context stands at the epoch and token bound by `fence_values`."""
    row = (
        select(fences.c.epoch)
        .where(
            fences.c.context_id == context_id,
            fences.c.context_id == bindparam("fence_context"),
            fences.c.epoch == bindparam("fence_epoch"),
            fences.c.token == bindparam("fence_token"),
        )
        .correlate(context_id.table)
        .with_for_update(read=True)
    )
    return row.exists()


def fence_values(fence: Fence) -> dict[str, Any]:
    """The parameters of `fenced`."""
    return {"fence_context": fence.context_id, "fence_epoch": fence.epoch, "fence_token": fence.token}


def noted(query: Select[Any]) -> Statement:
    """On MySQL: puts the query's only value, NULL without a row, into the session's variable that `gate` names.

    A SELECT and not SET: what SET reads is locked, every row of a count too, and jobs that end would wait for it. Only what
    the query locks by itself is locked.
    """
    compiled = query.compile(dialect=MySQLDialect_pymysql(paramstyle="named"))
    constants = {name: bind.value for bind, name in compiled.bind_names.items() if not bind.required}
    return Statement(text(f"SELECT ({compiled}) INTO @:gate").bindparams(**constants))


FENCE = noted(
    select(fences.c.context_id)
    .where(
        fences.c.context_id == contexts.c.id,
        fences.c.context_id == bindparam("fence_context"),
        fences.c.epoch == bindparam("fence_epoch"),
        fences.c.token == bindparam("fence_token"),
    )
    .with_for_update(read=True)
)


def fence_gate(fence: Fence) -> Gate:
    """Open while the fence stands so; the row is locked until the packet is committed, as `fenced` locks it."""
    return Gate(fence.context_id, FENCE, tuple(fence_values(fence).items()))


def context_in(states: Collection[StrEnum], context_id: Column[str]) -> ColumnElement[bool]:
    """True while the row's context is in one of `states`."""
    row = (
        select(contexts.c.id)
        .where(contexts.c.id == context_id, among(contexts.c.state, states))
        .correlate(context_id.table)
        .with_for_update(read=True)
    )
    return row.exists()


def among(state: Column[str], states: Collection[StrEnum]) -> ColumnElement[bool]:
    """The state is one of `states`, written into the text of the statement.

    States are our own constants; as literals the statement's text never changes, which halves the cost of running it.
    """
    return state.in_([literal_column(f"'{one.value}'") for one in sorted(states)])
