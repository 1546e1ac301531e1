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

FINAL_JOB_STATES: Final = frozenset(state for state in JobState if state.final)
"""Jobs that have ended."""

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

LIVING_CONTEXT_STATES: Final = frozenset(state for state in ContextState if not state.final)

FINAL_CONTEXT_STATES: Final = frozenset(state for state in ContextState if state.final)


class IllegalMove(ValueError):
    """A move that is in no table was asked for: a fault of the asking code, never of a client."""


def job_end_sources(to: JobState, among: Collection[JobState]) -> frozenset[JobState]:
    """Those of `among` from which a job may end in `to`. Raises IllegalMove when there is none or it is no end."""
    if not to.final:
        raise IllegalMove(f"a job does not end in {to}")
    return _sources(JOB_MOVES, "job", to, among)


def context_sources(to: ContextState, among: Collection[ContextState]) -> frozenset[ContextState]:
    """Those of `among` from which a context may move to `to`. Raises IllegalMove when there is none."""
    return _sources(CONTEXT_MOVES, "context", to, among)


def _sources(
    moves: Mapping[_State, frozenset[_State]], what: str, to: _State, among: Collection[_State]
) -> frozenset[_State]:
    sources = frozenset(state for state in among if to in moves[state])
    if not sources:
        named = " or ".join(sorted(among)) or "no state at all"
        raise IllegalMove(f"a {what} cannot move from {named} to {to}")
    return sources
