"""Filling caches after a failover, most used first; and how often an object was used, as the manifest keeps it (pure but for
the thread that carries it out).

What a manifest says of use is a power of two, so that it is written seldom: eight uses, sixteen, and so on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from checkpoint.manifest import Kind, NamedObject

WARM_AFTER = 3.0
"""Seconds from a takeover to the filling of caches: the first answers come first."""
WARMED = 256
"""Objects whose caches are filled at most; the others' when they are asked for."""
NOTED_FROM = 8
"""Uses below this are not noted."""


def rank_of(uses: int) -> int:
    """What the manifest says of so many uses."""
    return uses.bit_length() if uses >= NOTED_FROM else 0


def uses_of(rank: int) -> int:
    """The least number of uses with that rank."""
    return 1 << (rank - 1) if rank > 0 else 0


def warm_order(records: Mapping[str, NamedObject]) -> list[str]:
    """The objects that were cached, most used first, newest of the equally used. Those with a recipe wait until asked for."""
    cached = [
        record
        for record in records.values()
        if record.kind in (Kind.DATAFRAME, Kind.RDD)
        and record.storage_level not in ("", "NONE")
        and record.strategy != "recipe"
    ]
    ordered = sorted(cached, key=lambda record: (record.used, record.version), reverse=True)
    return [record.name for record in ordered[:WARMED]]


class Warming:
    """One round through what `order` names, in a thread of its own that ends with it. `done` of `of`, for those who watch.

    The order is made when the round begins: to know it, all that is stored must be read, for which no takeover waits.
    """

    def __init__(self, order: Callable[[], Sequence[str]], warm: Callable[[str], None]) -> None:
        self._order = order
        self._warm = warm
        self.of = 0
        self.done = 0

    def begin_after(self, seconds: float) -> None:
        """Begin a little later, and return at once."""
        timer = threading.Timer(seconds, self.run)
        timer.daemon = True
        timer.start()

    def run(self) -> None:
        """All of them, one after the other."""
        names = self._order()
        self.of = len(names)
        for name in names:
            self._warm(name)
            self.done += 1
