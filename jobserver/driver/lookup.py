"""Finding a named object: in memory, sealed and to be brought back, or being built by somebody else, for whom to wait.

Readers of an existing object never wait for its update. One with a recipe is built again when it is first asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from checkpoint.manifest import NamedObject
from jobserver.driver.held import Held
from jobserver.driver.jobthreads import current
from jobserver.driver.restoration import Restoration
from jobserver.driver.turns import Turn, shared_failure
from jobserver.driver.versions import Versions

RESTORE_LIMIT = 60.0
"""Seconds that SQL waits while another job brings back a stored object that both mention."""
BeginRebuild = Callable[[str, NamedObject, Turn], None]
"""Begins to build an object by its recipe, in a thread of its own to which the turn goes over; returns at once."""


class Lookup:
    """Finds versions for their readers. `rebuild` is None where recipes cannot be run."""

    def __init__(self, versions: Versions, restoration: Restoration, rebuild: BeginRebuild | None) -> None:
        self._versions = versions
        self._restoration = restoration
        self._rebuild = rebuild

    def find(self, name: str, timeout: float) -> Held | None:
        """The version in memory, restored if need be; None if there is none and nobody builds one.

        Its caller's attempt uses it from now on. Raises TimeoutError, ObjectDamaged, and what the build of another raised.
        """
        versions = self._versions
        end = time.monotonic() + timeout
        waited_for: Turn | None = None
        while True:
            with versions.lock:
                while True:
                    held = versions.held(name)
                    if held is not None:
                        versions.use(held, current())
                        return held
                    if waited_for is not None and waited_for.error is not None:
                        raise shared_failure(name, waited_for.error)
                    own = versions.turns.of(name)
                    if own is not None and own.mine and own.updating:
                        break
                    if versions.turns.is_free(name):
                        break
                    waited_for = versions.turns.of(name)
                    versions.turns.wait(name, end)
                record = versions.stored.get(name)
                if record is None:
                    return None
                if own is not None and own.mine:
                    return self._restoration.older_for_update(name, record)
                turn = versions.turns.begin(name)
            if record.strategy != "recipe":
                return self._restoration.restore(name, record)
            self.begin_rebuild(name, record, turn)
            waited_for = turn

    def find_frame(self, lower_name: str) -> Held | None:
        """The named DataFrame that SQL would mean by a name in lower case; never waits for a build."""
        with self._versions.lock:
            name = self._versions.frame_spelt(lower_name)
            if name is None:
                return None
            turn = self._versions.turns.of(name)
        if turn is not None and turn.mine and not turn.updating:
            return None
        return self.find(name, RESTORE_LIMIT)

    def find_or_take_turn(self, name: str, timeout: float) -> Held | Turn:
        """The object, or the turn of the caller, who has to build it."""
        versions = self._versions
        end = time.monotonic() + timeout
        while True:
            held = self.find(name, max(end - time.monotonic(), 0))
            if held is not None:
                return held
            with versions.lock:
                if not versions.known(name) and versions.turns.is_free(name):
                    return versions.turns.begin(name)

    def begin_rebuild(self, name: str, record: NamedObject, turn: Turn) -> None:
        """Have it built by its recipe, or its files read again, under a turn that ends with that."""
        try:
            if self._rebuild is None:
                raise RuntimeError(f"named object {name!r} has a recipe, which cannot be run here")
            self._rebuild(name, record, turn)
        except BaseException:
            self._versions.end_turn(name)
            raise
