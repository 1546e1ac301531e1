"""The ownership machine: one context as one server sees it. Events in; next state, actions and one sentence out.

Pure: no clock, no I/O, no randomness. The shell (`jobserver/contexts/keeper.py`) carries the actions out, one piece of
work at a time, and feeds what happened back. `TABLE` is the machine: a pair that is not in it changes nothing.

Order of a takeover (design 4.4): elect, grant, adopt; only when there is nothing to adopt: base (marker, newest manifest,
pin), start a driver; then always plan the jobs and open the gate. An epoch that a driver may have been told, without its
confirmation, is spent: the next one is granted before another driver is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from ha.actions import (
    Action,
    Adopt,
    AskIncumbent,
    CloseGate,
    Elect,
    EndContext,
    EndDriver,
    Grant,
    HandOver,
    MakeBase,
    OpenGate,
    PlanJobs,
    Quiesce,
    Release,
    Resume,
    StartDriver,
    StepDown,
    Wait,
)
from ha.coordination import OwnerNode
from ha.events import (
    Adopted,
    AdoptFailed,
    BaseReady,
    ContextEnded,
    CoordinationSilent,
    DriverLost,
    DriverReady,
    ElectionLost,
    ElectionWon,
    Event,
    Granted,
    GrantRefused,
    IncumbentAnswered,
    IncumbentSilent,
    JobsPlanned,
    MoveAsked,
    MoveFailed,
    OwnerDead,
    OwnerSeen,
    OwnerVanished,
    Quiet,
    StartFailed,
    Superseded,
    TakeOverAsked,
    WaitOver,
    Wanted,
    WorkFailed,
)

START_TRIES = 3
"""Drivers that may fail to start in one takeover before the server gives the context back."""
ADOPT_TRIES = 2
"""Times a living driver is asked before it is replaced."""
BACK_OFF = 2.0
"""Seconds before a server that gave a context back tries again."""


class Phase(StrEnum):
    """What this server is doing about the context."""

    WATCHING = "watching"  # somebody else's, or nobody's concern yet
    WAITING = "waiting"  # nobody owns it; a better-ranked standby may be quicker
    ASKING = "asking"  # the vanishing was not witnessed: is the recorded owner alive?
    ELECTING = "electing"
    GRANTING = "granting"
    ADOPTING = "adopting"
    BASING = "basing"
    STARTING = "starting"
    PLANNING = "planning"
    OWNING = "owning"  # the gate is open
    QUIESCING = "quiescing"  # owning; a planned move: jobs end, everything is sealed
    HANDING = "handing"  # owning; the next owner was asked to take over
    RECLAIMING = "reclaiming"  # owning, and the owner node has to be made again after a lost session
    ENDED = "ended"  # the context is in a final state


@dataclass(frozen=True, slots=True)
class Ownership:
    """The machine's state. `epoch` is ours when above 0 and the phase is past GRANTING.

    `adopt`: the next takeover may take the living driver; while HANDING: the next owner's may. `tired`: this server gave
    the context back and has not opened its gate since, so that the vanishing of its own node is no reason to hurry.
    `handed`: a living owner hands the context over, and keeps it where that comes to nothing.
    """

    phase: Phase = Phase.WATCHING
    epoch: int = 0
    adopt: bool = True
    adopt_tries: int = 0
    start_tries: int = 0
    dead: OwnerNode | None = None
    tired: bool = False
    handed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from an event: the state, what to do in order, and why in one sentence."""

    state: Ownership
    actions: tuple[Action, ...]
    because: str


def step(state: Ownership, event: Event) -> Decision:
    """The next state. An event that means nothing in this phase changes nothing and asks for nothing."""
    rule = TABLE.get((state.phase, type(event)))
    if rule is None:
        return Decision(state, (), f"{type(event).__name__} means nothing while {state.phase}")
    return rule(state, event)


# Rules


def _vanished(state: Ownership, event: OwnerVanished) -> Decision:
    if not event.witnessed:
        asking = replace(state, phase=Phase.ASKING, dead=None, handed=False)
        return Decision(
            asking,
            (AskIncumbent(),),
            "the owner node is gone, but not before our eyes: ask the recorded owner",
        )
    waiting = replace(state, phase=Phase.WAITING, dead=None, handed=False)
    delay = max(event.delay, BACK_OFF) if state.tired else event.delay
    return Decision(waiting, (Wait(delay),), f"the owner node went: our turn is in {delay:g} s")


