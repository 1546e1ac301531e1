"""The link to one other server, and when its end proves the server's death: events in; next state and actions out. Pure.

Proof is made of three parts, all of them (design 4.2):

1. the link was up and ended by EOF or reset, which is what the kernel of the other side says;
2. a new connection is refused, or meets another life of the server;
3. a second witness: a driver says that this server's connection to it has ended, too (good for its context only), or every
   other announced server was asked and answered, none of them has a link, and one of them at least lost the one it had.

Silence is never a part of it: a link that ends in another way, an attempt to connect that gets no answer, a server that does
not say whether it has a link prove nothing. Nor does a refused connection alone. What is missing is asked for again and
again, ever more rarely, until the link is up or ZooKeeper has removed the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

FIRST_RETRY = 0.05
"""Seconds before the second attempt to connect; each further one waits twice as long as the one before."""
LONGEST_RETRY = 1.0
"""Seconds between two attempts to connect, at most."""


class LinkPhase(StrEnum):
    """What is known of one life of another server."""

    CONNECTING = "connecting"  # no link that could have ended: nothing can be proven from here
    LINKED = "linked"
    ENDED = "ended"  # by EOF or reset; whether anybody listens there is not known
    SUSPECTED = "suspected"  # ended, and nobody of that life listens there: a second witness is looked for
    DEAD = "dead"  # proven; should that life answer after all (all others were cut off from it), the link is taken up again


class Sight(StrEnum):
    """What a server answers when it is asked for its link to another."""

    LINKED = "linked"
    LOST = "lost"
    NONE = "none"  # it never had one, or has not had one since it looked last: it saw nothing end


@dataclass(frozen=True, slots=True)
class PeerLink:
    """The machine's state. `tries` to connect since the last link; `round` of asking; `told` are contexts already reported."""

    phase: LinkPhase = LinkPhase.CONNECTING
    tries: int = 0
    round: int = 0
    told: frozenset[str] = frozenset()


# Events


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up, and the very life that ZooKeeper announces answered."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The link ended by EOF or reset."""


@dataclass(frozen=True, slots=True)
class TakenDown:
    """The link ended in any other way: the other side said that it goes, or broke the protocol."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A new connection was refused, or ended by the other side before anything was said."""


@dataclass(frozen=True, slots=True)
class OtherLife:
    """A new connection met the same server in another incarnation."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """A new connection was neither: no answer in time, or an answer of somebody else."""


@dataclass(frozen=True, slots=True)
class OthersSaid:
    """What the other servers answered in one round of asking; `silent` of them did not."""

    round: int
    sights: tuple[Sight, ...]
    silent: int


@dataclass(frozen=True, slots=True)
class DriverSaid:
    """The driver of a context says that its connection to this life of the server has ended."""

    round: int
    context_id: str


Event = Connected | Ended | TakenDown | Refused | OtherLife | Unclear | OthersSaid | DriverSaid

# Actions


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect after so many seconds; answer Connected, Refused, OtherLife or Unclear."""

    after: float


@dataclass(frozen=True, slots=True)
class AskOthers:
    """Ask every other announced server for its link; answer OthersSaid with this round."""

    round: int


@dataclass(frozen=True, slots=True)
class AskDrivers:
    """Ask the drivers of the server's contexts; answer DriverSaid with this round for each that lost its owner."""

    round: int


@dataclass(frozen=True, slots=True)
class TellDead:
    """The server is proven dead, for all its contexts."""


@dataclass(frozen=True, slots=True)
class TellOwnerLost:
    """The server is proven dead, as far as this context is concerned."""

    context_id: str


Action = Connect | AskOthers | AskDrivers | TellDead | TellOwnerLost


def begin() -> tuple[PeerLink, tuple[Action, ...]]:
    """A server, or a new life of one, was announced."""
    return PeerLink(), (Connect(0.0),)


