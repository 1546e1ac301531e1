"""The moves that jobs and contexts may make: literal tables that are the machine (rest_contract 4.7 and 5; design 7).

Pure. The store takes its expected states from here, so that no caller can ask for a move that is not in a table.
A final state has no way out, and a state is no move to itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from jobserver.model import ContextState, JobState

_State = TypeVar("_State", bound=StrEnum)

JOB_MOVES: Final[Mapping[JobState, frozenset[JobState]]] = {
    # A job that never began: it starts, cannot be started, or is killed while it waits.
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.ERROR, JobState.KILLED}),
    JobState.RUNNING: frozenset({JobState.RESTARTING, JobState.FINISHED, JobState.ERROR, JobState.KILLED}),
    # FINISHED from here: the result of the attempt was waiting in a driver that was thought lost.
    JobState.RESTARTING: frozenset({JobState.RUNNING, JobState.FINISHED, JobState.ERROR, JobState.KILLED}),
    JobState.FINISHED: frozenset(),
    JobState.ERROR: frozenset(),
    JobState.KILLED: frozenset(),
}

CONTEXT_MOVES: Final[Mapping[ContextState, frozenset[ContextState]]] = {
    ContextState.STARTED: frozenset(
        {
            ContextState.RUNNING,
            ContextState.RESTARTING,
            ContextState.STOPPING,
            ContextState.ERROR,
            ContextState.KILLED,
        }
    ),
    ContextState.RUNNING: frozenset(
        {ContextState.RESTARTING, ContextState.STOPPING, ContextState.ERROR, ContextState.KILLED}
    ),
    ContextState.RESTARTING: frozenset(
        {ContextState.RUNNING, ContextState.STOPPING, ContextState.ERROR, ContextState.KILLED}
    ),
    # A context that is being stopped never runs again: whoever asked for the stop was told that it ends.
    ContextState.STOPPING: frozenset({ContextState.FINISHED, ContextState.ERROR, ContextState.KILLED}),
    ContextState.FINISHED: frozenset(),
    ContextState.ERROR: frozenset(),
    ContextState.KILLED: frozenset(),
}

UNFINISHED_JOB_STATES: Final = frozenset(state for state in JobState if not state.final)
"""Jobs that somebody still has to bring to an end; these count against the queue's bound."""

WAITING_JOB_STATES: Final = frozenset({JobState.QUEUED, JobState.RESTARTING})
"""Unfinished, and no attempt runs."""

ENDABLE_JOB_STATES: Final = frozenset({JobState.RUNNING, JobState.RESTARTING})
"""States in which the outcome of the current attempt is taken."""

ACCEPTING_CONTEXT_STATES: Final = frozenset(
    {ContextState.STARTED, ContextState.RUNNING, ContextState.RESTARTING}
)
"""A context in one of these takes new jobs, and can be asked to stop."""

LISTED_CONTEXT_STATES: Final = frozenset(
    {ContextState.RUNNING, ContextState.RESTARTING, ContextState.STOPPING}
)
"""What GET /contexts shows (rest_contract 4.1)."""

FINAL_CONTEXT_STATES: Final = frozenset(state for state in ContextState if state.final)


class IllegalMove(ValueError):
    """A move that is in no table was asked for: a fault of the asking code, never of a client."""


def check_job_moves(allowed_from: Collection[JobState], to: JobState) -> None:
    """Raises IllegalMove unless a job may move to `to` from each of `allowed_from`."""
    _check(JOB_MOVES, "job", allowed_from, to)


def check_context_moves(allowed_from: Collection[ContextState], to: ContextState) -> None:
    """Raises IllegalMove unless a context may move to `to` from each of `allowed_from`."""
    _check(CONTEXT_MOVES, "context", allowed_from, to)


def _check(
    moves: Mapping[_State, frozenset[_State]], what: str, allowed_from: Collection[_State], to: _State
) -> None:
    if not allowed_from:
        raise IllegalMove(f"no state is named from which a {what} may move to {to}")
    wrong = sorted(state for state in allowed_from if to not in moves[state])
    if wrong:
        raise IllegalMove(f"a {what} cannot move from {' or '.join(wrong)} to {to}")
