"""What the ownership machine (`ownership`) wants done: its output. Values only; the shell carries them out in order."""

from __future__ import annotations

from dataclasses import dataclass

from ha.coordination import OwnerNode


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer `WaitOver` after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AskIncumbent:
    """Ask the owner recorded in SQL whether it lives."""


@dataclass(frozen=True, slots=True)
class Elect:
    """Run the election; `replace` is a dead owner's node."""

    replace: OwnerNode | None


@dataclass(frozen=True, slots=True)
class Grant:
    """Raise the fence by one and write ourselves in."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hello and adopt the driver on record."""


@dataclass(frozen=True, slots=True)
class MakeBase:
    """Put an end to the old driver if it is ours to kill; marker, base, pin."""


@dataclass(frozen=True, slots=True)
class StartDriver:
    """Activate a hot, warm or new driver on the base."""


@dataclass(frozen=True, slots=True)
class PlanJobs:
    """Record the driver, decide every unfinished job."""


@dataclass(frozen=True, slots=True)
class OpenGate:
    """Jobs may start; publish."""


@dataclass(frozen=True, slots=True)
class CloseGate:
    """No job starts; what runs is left to the fences."""


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Planned move: have `to` make a driver ready, let jobs end for `grace` seconds, close the gate, seal everything."""

    to: str
    grace: float


@dataclass(frozen=True, slots=True)
class HandOver:
    """Ask `to` to replace our owner node by its own; `adopt`: and to adopt our driver."""

    to: str
    adopt: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """The planned move did not happen: the gate opens again."""


@dataclass(frozen=True, slots=True)
class EndDriver:
    """Our driver was left on purpose, with everything sealed: end it."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """Drop the driver's connection without ending it, forget everything held in memory for the context."""


@dataclass(frozen=True, slots=True)
class Release:
    """Give the owner node back."""


@dataclass(frozen=True, slots=True)
class EndContext:
    """The context cannot run: final state ERROR in SQL, guarded."""

    why: str


Action = (
    Wait
    | AskIncumbent
    | Elect
    | Grant
    | Adopt
    | MakeBase
    | StartDriver
    | PlanJobs
    | OpenGate
    | CloseGate
    | Quiesce
    | HandOver
    | Resume
    | EndDriver
    | StepDown
    | Release
    | EndContext
)
