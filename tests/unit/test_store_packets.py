"""Groups on MySQL while somebody holds a lock: how often each write is tried, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest

from jobserver.errors import StoreUnavailable
from jobserver.store import contexts, mysql, packets
from jobserver.store.address import MysqlAddress, parsed
from jobserver.store.database import Database

LOCKED = "c3"


class Locked:
    """In place of the database: every packet that needs the locked row waits a second and is rolled back."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[int] = []

    def send(self, _engine: Any, statements: Sequence[str]) -> Any:
        self.sent.append(len(statements))
        if any(LOCKED in text for text in statements):
            self.now += 1.0
            return packets._Sent(packets._End.FAILED, (), pymysql.OperationalError(1205, "lock wait timeout"))
        return packets._Sent(packets._End.COMMITTED, [1] * len(statements))


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Locked:
    made = Locked()
    monkeypatch.setattr(packets, "_send", made.send)
    clock = SimpleNamespace(monotonic=lambda: made.now, sleep=lambda seconds: None)
    monkeypatch.setattr(packets, "time", clock)
    return made


def run(count: int, patience: float) -> list[Any]:
    address = parsed("mysql://user@127.0.0.1:1/none")
    assert isinstance(address, MysqlAddress)
    engine = mysql.writing_engine(address, timeout=1, name="none")  # connects at its first use only
    works = [contexts.request_stop(f"c{number}") for number in range(count)]
    return packets.run_together(engine, works, patience=patience)


def test_after_the_tries_of_its_group_each_write_is_tried_once_alone(locked: Locked) -> None:
    outcomes = run(6, patience=100)
    assert [one.value for one in outcomes] == [True, True, True, None, True, True]
    assert isinstance(outcomes[3].error, StoreUnavailable)
    assert locked.sent == [6] * packets.CONFLICT_TRIES + [1] * 6


def test_a_group_ends_in_time_and_says_of_the_rest_that_it_was_not_done(locked: Locked) -> None:
    outcomes = run(6, patience=3.5)
    assert locked.sent == [6] * 4
    assert all(isinstance(one.error, StoreUnavailable) for one in outcomes)


def test_writers_of_a_database_have_the_patience_of_its_calls(locked: Locked) -> None:
    database = Database.open("mysql://user@127.0.0.1:1/none", timeout=1.0)
    outcomes = database._writer._run_together(database.writing, [contexts.request_stop(LOCKED)])
    assert isinstance(outcomes[0].error, StoreUnavailable)
    assert locked.now == 2.0
