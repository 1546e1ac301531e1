"""Groups on MySQL while somebody holds a lock: how often each write is tried, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from jobserver.errors import StoreUnavailable
from jobserver.model import JobRecord, JobSpec, JobState
from jobserver.store import contexts, jobs, mysql, packets
from jobserver.store.address import MysqlAddress, parsed
from jobserver.store.database import Database

LOCKED = "c3"
THEN = datetime(2026, 1, 1, tzinfo=UTC)


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


def job(number: int, context: str) -> JobRecord:
    return JobRecord(f"j{number}", context, context, JobSpec("demo.Job", ()), JobState.QUEUED, THEN)


def acceptances(*contexts: str) -> list[Any]:
    return [jobs.accept(job(number, context), 9, "s1") for number, context in enumerate(contexts)]


def run_works(works: Sequence[Any]) -> list[Any]:
    address = parsed("mysql://user@127.0.0.1:1/none")
    assert isinstance(address, MysqlAddress)
    return packets.run_together(mysql.writing_engine(address, timeout=1, name="none"), works)


def test_the_turns_of_a_packet_are_taken_first_once_each_and_in_one_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Sequence[str]] = []

    def send(_engine: Any, statements: Sequence[str]) -> Any:
        seen.append(statements)
        # each turn meets its row, of the insertions the second one meets none
        changed = [1 if text.startswith("UPDATE") or "'j1'" not in text else 0 for text in statements]
        return packets._Sent(packets._End.COMMITTED, changed)

    monkeypatch.setattr(packets, "_send", send)
    outcomes = run_works([contexts.request_stop("c9"), *acceptances("c2", "c1", "c2")])
    assert [one.value for one in outcomes] == [True, True, False, True]
    [statements] = seen
    assert [text.split("contexts.id = ")[1] for text in statements[:4:2]] == ["'c1'", "'c2'"]
    assert [text.split()[0] for text in statements[:4]] == ["UPDATE", "SELECT"] * 2, "counted behind the turn"
    assert not any(text.startswith("UPDATE contexts SET state=contexts.state") for text in statements[4:])


def test_a_turn_that_the_database_refuses_fails_those_who_need_it_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def send(_engine: Any, statements: Sequence[str]) -> Any:
        for number, text in enumerate(statements):
            if text.startswith("UPDATE contexts SET state=contexts.state") and text.endswith("'c1'"):
                error = pymysql.OperationalError(1142, "command denied")
                return packets._Sent(packets._End.FAILED, [1] * number, error)
        return packets._Sent(packets._End.COMMITTED, [1] * len(statements))

    monkeypatch.setattr(packets, "_send", send)
    outcomes = run_works(acceptances("c2", "c1", "c0", "c1"))
    assert [one.value for one in outcomes] == [True, None, True, None]
    assert all("command denied" in str(one.error) for one in (outcomes[1], outcomes[3]))


@pytest.mark.parametrize(("conflicts", "value"), [(2, "done"), (packets.CONFLICT_TRIES, None)])
def test_a_write_that_is_no_declared_change_is_run_again_after_a_deadlock(
    conflicts: int, value: str | None
) -> None:
    runs: list[int] = []

    def work(_connection: Any) -> str:
        runs.append(1)
        if len(runs) <= conflicts:
            raise DBAPIError("update", None, pymysql.OperationalError(1213, "Deadlock found"))
        return "done"

    (outcome,) = packets.run_together(create_engine("sqlite://"), [work], patience=100)
    assert outcome.value == value
    assert isinstance(outcome.error, StoreUnavailable) == (value is None)
    assert len(runs) == min(conflicts + 1, packets.CONFLICT_TRIES)


def test_a_write_that_fails_otherwise_is_run_once() -> None:
    runs: list[int] = []

    def work(_connection: Any) -> None:
        runs.append(1)
        raise DBAPIError(
            "update", None, pymysql.OperationalError(1064, "You have an error in your SQL syntax")
        )

    (outcome,) = packets.run_together(create_engine("sqlite://"), [work], patience=100)
    assert isinstance(outcome.error, StoreUnavailable)
    assert len(runs) == 1
