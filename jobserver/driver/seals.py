"""Sealing and publishing named objects, as one step in a thread that no kill reaches: memory and manifest do not part.

Under `sync` readers see a version only after the manifest that holds it is sealed; an async one is sealed later (`late`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from checkpoint.contents import Changes
from checkpoint.errors import CheckpointError
from checkpoint.manifest import NamedObject, Progress
from jobserver.driver.held import Held, Shelf
from jobserver.driver.jobthreads import RunningAttempt, current
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.late_writes import AsyncLimits, LateWrites
from jobserver.driver.turns import Turn
from jobserver.driver.versions import Versions
from jobserver.driver.warming import rank_of

log = logging.getLogger(__name__)


class Seals:
    """All seals of one context's objects. `journal` is None when the driver has no checkpoint; then it only publishes.

    `late`: async objects that are not sealed yet.
    """

    def __init__(
        self, versions: Versions, shelf: Shelf, journal: Journal | None, sealers: Keeper, limits: AsyncLimits
    ) -> None:
        self._versions = versions
        self._shelf = shelf
        self._journal = journal
        self._sealers = sealers
        self.late = LateWrites(
            limits, self.write_late, self._release, journal.check_store if journal else _no_store
        )

    # what callers wait for; each raises what its seal raises

    def seal(
        self,
        turns: Mapping[str, Turn],
        made: list[Held],
        progress: Mapping[str, Progress],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Seal and publish new versions, and progress with them, in one manifest. See `_under` for `turns` and `failed`."""
        user = current()
        self._under(turns, lambda: self._seal_and_publish(made, progress, user), failed)

    def seal_removal(self, name: str, turn: Turn, free: bool) -> None:
        """Take an object out of the manifest and of memory; with `free`, free its cache once its last user is gone."""
        self._under({name: turn}, lambda: self._remove(name, free))

    def seal_rebuilt(self, held: Held, failed: Callable[[], None]) -> None:
        """Seal and publish what was made again, for the thread that has the turn and is no job's: no kill reaches it."""
        try:
            self._sealers.submit(lambda: self._seal_and_publish([held], {})).result()
        except Exception:
            failed()
            raise

    def show_rebuilt(self, held: Held) -> None:
        """Let readers see what was made again of a record that stays as it is."""
        self._sealers.submit(lambda: self._publish(held)).result()

    # what goes on behind their backs

    def note_uses(self, used: Sequence[Held]) -> None:
        """Tell the manifest how much objects are used, but for those that somebody builds right now: there will be more use."""
        versions, noted = self._versions, list[tuple[Held, NamedObject]]()
        with versions.lock:
            for held in used:
                if versions.held(held.name) is not held or not versions.turns.is_free(held.name):
                    continue
                if held.record is not None and held.record.used != rank_of(held.uses):
                    versions.turns.begin(held.name)
                    noted.append((held, replace(held.record, used=rank_of(held.uses))))
        try:
            if self._journal and noted:
                self._journal.commit(Changes(put=[record for _, record in noted]))
                with versions.lock:
                    versions.keep(noted)
        except CheckpointError as error:
            log.warning(
                "the use of named object %r (of %d) was not noted: %s", noted[0][0].name, len(noted), error
            )
        finally:
            for held, _ in noted:
                versions.end_turn(held.name)

    def write_late(self, held: Held) -> bool:
        """Write and seal an async object, unless it was replaced. Until then the older version stays sealed.

        False: it has to wait, as the name is being built.
        """
        assert self._journal is not None
        versions = self._versions
        with versions.lock:
            if versions.held(held.name) is not held:
                return True
            if not versions.turns.is_free(held.name):
                return False  # before anything is written, since a build that goes on may take long
        record = self._shelf.write(held)
        with versions.lock:
            # no other version may be sealed between the look and the seal
            if not versions.turns.is_free(held.name):
                return False
            versions.turns.begin(held.name)
        try:
            if versions.held(held.name) is not held:
                return True
            self._journal.commit(Changes(put=[record]))
            with versions.lock:
                versions.keep([(held, record)])
        finally:
            versions.end_turn(held.name)
        return True

    def _release(self, held: Held) -> None:
        """Nothing is written under its version any more: what lies there and is not sealed, sweeps may remove."""
        if self._journal:
            self._journal.release(held.version)

    # in a keeper's thread

    def _under(
        self, turns: Mapping[str, Turn], seal: Callable[[], None], failed: Callable[[], None] = lambda: None
    ) -> None:
        """Run a seal in a keeper's thread and wait for it. Raises what it raises.

        The turns go over to it, and end with it: a kill of the caller ends neither, so nobody can seal a later version
        before it, which it would then bury. `failed`: is called when nothing was sealed, or it is not known; also when the
        caller was killed before the seal began, though it may go on, as nothing stops code that swallows a kill.
        """
        self._sealers.submit(partial(self._sealed_under, turns, seal, failed, current())).result()

    def _sealed_under(
        self,
        turns: Mapping[str, Turn],
        seal: Callable[[], None],
        failed: Callable[[], None],
        attempt: RunningAttempt | None,
    ) -> None:
        versions = self._versions
        with versions.lock:
            theirs = [name for name, turn in turns.items() if versions.turns.of(name) is turn]
            mine = len(theirs) == len(turns) and not (attempt is not None and attempt.killing)
            for turn in turns.values() if mine else ():
                turn.thread = threading.current_thread()
        if not mine:
            for name in theirs:
                versions.end_turn(name)
            failed()
            raise RuntimeError(
                f"the job was killed before {', '.join(turns) or 'its progress'} could be sealed"
            )
        try:
            seal()
        except Exception as error:
            for turn in turns.values():
                turn.error = error  # for those who wait, before the turn ends
            failed()
            raise
        finally:
            for name in turns:
                versions.end_turn(name)

    def _seal_and_publish(
        self, made: list[Held], progress: Mapping[str, Progress], user: RunningAttempt | None = None
    ) -> None:
        """Seal if there is something to seal, then let readers see it, `user` as the first."""
        records = [held.record for held in made if held.record is not None]
        gone = [held.name for held in made if not held.options.kept and held.name in self._versions.stored]
        if self._journal and (records or progress or gone):
            self._journal.commit(Changes(put=records, remove=gone, progress=progress))
        with self._versions.lock:
            self._versions.publish(made, user)
        for held in made:
            if self._journal and held.record is None and held.options.kept:
                self.late.add(held)
                continue
            self.late.drop(held.name)
            if not held.options.kept:
                self._release(held)

    def _remove(self, name: str, free: bool) -> None:
        if self._journal and name in self._versions.stored:
            self._journal.commit(Changes(remove=[name]))
        with self._versions.lock:
            self._versions.forget(name, free)
        self.late.drop(name)

    def _publish(self, held: Held) -> None:
        with self._versions.lock:
            self._versions.publish([held])
        self.late.drop(held.name)
        self._release(held)


def _no_store() -> None:
    """Without a checkpoint there is none that could be in trouble."""