def _dead(state: Ownership, event: OwnerDead) -> Decision:
    """Several ways may prove one death; who waits already goes on waiting, or each proof would put its turn off."""
    if state.phase is Phase.WAITING and state.dead == event.node:
        return Decision(state, (), f"{event.node.server} is proven dead once more: our turn stays when it is")
    waiting = replace(state, phase=Phase.WAITING, dead=event.node, handed=False)
    return Decision(
        waiting, (Wait(event.delay),), f"{event.node.server} is proven dead: our turn is in {event.delay:g} s"
    )


def _elect(state: Ownership, event: Event) -> Decision:
    electing = replace(state, phase=Phase.ELECTING)
    return Decision(electing, (Elect(state.dead),), "nobody owns the context: stand for election")


def _owner_seen(state: Ownership, event: OwnerSeen) -> Decision:
    return Decision(Ownership(tired=state.tired), (), f"{event.server} owns the context")


def _incumbent_lives(state: Ownership, event: Event) -> Decision:
    return Decision(Ownership(), (), "the recorded owner is alive and keeps its context")


def _ask_later(state: Ownership, event: WorkFailed) -> Decision:
    return Decision(state, (Wait(BACK_OFF),), f"who is recorded is not known ({event.why}): ask again later")


def _ask_again(state: Ownership, event: Event) -> Decision:
    return Decision(state, (AskIncumbent(),), "ask again who is recorded, and whether it lives")


def _won(state: Ownership, event: Event) -> Decision:
    granting = Ownership(Phase.GRANTING, adopt=state.adopt)
    return Decision(granting, (Grant(),), "elected: ask SQL for the next epoch")


def _lost(state: Ownership, event: Event) -> Decision:
    return Decision(Ownership(tired=state.tired), (), "not elected: leave it to the other")


def _no_election(state: Ownership, event: CoordinationSilent | WorkFailed) -> Decision:
    if state.handed:
        return Decision(Ownership(), (), f"no election ({event.why}): the owner keeps the context")
    waiting = replace(state, phase=Phase.WAITING)
    return Decision(waiting, (Wait(BACK_OFF),), f"no election ({event.why}): try again in {BACK_OFF:g} s")


def _granted(state: Ownership, event: Granted) -> Decision:
    owned = replace(state, epoch=event.epoch)
    if event.driver and state.adopt and state.adopt_tries < ADOPT_TRIES:
        adopting = replace(owned, phase=Phase.ADOPTING, adopt_tries=state.adopt_tries + 1)
        return Decision(adopting, (Adopt(),), f"epoch {event.epoch} is ours: try the driver on record")
    basing = replace(owned, phase=Phase.BASING)
    return Decision(basing, (MakeBase(),), f"epoch {event.epoch} is ours, no driver to adopt: make the base")


def _refused(state: Ownership, event: Event) -> Decision:
    return Decision(
        Ownership(), (StepDown(), Release()), "another server raised the fence: give the node back"
    )


def _adopted(state: Ownership, event: Event) -> Decision:
    return Decision(
        replace(state, phase=Phase.PLANNING), (PlanJobs(),), "the driver took our epoch: plan its jobs"
    )


def _not_adopted(state: Ownership, event: AdoptFailed) -> Decision:
    if event.spent:
        granting = replace(state, phase=Phase.GRANTING)
        return Decision(
            granting, (Grant(),), f"adopt was sent and not confirmed ({event.why}): the epoch is spent"
        )
    basing = replace(state, phase=Phase.BASING, adopt=False)
    return Decision(basing, (MakeBase(),), f"no driver to adopt ({event.why}): make the base")


def _based(state: Ownership, event: Event) -> Decision:
    return Decision(
        replace(state, phase=Phase.STARTING), (StartDriver(),), "the base is pinned: activate a driver"
    )


def _ready(state: Ownership, event: Event) -> Decision:
    return Decision(
        replace(state, phase=Phase.PLANNING), (PlanJobs(),), "the driver confirmed our epoch: plan the jobs"
    )


def _not_started(state: Ownership, event: StartFailed) -> Decision:
    tries = state.start_tries + 1
    if event.hopeless:
        return Decision(
            Ownership(), (EndContext(event.why), StepDown(), Release()), f"no driver can start: {event.why}"
        )
    if tries >= START_TRIES:
        return _give_back(state, f"{tries} drivers failed to start ({event.why})")
    again = replace(state, start_tries=tries, adopt=False)
    if event.spent:
        return Decision(replace(again, phase=Phase.GRANTING), (Grant(),), f"the epoch is spent ({event.why})")
    return Decision(
        replace(again, phase=Phase.STARTING), (StartDriver(),), f"try another driver ({event.why})"
    )


