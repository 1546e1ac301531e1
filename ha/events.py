"""What happens to a context, as one server hears of it: the input of the ownership machine (`ownership`). Values only."""

from __future__ import annotations

from dataclasses import dataclass

from ha.coordination import OwnerNode


@dataclass(frozen=True, slots=True)
class OwnerVanished:
    """The owner node went. `delay` is this server's rank times the stagger, in seconds."""

    witnessed: bool
    delay: float


@dataclass(frozen=True, slots=True)
class OwnerSeen:
    """Another server holds the owner node."""

    server: str


@dataclass(frozen=True, slots=True)
class OwnerDead:
    """Proof that the owner's process is gone while its node still stands (design 4.2)."""

    node: OwnerNode
    delay: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """A context without owner: new and placed here, or found by the sweep."""


@dataclass(frozen=True, slots=True)
class WaitOver:
    """The delay asked for by `Wait` has passed and nobody was seen."""


@dataclass(frozen=True, slots=True)
class IncumbentAnswered:
    """The owner recorded in SQL is alive and keeps its context."""


@dataclass(frozen=True, slots=True)
class IncumbentSilent:
    """The owner recorded in SQL did not answer within the grace."""


@dataclass(frozen=True, slots=True)
class ElectionWon:
    """This server holds the owner node."""


@dataclass(frozen=True, slots=True)
class ElectionLost:
    """Another one was quicker, or the picture was outdated."""


@dataclass(frozen=True, slots=True)
class CoordinationSilent:
    """The election had no outcome: no answer from ZooKeeper, or a refusal although nobody holds the node."""

    why: str


@dataclass(frozen=True, slots=True)
class Granted:
    """SQL granted the epoch. `driver` tells whether a driver of an earlier epoch is on record."""

    epoch: int
    driver: bool


@dataclass(frozen=True, slots=True)
class GrantRefused:
    """Another server raised the fence first."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The living driver took our epoch."""


@dataclass(frozen=True, slots=True)
class AdoptFailed:
    """`spent`: adopt was sent and not confirmed. Otherwise the driver never heard the epoch."""

    spent: bool
    why: str


@dataclass(frozen=True, slots=True)
class BaseReady:
    """Marker, base and pin are durable."""


@dataclass(frozen=True, slots=True)
class DriverReady:
    """A new driver confirmed our epoch."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """`spent`: activate was sent and not confirmed; `hopeless`: no driver can start with these settings."""

    spent: bool
    hopeless: bool
    why: str


@dataclass(frozen=True, slots=True)
class JobsPlanned:
    """The driver is on record and every unfinished job has its decision."""


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """A dependency failed for as long as the takeover may last."""

    why: str


@dataclass(frozen=True, slots=True)
class DriverLost:
    """EOF, or silence for longer than the driver timeout."""

    why: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """A guarded write or a driver met a higher epoch."""

    why: str


@dataclass(frozen=True, slots=True)
class MoveAsked:
    """An operator wants `to` to own the context. `keep_driver`: it adopts our driver; otherwise its own continues from the
    checkpoint, and running jobs have `grace` seconds to end.
    """

    to: str
    grace: float
    keep_driver: bool


@dataclass(frozen=True, slots=True)
class Quiet:
    """No job runs, none starts, everything is sealed: `to` may take over without a loss."""

    to: str


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """The planned move cannot be made; nothing was lost by trying."""

    why: str


@dataclass(frozen=True, slots=True)
class TakeOverAsked:
    """The owner, whose node this is, hands the context over to us. `adopt`: with its driver."""

    node: OwnerNode
    adopt: bool


@dataclass(frozen=True, slots=True)
class ContextEnded:
    """SQL says: final state."""


Event = (
    OwnerVanished
    | OwnerSeen
    | OwnerDead
    | Wanted
    | WaitOver
    | IncumbentAnswered
    | IncumbentSilent
    | ElectionWon
    | ElectionLost
    | CoordinationSilent
    | Granted
    | GrantRefused
    | Adopted
    | AdoptFailed
    | BaseReady
    | DriverReady
    | StartFailed
    | JobsPlanned
    | WorkFailed
    | DriverLost
    | Superseded
    | MoveAsked
    | Quiet
    | MoveFailed
    | TakeOverAsked
    | ContextEnded
)
