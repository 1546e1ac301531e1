"""What happens in a run: values that a seed makes, and that a file can keep. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from jobserver.contexts.fail_points import Point

SERVERS = ("s1", "s2", "s3")
CONTEXTS = ("c1", "c2")


class What(StrEnum):
    """A fault. The target is a server, a context (its owner, its driver, both), or nothing."""

    KILL_SERVER = "kill server"
    KILL_OWNER = "kill owner"
    KILL_DRIVER = "kill driver"
    KILL_BOTH = "kill owner and driver"
    LEAVE = "leave"
    FREEZE_SERVER = "freeze server"
    FREEZE_OWNER = "freeze owner"
    FREEZE_DRIVER = "freeze driver"
    FREEZE_BOTH = "freeze owner and driver"
    CUT_ZOOKEEPER = "cut from ZooKeeper"
    CUT_SQL = "cut from SQL"
    CUT_FILES = "cut from the checkpoint store"
    CUT_PEER = "cut from the next server"
    RESET_PEER = "reset from the next server"
    RESET_MACHINE = "reset machine from the next one"
    RESET_OWNER = "reset owner from all other servers"
    LONE_OWNER = "leave the owner its driver and SQL"
    FULL_QUEUE = "accept no links"
    CUT_DRIVER = "cut owner from driver"
    CUT_PAIR = "cut owner and driver from ZooKeeper and the other servers"
    CUT_PAIR_FROM_SQL = "cut owner and driver from all but the checkpoint store"
    ISOLATE = "isolate machine"
    ISOLATE_OWNER = "isolate the owner's machine"
    ZOOKEEPER_DOWN = "ZooKeeper down"
    SQL_DOWN = "SQL down"
    FILES_DOWN = "checkpoint store down"
    WIPE_ZOOKEEPER = "wipe ZooKeeper"
    SWITCHOVER = "switchover"
    SWITCHOVER_KEEPING = "switchover, driver kept"
    DRAIN = "drain"
    EXPIRE = "expire session"
    DELAY_ADOPT = "kill owner, and delay the next adopt"
    LOSE_ADOPT = "lose the reply to adopt"
    LOSE_ACTIVATE = "lose the reply to activate"
    KILL_WAITING = "kill the drivers that wait"
    FREEZE_WAITING = "freeze the drivers that wait"
    LOSE_ELECTION = "lose the reply to an election"
    SQL_LOSES = "SQL loses replies"
    SQL_LATE = "SQL writes late"
    FILES_FAIL = "checkpoint writes fail"
    FILES_SLOW = "checkpoint store slow"
    STOP_CONTEXT = "stop context"


class Harm(StrEnum):
    """What happens at a fail point of a takeover (`jobserver/contexts/fail_points.py`)."""

    END_SERVER = "the server ends"
    END_DRIVER = "the driver ends"
    END_BOTH = "server and driver end"
    FREEZE = "the server freezes"
    CUT_ZOOKEEPER = "the server is cut from ZooKeeper"
    CUT_SQL = "the server is cut from SQL"
    CUT_DRIVER = "the server is cut from drivers elsewhere"
    CUT_FILES = "the server is cut from the checkpoint store"


OF_CONTEXTS = (
    What.KILL_OWNER,
    What.KILL_DRIVER,
    What.KILL_BOTH,
    What.FREEZE_OWNER,
    What.FREEZE_DRIVER,
    What.FREEZE_BOTH,
    What.SWITCHOVER,
    What.SWITCHOVER_KEEPING,
    What.CUT_DRIVER,
    What.CUT_PAIR,
    What.CUT_PAIR_FROM_SQL,
    What.ISOLATE_OWNER,
    What.RESET_OWNER,
    What.LONE_OWNER,
    What.DELAY_ADOPT,
    What.LOSE_ADOPT,
    What.LOSE_ACTIVATE,
)
"""Faults whose target is a context: whoever owns or runs it at that moment."""

OF_NOBODY = (
    What.WIPE_ZOOKEEPER,
    What.KILL_WAITING,
    What.FREEZE_WAITING,
    What.ZOOKEEPER_DOWN,
    What.SQL_DOWN,
    What.FILES_DOWN,
    What.LOSE_ELECTION,
    What.SQL_LOSES,
    What.SQL_LATE,
    What.FILES_FAIL,
    What.FILES_SLOW,
)

TWO_OWNERS = (What.CUT_PAIR, What.CUT_PAIR, What.CUT_PAIR_FROM_SQL, What.FREEZE_BOTH, What.FREEZE_OWNER)
"""Faults that leave an owner behind that does not know yet: the fences are for these, so they come often and long."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Begins `at` and lasts so many seconds; a killed server is started again after them."""

    at: float
    what: What
    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Crash:
    """At the `nth` time (from 1) that a takeover reaches the point after the start; what it breaks is repaired in time."""

    point: str
    harm: Harm
    nth: int = 1
    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """A client's wish, sent first to `server`, with a key if `keyed`; `kill_after` seconds it is killed (0: never)."""

    at: float
    server: str
    context: str | None
    main: str
    sync: bool
    wait: float
    keyed: bool = True
    max_attempts: int = 3
    on_failover: str = "rerun"
    kill_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. `seed` decides all that is left: latencies, start times, which writes go wrong.

    `one_host`: all servers are on one machine; `sharing` are those that share one otherwise.
    """

    seed: int
    contexts: tuple[str, ...]
    one_host: bool
    warm: int
    max_jobs: int
    broken_starts: float
    faults: tuple[Fault, ...]
    requests: tuple[Request, ...]
    hot: bool = False
    crashes: tuple[Crash, ...] = ()
    sharing: tuple[str, ...] = ()

    @property
    def standby(self) -> str:
        """What servers keep ready."""
        return "hot" if self.hot else "warm" if self.warm else "cold"

    @property
    def seconds(self) -> float:
        """From the first request to healing."""
        ends = [fault.at + min(fault.seconds, 8.0) for fault in self.faults]
        return max([request.at for request in self.requests] + ends, default=0.0) + 1.0


def scenario_of(seed: int, often: tuple[What, ...] = TWO_OWNERS, share: float = 0.25) -> Scenario:
    """The scenario of a seed; every one of them is fair: what it breaks, healing repairs. `share` of its faults are `often`."""
    random = Random(f"scenario {seed}")
    contexts = CONTEXTS[: random.choice((1, 1, 2))]
    return Scenario(
        seed=seed,
        contexts=contexts,
        one_host=random.random() < 0.4,
        warm=random.choice((0, 0, 1)),
        max_jobs=random.choice((1, 2, 8)),
        broken_starts=random.choice((0.0, 0.0, 0.1)),
        faults=_faults(random, contexts, often, share),
        requests=_requests(random, contexts),
        hot=random.random() < 0.3,
        crashes=_crashes(random),
        sharing=random.choice(((), (), SERVERS[:2])),
    )


def _crashes(random: Random) -> tuple[Crash, ...]:
    """A third of the runs has takeovers that are broken in the middle."""
    if random.random() < 0.67:
        return ()
    return tuple(
        Crash(
            random.choice(tuple(Point)),
            random.choice((Harm.END_SERVER, *Harm)),
            random.choice((1, 1, 2)),
            round(random.choice((0.5, 3.0, 8.0)) * random.uniform(0.5, 1.5), 3),
        )
        for _ in range(random.choice((1, 1, 2)))
    )


def _faults(
    random: Random, contexts: Sequence[str], often: tuple[What, ...], share: float
) -> tuple[Fault, ...]:
    """Some come in bursts: it is the second fault during the failover of the first that finds something."""
    faults, at = [], random.uniform(0.0, 2.0)
    for _ in range(random.randint(1, 6)):
        faults.append(_fault(random, contexts, at, often, share))
        at += random.choice((random.uniform(0.0, 0.5), random.uniform(0.5, 6.0)))
    return tuple(faults)


def _fault(
    random: Random, contexts: Sequence[str], at: float, often: tuple[What, ...], share: float
) -> Fault:
    superseding = random.random() < share
    what = random.choice(often if superseding else tuple(What))
    if what is What.STOP_CONTEXT and random.random() < 0.5:
        what = What.KILL_BOTH
    if what in OF_CONTEXTS or what is What.STOP_CONTEXT:
        target = random.choice(contexts)
    else:
        target = "" if what in OF_NOBODY else random.choice(SERVERS)
    seconds = random.choice((5.0, 8.0) if superseding else (0.3, 2.0, 5.0, 9.0)) * random.uniform(0.5, 1.5)
    return Fault(round(at, 3), what, target, round(seconds, 3))


def _requests(random: Random, contexts: Sequence[str]) -> tuple[Request, ...]:
    requests = [_request(random, contexts) for _ in range(random.randint(6, 14))]
    return tuple(sorted(requests, key=lambda request: request.at))


def _request(random: Random, contexts: Sequence[str]) -> Request:
    main = random.choice(_MAINS) if random.random() < 0.95 else "die"
    return Request(
        at=round(random.uniform(0.0, 10.0), 3),
        server=random.choice(SERVERS),
        context=random.choice(contexts) if random.random() < 0.95 else None,
        main=main.replace("?", random.choice(("a", "b"))),
        sync=random.random() < 0.6,
        wait=round(random.choice((1.0, 10.0, 30.0)), 3),
        keyed=random.random() < 0.9,
        max_attempts=random.choice((1, 3, 3)),
        on_failover=random.choice(("rerun", "rerun", "rerun", "fail")),
        kill_after=random.uniform(0.05, 4.0) if random.random() < 0.1 else 0.0,
    )


_MAINS = (
    "add ?",
    "add ?",
    "once ?",
    "work ?",
    "work ?",
    "read ?",
    "read ?",
    "late l",
    "late l",
    "sleep 0.5",
    "sleep 3",
    "fail",
)


def to_json(scenario: Scenario) -> str:
    return json.dumps(asdict(scenario), indent=1) + "\n"


def from_json(text: str) -> Scenario:
    plain: dict[str, Any] = json.loads(text)
    faults = tuple(Fault(**{**fault, "what": What(fault["what"])}) for fault in plain["faults"])
    requests = tuple(Request(**request) for request in plain["requests"])
    crashes = tuple(Crash(**{**one, "harm": Harm(one["harm"])}) for one in plain.get("crashes", ()))
    contexts = tuple(plain["contexts"])
    values = {"contexts": contexts, "faults": faults, "requests": requests, "crashes": crashes}
    values["sharing"] = tuple(plain.get("sharing", ()))
    return Scenario(**{**plain, **values})


def kept(folder: Path) -> dict[str, Scenario]:
    """The scenarios that once found something, by file name."""
    return {path.stem: from_json(path.read_text()) for path in sorted(folder.glob("*.json"))}