def _give_back(state: Ownership, why: str) -> Decision:
    waiting = Ownership(Phase.WAITING, tired=True)
    return Decision(waiting, (StepDown(), Release(), Wait(BACK_OFF)), f"{why}: give the context back")


def _failed(state: Ownership, event: WorkFailed) -> Decision:
    return _give_back(state, event.why)


def _planned(state: Ownership, event: Event) -> Decision:
    return Decision(
        Ownership(Phase.OWNING, state.epoch), (OpenGate(),), "every job has its decision: open the gate"
    )


def _driver_lost(state: Ownership, event: DriverLost) -> Decision:
    granting = Ownership(Phase.GRANTING, state.epoch, adopt=False, start_tries=state.start_tries)
    return Decision(
        granting, (CloseGate(), Grant()), f"the driver is lost ({event.why}): next epoch, next driver"
    )


def _driver_lost_in_plan(state: Ownership, event: DriverLost) -> Decision:
    if state.start_tries + 1 >= START_TRIES:
        return _give_back(state, f"drivers die before the gate opens ({event.why})")
    return _driver_lost(replace(state, start_tries=state.start_tries + 1), event)


def _superseded(state: Ownership, event: Superseded) -> Decision:
    return Decision(Ownership(), (StepDown(), Release()), f"superseded ({event.why}): step down")


def _displaced(state: Ownership, event: OwnerSeen) -> Decision:
    return Decision(Ownership(), (StepDown(),), f"{event.server} holds the owner node: step down")


def _asked_to_take_over(state: Ownership, event: TakeOverAsked) -> Decision:
    electing = Ownership(Phase.ELECTING, adopt=event.adopt, dead=event.node, handed=True)
    how = "with its driver" if event.adopt else "from its checkpoint"
    return Decision(electing, (Elect(event.node),), f"{event.node.server} hands the context over, {how}")


def _move(state: Ownership, event: MoveAsked) -> Decision:
    if event.keep_driver:
        handing = replace(state, phase=Phase.HANDING, adopt=True)
        return Decision(
            handing,
            (HandOver(event.to, adopt=True),),
            f"asked to move to {event.to}, which adopts the driver",
        )
    quiescing = replace(state, phase=Phase.QUIESCING, adopt=False)
    why = f"asked to move to {event.to}: let jobs end for {event.grace:g} s, then seal"
    return Decision(quiescing, (Quiesce(event.to, event.grace),), why)


def _quiet(state: Ownership, event: Quiet) -> Decision:
    handing = replace(state, phase=Phase.HANDING)
    return Decision(
        handing,
        (HandOver(event.to, adopt=False),),
        f"nothing runs and all is sealed: hand over to {event.to}",
    )


def _not_moved(state: Ownership, event: MoveFailed | WorkFailed) -> Decision:
    return Decision(
        Ownership(Phase.OWNING, state.epoch),
        (Resume(),),
        f"the context is not moved ({event.why}): go on here",
    )


def _handed_over(state: Ownership, event: OwnerSeen) -> Decision:
    actions: tuple[Action, ...] = (StepDown(),) if state.adopt else (EndDriver(), StepDown())
    return Decision(Ownership(), actions, f"{event.server} has taken the context over: step down")


def _move_interrupted(state: Ownership, event: Event) -> Decision:
    reclaiming = Ownership(Phase.RECLAIMING, state.epoch)
    return Decision(
        reclaiming,
        (Resume(), Elect(None)),
        "our owner node is gone in the middle of a move: make it again, stay",
    )


def _reclaim(state: Ownership, event: Event) -> Decision:
    reclaiming = replace(state, phase=Phase.RECLAIMING)
    return Decision(
        reclaiming, (Elect(None),), "our owner node is gone with its session: make it again, keep the epoch"
    )


def _reclaimed(state: Ownership, event: Event) -> Decision:
    return Decision(
        replace(state, phase=Phase.OWNING), (), "our owner node stands again; nothing else changed"
    )


def _reclaim_later(state: Ownership, event: CoordinationSilent | WorkFailed) -> Decision:
    return Decision(state, (Wait(BACK_OFF),), f"no election ({event.why}): go on serving, try again")


