"""The tables of moves."""

from __future__ import annotations

import pytest

from jobserver.lifecycle import (
    ACCEPTING_CONTEXT_STATES,
    CONTEXT_MOVES,
    ENDABLE_JOB_STATES,
    JOB_MOVES,
    UNFINISHED_JOB_STATES,
    IllegalMove,
    context_sources,
    job_end_sources,
)
from jobserver.model import ContextState, JobState


def reachable(moves: dict[object, frozenset[object]], start: object) -> set[object]:
    seen: set[object] = set()
    ahead = [start]
    while ahead:
        state = ahead.pop()
        if state not in seen:
            seen.add(state)
            ahead.extend(moves[state])
    return seen


@pytest.mark.parametrize(
    ("moves", "start", "states"),
    [(JOB_MOVES, JobState.QUEUED, JobState), (CONTEXT_MOVES, ContextState.STARTED, ContextState)],
)
class TestBothTables:
    def test_every_state_has_its_line(self, moves, start, states) -> None:
        assert set(moves) == set(states)

    def test_every_state_can_be_reached_from_the_first(self, moves, start, states) -> None:
        assert reachable(moves, start) == set(states)

    def test_a_final_state_has_no_way_out(self, moves, start, states) -> None:
        assert all((not moves[state]) == state.final for state in states)

    def test_every_state_can_still_come_to_an_end(self, moves, start, states) -> None:
        assert all(any(one.final for one in reachable(moves, state)) for state in states)

    def test_no_state_moves_to_itself_or_back_to_the_first(self, moves, start, states) -> None:
        assert not any(state in moves[state] or start in moves[state] for state in states)


JOB_ENDS = {
    (JobState.QUEUED, JobState.ERROR),
    (JobState.QUEUED, JobState.KILLED),
    (JobState.RUNNING, JobState.FINISHED),
    (JobState.RUNNING, JobState.ERROR),
    (JobState.RUNNING, JobState.KILLED),
    (JobState.RESTARTING, JobState.FINISHED),
    (JobState.RESTARTING, JobState.ERROR),
    (JobState.RESTARTING, JobState.KILLED),
}

CONTEXT_ILLEGAL = [
    (ContextState.STARTED, ContextState.FINISHED),
    (ContextState.RUNNING, ContextState.FINISHED),
    (ContextState.RESTARTING, ContextState.FINISHED),
    (ContextState.STOPPING, ContextState.RUNNING),
    (ContextState.STOPPING, ContextState.RESTARTING),
    (ContextState.RUNNING, ContextState.STARTED),
    (ContextState.FINISHED, ContextState.RUNNING),
    (ContextState.KILLED, ContextState.RESTARTING),
    (ContextState.ERROR, ContextState.STOPPING),
]


@pytest.mark.parametrize("before", JobState)
@pytest.mark.parametrize("to", JobState)
def test_a_job_ends_only_as_the_table_says(before: JobState, to: JobState) -> None:
    if (before, to) in JOB_ENDS:
        assert job_end_sources(to, [before]) == {before}
    else:
        with pytest.raises(IllegalMove):
            job_end_sources(to, [before])


@pytest.mark.parametrize(("before", "to"), CONTEXT_ILLEGAL)
def test_a_context_makes_no_illegal_move(before: ContextState, to: ContextState) -> None:
    with pytest.raises(IllegalMove, match=f"a context cannot move from {before} to {to}"):
        context_sources(to, [before])


def test_of_several_sources_only_the_legal_ones_count() -> None:
    assert context_sources(ContextState.FINISHED, ContextState) == {ContextState.STOPPING}
    assert job_end_sources(JobState.FINISHED, JobState) == ENDABLE_JOB_STATES


def test_a_move_from_nowhere_is_refused() -> None:
    with pytest.raises(IllegalMove, match="from no state at all to RUNNING"):
        context_sources(ContextState.RUNNING, [])


def test_a_context_accepts_jobs_exactly_while_it_can_be_asked_to_stop() -> None:
    assert {
        state for state in ContextState if ContextState.STOPPING in CONTEXT_MOVES[state]
    } == ACCEPTING_CONTEXT_STATES


def test_unfinished_jobs_are_those_that_are_not_final() -> None:
    assert {JobState.QUEUED, JobState.RUNNING, JobState.RESTARTING} == UNFINISHED_JOB_STATES
