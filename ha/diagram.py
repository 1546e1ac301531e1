"""The ownership machine as a picture in Mermaid, drawn from its table. Pure; `ARCHITECTURE.md` holds what it answers.

A rule is asked with every kind of state and event that it tells apart, so the picture cannot promise a move that the
machine does not make, or leave one out.
"""

from __future__ import annotations

import itertools
import typing
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields

from ha.coordination import OwnerNode
from ha.events import Event
from ha.ownership import ADOPT_TRIES, START_TRIES, TABLE, Ownership, Phase

_SAMPLES: dict[object, tuple[object, ...]] = {
    bool: (False, True),
    int: (1,),
    float: (0.0,),
    str: ("s1",),
    OwnerNode: (OwnerNode("c", "s1", "i", 1),),
}

_TAKING_OVER: tuple[Phase, ...] = (
    Phase.GRANTING,
    Phase.ADOPTING,
    Phase.BASING,
    Phase.STARTING,
    Phase.PLANNING,
)
_HOLDING: tuple[Phase, ...] = (
    *_TAKING_OVER,
    Phase.OWNING,
    Phase.QUIESCING,
    Phase.HANDING,
    Phase.RECLAIMING,
)
_LIVING: tuple[Phase, ...] = tuple(phase for phase in Phase if phase is not Phase.ENDED)
_GROUPS: dict[str, tuple[Phase, ...]] = {"living": _LIVING, "holding": _HOLDING, "takingover": _TAKING_OVER}
"""Boxes, largest first: an arrow that all phases of a box share starts at the box."""


@dataclass(frozen=True, slots=True, order=True)
class Arrow:
    """One move: where from (a phase or a box), where to, and its label `Event / actions`."""

    source: str
    target: str
    label: str


def mermaid() -> str:
    """The flowchart of the table: boxes around the phases that share arrows, then one line for each arrow."""
    lines = ["flowchart TD", *_boxes()]
    together: dict[tuple[str, str], list[str]] = defaultdict(list)
    for arrow in _grouped(set(arrows())):
        together[arrow.source, arrow.target].append(arrow.label)
    lines += [
        f'  {source} -- "{"<br>".join(labels)}" --> {target}' for (source, target), labels in together.items()
    ]
    return "\n".join(lines) + "\n"


def arrows() -> Iterator[Arrow]:
    """Every move that a rule of the table can decide, repetitions included."""
    for (phase, kind), rule in TABLE.items():
        for state, event in itertools.product(_states(phase), _events(kind)):
            decision = rule(state, event)
            actions = ", ".join(type(action).__name__ for action in decision.actions)
            label = f"{kind.__name__} / {actions}" if actions else kind.__name__
            yield Arrow(phase.value, decision.state.phase.value, label)


def _states(phase: Phase) -> Iterator[Ownership]:
    """A state of each kind that a rule may tell apart."""
    for adopt, tries, starts in itertools.product((True, False), (0, ADOPT_TRIES), (0, START_TRIES - 1)):
        yield Ownership(phase, 1, adopt, tries, starts)


def _events(kind: type) -> Iterator[Event]:
    hints = typing.get_type_hints(kind)
    for values in itertools.product(*(_SAMPLES[hints[field.name]] for field in fields(kind))):
        yield kind(*values)


def _grouped(plain: set[Arrow]) -> list[Arrow]:
    """The arrows with those of whole boxes drawn once, in the order of the phases."""
    for name, phases in _GROUPS.items():
        for target, label in sorted({(arrow.target, arrow.label) for arrow in plain}):
            shared = {Arrow(phase.value, target, label) for phase in phases}
            if shared <= plain:
                plain = (plain - shared) | {Arrow(name, target, label)}
    order = [*_GROUPS, *(phase.value for phase in Phase)]
    return sorted(
        plain, key=lambda arrow: (order.index(arrow.source), order.index(arrow.target), arrow.label)
    )


def _boxes() -> Iterator[str]:
    yield '  subgraph living["the context lives"]'
    for phase in _LIVING:
        if phase not in _HOLDING:
            yield f"    {phase.value}"
    yield '    subgraph holding["this server holds it"]'
    yield '      subgraph takingover["takeover"]'
    for phase in _TAKING_OVER:
        yield f"        {phase.value}"
    yield "      end"
    for phase in _HOLDING:
        if phase not in _TAKING_OVER:
            yield f"      {phase.value}"
    yield "    end"
    yield "  end"
