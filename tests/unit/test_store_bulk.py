"""Many changes in one packet: what its texts are, and when it is not tried."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pymysql
import pytest

from jobserver.model import AttemptOutcome, Fence, JobRecord, JobSpec, JobState, OutcomeKind
from jobserver.store import contexts, jobs, mysql, packets
from jobserver.store.address import MysqlAddress, parsed
from jobserver.store.bulk import LARGEST, REST, Rest
from jobserver.store.change import Change

THEN = datetime(2026, 1, 1, tzinfo=UTC)


class Sent:
    """In place of the database: keeps what came, and refuses the packets in bulk that name one of `refused`."""

    def __init__(self) -> None:
        self.packets: list[Sequence[str]] = []
        self.refused: set[str] = set()

    def send(self, _engine: Any, statements: Sequence[str]) -> Any:
        self.packets.append(statements)
        if any("@gate" in text and job in text for text in statements for job in self.refused):
            error = pymysql.IntegrityError(1048, "Column 'job_id' cannot be null")
            return packets._Sent(packets._End.FAILED, [1], error)
        changed = [0 if any(f"'{job}'" in text for job in self.refused) else 1 for text in statements]
        return packets._Sent(packets._End.COMMITTED, changed)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    made = Sent()
    monkeypatch.setattr(packets, "_send", made.send)
    return made


def run(works: Sequence[Change[Any]], rest: Rest | None = None) -> list[Any]:
    address = parsed("mysql://user@127.0.0.1:1/none")
    assert isinstance(address, MysqlAddress)
    engine = mysql.writing_engine(address, timeout=1, name="none")  # connects at its first use only
    return packets.run_together(engine, works, rest=rest or Rest())


def accepted(job: str, context: str = "c1", limit: int = 9) -> Change[bool]:
    return jobs.accept(
        JobRecord(job, context, "ctx", JobSpec("demo.Job", ()), JobState.QUEUED, THEN), limit, "s1"
    )


def finished(job: str, context: str = "c1", result: str = "1") -> Change[bool]:
    outcome = AttemptOutcome(job, 1, OutcomeKind.FINISHED, result)
    return jobs.finish(Fence(context, 1, "t1"), outcome, JobState.FINISHED, THEN, "s1")


def in_bulk(statements: Sequence[str]) -> bool:
    return any("INTO @'gate" in text for text in statements)


def test_a_packet_has_one_statement_of_each_kind_behind_the_gates_of_its_contexts_in_order(
    sent: Sent,
) -> None:
    group = [
        accepted("a", "c2"),
        finished("e1", "c3"),
        accepted("b", "c1"),
        accepted("c", "c1"),
        finished("e2"),
    ]
    assert [one.value for one in run(group)] == [True] * 5
    [texts] = sent.packets
    heads = [" ".join(text.split()[:2]) for text in texts]
    opened = ["UPDATE contexts", "SELECT (SELECT", "SELECT (SELECT", "UPDATE contexts", "SELECT (SELECT"]
    assert heads == [
        *opened,
        "SELECT (SELECT",
        "INSERT INTO",
        "UPDATE jobs",
        "INSERT INTO",
        "INSERT INTO",
    ]
    assert [context for text in texts[:6] for context in ("c1", "c2", "c3") if f"'{context}'" in text] == [
        "c1",
        "c1",
        "c1",
        "c2",
        "c2",
        "c3",
    ]
    assert "+ 2 <= 9" in texts[1], "there is room for both that wait at this context"
    assert texts[6].count("('") == 3


def test_what_differs_between_jobs_of_one_update_is_told_by_their_ids(sent: Sent) -> None:
    run([finished("e1", result="1"), finished("e2", result="2")])
    update = sent.packets[0][1]
    assert "jobs.id IN ('e1', 'e2')" in update
    assert "result=CASE jobs.id WHEN 'e1' THEN '1' WHEN 'e2' THEN '2' END" in update
    assert "jobs.attempt = 1" in update
    assert "jobs.context_id = @gate_0" in update


def test_a_single_change_and_changes_of_other_kinds_are_sent_by_themselves(sent: Sent) -> None:
    run([accepted("a"), contexts.request_stop("c1")])
    [texts] = sent.packets
    assert not in_bulk(texts)


def test_a_large_result_keeps_its_own_statement(sent: Sent) -> None:
    run([finished("e1"), finished("e2"), finished("large", result='"' + "x" * LARGEST + '"')])
    assert [in_bulk(texts) for texts in sent.packets] == [True, False]
    assert not any("large" in text for text in sent.packets[0])


def test_a_group_with_a_refused_change_is_sent_again_by_single_statements_which_tell_it_apart(
    sent: Sent,
) -> None:
    sent.refused = {"e2"}
    assert [one.value for one in run([finished("e1"), finished("e2"), finished("e3")])] == [True, False, True]
    assert [in_bulk(texts) for texts in sent.packets] == [True, False]


def test_after_a_refusal_the_next_groups_are_not_tried_in_bulk(sent: Sent) -> None:
    sent.refused, rest = {"e2"}, Rest()
    run([finished("e1"), finished("e2")], rest)
    sent.refused, sent.packets = set(), []
    for _ in range(REST + 1):
        run([finished("e1"), finished("e2")], rest)
    assert [in_bulk(texts) for texts in sent.packets] == [False] * REST + [True]


def test_a_value_that_no_statement_holds_fails_its_change_and_no_other(sent: Sent) -> None:
    bad = accepted("b")
    broken = Change((*bad.steps[:1],), bad.conclude, gate=bad.gate)
    broken.steps[0].values["spec"] = b"no text"  # type: ignore[index]
    outcomes = run([accepted("a"), broken, accepted("c")])
    assert [one.value for one in outcomes] == [True, None, True]
    assert isinstance(outcomes[1].error, TypeError)