def step(state: PeerLink, event: Event) -> tuple[PeerLink, tuple[Action, ...]]:
    """The next state and what to do. An event that means nothing in this phase changes nothing."""
    rule = TABLE.get((state.phase, type(event)))
    return rule(state, event) if rule is not None else (state, ())


def sight_of(state: PeerLink | None) -> Sight:
    """What this server answers when it is asked for its link; None: it knows no such life of that server."""
    match state.phase if state is not None else None:
        case LinkPhase.LINKED:
            return Sight.LINKED
        case LinkPhase.ENDED | LinkPhase.SUSPECTED | LinkPhase.DEAD:
            return Sight.LOST
        case _:
            return Sight.NONE


# Rules

Decided = tuple[PeerLink, tuple[Action, ...]]


def _again(state: PeerLink, phase: LinkPhase) -> tuple[PeerLink, Connect]:
    after = min(LONGEST_RETRY, FIRST_RETRY * 2**state.tries)
    return replace(state, phase=phase, tries=min(state.tries + 1, 16)), Connect(after)


def _up(state: PeerLink, event: Event) -> Decided:
    return PeerLink(LinkPhase.LINKED, round=state.round), ()


def _ended(state: PeerLink, event: Event) -> Decided:
    return replace(state, phase=LinkPhase.ENDED), (Connect(0.0),)


def _look_again(state: PeerLink, event: Event) -> Decided:
    """Nothing is proven, and nothing is taken back: whether the link had ended before is kept."""
    phase = (
        LinkPhase.CONNECTING if state.phase in (LinkPhase.CONNECTING, LinkPhase.LINKED) else LinkPhase.ENDED
    )
    again, connect = _again(state, phase)
    return again, (connect,)


def _rest(state: PeerLink, event: Event) -> Decided:
    again, connect = _again(state, LinkPhase.DEAD)
    return again, (connect,)


def _suspect(state: PeerLink, event: Event) -> Decided:
    asking = replace(state, round=state.round + 1)
    again, connect = _again(asking, LinkPhase.SUSPECTED)
    return again, (AskOthers(again.round), AskDrivers(again.round), connect)


def _others_said(state: PeerLink, event: OthersSaid) -> Decided:
    proven = (
        event.round == state.round
        and event.silent == 0
        and Sight.LOST in event.sights
        and Sight.LINKED not in event.sights
    )
    return (replace(state, phase=LinkPhase.DEAD), (TellDead(),)) if proven else (state, ())


def _driver_said(state: PeerLink, event: DriverSaid) -> Decided:
    if event.round != state.round or event.context_id in state.told:
        return state, ()
    return replace(state, told=state.told | {event.context_id}), (TellOwnerLost(event.context_id),)


def _table() -> dict[tuple[LinkPhase, type], Callable[..., Decided]]:
    searching = (LinkPhase.CONNECTING, LinkPhase.ENDED, LinkPhase.SUSPECTED)
    lost = (LinkPhase.ENDED, LinkPhase.SUSPECTED)
    dead = (LinkPhase.DEAD,)
    rules: list[tuple[tuple[LinkPhase, ...], type, Callable[..., Decided]]] = [
        ((*searching, *dead), Connected, _up),
        ((LinkPhase.LINKED,), Ended, _ended),
        ((LinkPhase.LINKED,), TakenDown, _look_again),
        (lost, Refused, _suspect),
        (lost, OtherLife, _suspect),
        ((LinkPhase.CONNECTING,), Refused, _look_again),
        ((LinkPhase.CONNECTING,), OtherLife, _look_again),
        (searching, Unclear, _look_again),
        (dead, Refused, _rest),
        (dead, OtherLife, _rest),
        (dead, Unclear, _rest),
        ((LinkPhase.SUSPECTED,), OthersSaid, _others_said),
        ((LinkPhase.SUSPECTED,), DriverSaid, _driver_said),
    ]
    return {(phase, event): rule for phases, event, rule in rules for phase in phases}


TABLE: dict[tuple[LinkPhase, type], Callable[..., Decided]] = _table()
"""The machine: (phase, event) to the rule that decides."""
