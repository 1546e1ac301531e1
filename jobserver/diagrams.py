"""The tables of `lifecycle` as pictures in Mermaid. Pure; `ARCHITECTURE.md` holds what these answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TypeVar

from jobserver.lifecycle import CONTEXT_MOVES, JOB_MOVES

_State = TypeVar("_State", bound=StrEnum)


def jobs() -> str:
    """The states of a job."""
    return _state_diagram(JOB_MOVES)


def contexts() -> str:
    """The states of a context."""
    return _state_diagram(CONTEXT_MOVES)


def _state_diagram(moves: Mapping[_State, frozenset[_State]]) -> str:
    return "\n".join(["stateDiagram-v2", *(f"  {line}" for line in _lines(moves))]) + "\n"


def _lines(moves: Mapping[_State, frozenset[_State]]) -> Iterator[str]:
    """The first state of the table is where everything begins; a state without a way out is an end."""
    order = list(moves)
    yield f"[*] --> {order[0]}"
    for state, targets in moves.items():
        yield from (f"{state} --> {target}" for target in sorted(targets, key=order.index))
        if not targets:
            yield f"{state} --> [*]"
