"""The writer's own connection to SQLite, kept from one transaction to the next."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError

from jobserver.store.plain import KeptConnection
from jobserver.store.sqlite import BEGIN, writing_engine


@pytest.fixture
def engine(tmp_path):
    made = writing_engine(str(tmp_path / "one.db"), timeout=1, synchronous="FULL")
    yield made
    made.dispose()


@pytest.fixture
def kept(engine):
    return KeptConnection(engine, BEGIN)


def the_one(kept, engine):
    """The driver's connection of the next transaction."""
    with kept.opened(engine) as connection:
        return connection.connection.dbapi_connection


def closed(raw):
    try:
        raw.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def test_transactions_share_one_connection_and_the_pool_has_its_own(kept, engine):
    raw = the_one(kept, engine)
    assert the_one(kept, engine) is raw
    with engine.connect() as other:
        assert other.connection.dbapi_connection is not raw
        assert other.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert raw.execute("PRAGMA synchronous").fetchone() == (2,)
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def break_in_the_middle(kept, engine):
    with kept.opened(engine) as connection:
        connection.begin()
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", [(1,)])
        raise ZeroDivisionError


def test_what_fails_in_the_middle_is_rolled_back_and_the_connection_kept(kept, engine):
    raw = the_one(kept, engine)
    raw.execute("CREATE TABLE t (n INTEGER)")
    with pytest.raises(ZeroDivisionError):
        break_in_the_middle(kept, engine)
    assert not raw.in_transaction
    assert the_one(kept, engine) is raw
    assert raw.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_connection_that_is_in_doubt_is_closed_and_replaced(kept, engine):
    with kept.opened(engine) as connection:
        raw = connection.connection.dbapi_connection
        connection.begin()
        connection.invalidate()
    assert closed(raw)
    assert the_one(kept, engine) is not raw


def test_it_ends_with_the_engine(kept, engine):
    raw = the_one(kept, engine)
    engine.dispose()
    assert closed(raw)


def test_where_it_cannot_be_opened_the_driver_says_why(tmp_path):
    engine = writing_engine(str(tmp_path / "nowhere" / "one.db"), timeout=1, synchronous="FULL")
    with pytest.raises(DBAPIError, match="unable to open"), KeptConnection(engine, BEGIN).opened(engine):
        pass