def _reclaim_again(state: Ownership, event: Event) -> Decision:
    return Decision(state, (Elect(None),), "try again to make our owner node")


def _reclaim_lost(state: Ownership, event: Event) -> Decision:
    return Decision(Ownership(), (StepDown(),), "another server was elected meanwhile: step down")


def _ended(state: Ownership, event: Event) -> Decision:
    return Decision(Ownership(Phase.ENDED), (StepDown(), Release()), "the context has ended")


Rule = Callable[[Ownership, "Event"], Decision]

_TAKING_OVER = (Phase.GRANTING, Phase.ADOPTING, Phase.BASING, Phase.STARTING, Phase.PLANNING)
_MOVING = (Phase.QUIESCING, Phase.HANDING)
_HOLDING = (*_TAKING_OVER, Phase.OWNING, *_MOVING, Phase.RECLAIMING)


def _table() -> dict[tuple[Phase, type], Rule]:
    rules: list[tuple[tuple[Phase, ...], type, Callable[..., Decision]]] = [
        ((Phase.WATCHING, Phase.WAITING, Phase.ASKING), OwnerVanished, _vanished),
        ((Phase.WATCHING, Phase.WAITING), OwnerDead, _dead),
        ((Phase.WATCHING, Phase.WAITING), Wanted, _elect),
        ((Phase.WAITING,), WaitOver, _elect),
        ((Phase.WATCHING, Phase.WAITING, Phase.ASKING), OwnerSeen, _owner_seen),
        ((Phase.ASKING,), IncumbentAnswered, _incumbent_lives),
        ((Phase.ASKING,), IncumbentSilent, _elect),
        ((Phase.ASKING,), WorkFailed, _ask_later),
        ((Phase.ASKING,), WaitOver, _ask_again),
        # a late win counts, too: whoever holds the node takes over or gives it back
        ((Phase.ELECTING, Phase.WATCHING, Phase.WAITING, Phase.ASKING), ElectionWon, _won),
        ((Phase.ELECTING,), ElectionLost, _lost),
        ((Phase.ELECTING,), CoordinationSilent, _no_election),
        ((Phase.ELECTING,), WorkFailed, _no_election),
        ((Phase.GRANTING,), Granted, _granted),
        ((Phase.GRANTING,), GrantRefused, _refused),
        ((Phase.ADOPTING,), Adopted, _adopted),
        ((Phase.ADOPTING,), AdoptFailed, _not_adopted),
        ((Phase.BASING,), BaseReady, _based),
        ((Phase.STARTING,), DriverReady, _ready),
        ((Phase.STARTING,), StartFailed, _not_started),
        ((Phase.PLANNING,), JobsPlanned, _planned),
        ((Phase.PLANNING,), DriverLost, _driver_lost_in_plan),
        ((Phase.OWNING, *_MOVING, Phase.RECLAIMING), DriverLost, _driver_lost),
        ((Phase.WATCHING, Phase.WAITING), TakeOverAsked, _asked_to_take_over),
        ((Phase.OWNING,), MoveAsked, _move),
        ((Phase.QUIESCING,), Quiet, _quiet),
        (_MOVING, MoveFailed, _not_moved),
        (_MOVING, WorkFailed, _not_moved),
        (_MOVING, OwnerVanished, _move_interrupted),
        ((Phase.OWNING,), OwnerVanished, _reclaim),
        ((Phase.RECLAIMING,), ElectionWon, _reclaimed),
        ((Phase.RECLAIMING,), ElectionLost, _reclaim_lost),
        ((Phase.RECLAIMING,), CoordinationSilent, _reclaim_later),
        ((Phase.RECLAIMING,), WorkFailed, _reclaim_later),
        ((Phase.RECLAIMING,), WaitOver, _reclaim_again),
        (_TAKING_OVER, WorkFailed, _failed),
        (tuple(phase for phase in _HOLDING if phase is not Phase.HANDING), OwnerSeen, _displaced),
        ((Phase.HANDING,), OwnerSeen, _handed_over),
        (_HOLDING, Superseded, _superseded),
        (tuple(phase for phase in Phase if phase is not Phase.ENDED), ContextEnded, _ended),
    ]
    return {(phase, event): rule for phases, event, rule in rules for phase in phases}


TABLE: dict[tuple[Phase, type], Rule] = _table()
"""The machine: (phase, event) to the rule that decides."""
