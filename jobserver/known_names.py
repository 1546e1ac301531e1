"""What the names in submissions stood for when this server read them last: a guess, to be confirmed by the very insertion.

Most submissions name a context and a binary that did not change since the one before. What was read then goes into the
offer, and the statement that inserts the job holds only while it is still so (`Metadata.insert_job`): the answer is as if
it had been read now, and the read is saved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from jobserver.addresses import is_address
from jobserver.model import ContextState, References
from jobserver.store.metadata import Metadata

MOST = 1024
"""Submissions of different names that are remembered; the one that was used longest ago goes first."""

_Key = tuple[tuple[str, ...], str | None]


class KnownNames:
    """One per server. Belongs to the event loop."""

    def __init__(self, store: Metadata) -> None:
        self._store = store
        self._known: OrderedDict[_Key, References] = OrderedDict()

    def guess(self, names: Sequence[str], context: str | None) -> References | None:
        """What `read` found before; None where that could not be confirmed, or was refuted."""
        key = (tuple(names), context)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def forget(self, names: Sequence[str], context: str | None) -> None:
        """The guess was refused."""
        self._known.pop((tuple(names), context), None)

    async def read(self, names: Sequence[str], context: str | None) -> References:
        """See `Metadata.references`."""
        found = await self._store.references(names, context)
        if _can_be_confirmed(names, found):
            self._known[tuple(names), context] = found
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return found


def _can_be_confirmed(names: Sequence[str], found: References) -> bool:
    """An insertion confirms one binary at most, and the context by its id, whose name and settings never change.

    What lies at an address is read for each job anyway.
    """
    living = found.context is not None and found.context.state is ContextState.RUNNING
    return living and len(names) <= 1 and None not in found.binaries and not any(map(is_address, names))
