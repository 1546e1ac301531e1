"""The named objects of a context, as its jobs and its operators ask for them. Knows nothing of Spark.

* A name is built by one caller at a time; others wait for it. Readers of an existing object never wait for its update.
* `sync`: readers see a version only after the manifest that holds it is sealed, and it is the written version they see.
* Sealing and publishing are one step in a thread that no kill reaches, so memory and manifest do not part.
* A replaced version stays until the last attempt that was handed it has ended.
* A restored object is only its record until it is first asked for; one with a recipe is then built again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from checkpoint.errors import CheckpointError
from checkpoint.manifest import NamedObject, Progress
from checkpoint.records import Records
from jobserver.driver import warming
from jobserver.driver.builds import Builds
from jobserver.driver.held import Held, Shelf
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.late_writes import AsyncLimits, Lag
from jobserver.driver.lookup import Lookup
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe
from jobserver.driver.restoration import Restoration
from jobserver.driver.seals import Seals
from jobserver.driver.shown import shown_held, shown_record, shown_schema
from jobserver.driver.turns import Turn
from jobserver.driver.versions import Versions
from jobserver.model import AttemptRef

log = logging.getLogger(__name__)

TURN_LIMIT = 60.0
"""Seconds to wait for others' builds where the caller names no limit."""
Rebuild = Callable[["Registry", str, NamedObject, Turn], None]
"""Begins to build an object by its recipe, in a thread of its own to which the turn goes over; returns at once."""


class Registry:
    """All named objects of one context. `journal` is None when the driver has no checkpoint.

    `prepared`: what a standby has restored ahead; used where the version is still the sealed one.
    """

    def __init__(
        self,
        shelf: Shelf,
        journal: Journal | None,
        sealers: Keeper,
        background: Keeper,
        prepared: Mapping[str, Held] | None = None,
        *,
        limits: AsyncLimits | None = None,
        rebuild: Rebuild | None = None,
    ) -> None:
        self._shelf = shelf
        self._journal = journal
        self._background = background
        self._versions = Versions(
            Records.of(journal.objects()) if journal else Records(),
            prepared or {},
            lambda old: background.submit(lambda: shelf.discard(old)),
        )
        self._seals = Seals(self._versions, shelf, journal, sealers, limits or AsyncLimits())
        self._restoration = Restoration(self._versions, shelf, background)
        self._lookup = Lookup(self._versions, self._restoration, partial(rebuild, self) if rebuild else None)
        self._builds = Builds(self._versions, shelf, journal, self._seals, background)
        for held in (prepared or {}).values():
            if held.warm:  # and may be of an older version by now
                background.submit(partial(self.drop_if_replaced, held))
        if self._versions.stored:
            self._restoration.warming.begin_after(warming.WARM_AFTER)
        if journal:
            journal.sweep_due = lambda: (background.submit(self._sweep), None)[1]

    # what jobs read

    def names(self) -> list[str]:
        """All names, sorted."""
        with self._versions.lock:
            return self._versions.names()

    def views(self) -> dict[str, bool]:
        """All names, sorted, and whether each is had without running a recipe."""
        versions = self._versions
        with versions.lock:
            return {
                name: versions.held(name) is not None or versions.stored[name].strategy != "recipe"
                for name in versions.names()
            }

    def get(self, name: str, timeout: float) -> Any:
        """The object, or None. Waits while it is built for the first time. Raises TimeoutError, ObjectDamaged."""
        held = self._lookup.find(name, timeout)
        return None if held is None else self._shelf.hand_out(held)

    def find_frame(self, lower_name: str) -> Held | None:
        """The named DataFrame that SQL would mean by a name in lower case; never waits for a build."""
        return self._lookup.find_frame(lower_name)

    def hold(self, path: str, ref: AttemptRef) -> None:
        """No sweep removes what lies at a path of the context's folder while the attempt runs."""
        with self._versions.lock:
            self._versions.hold(path, ref)

    def drop_if_replaced(self, held: Held) -> None:
        """Free the cache of a version that a standby had cached, if the object has another one by now."""
        self._restoration.drop_if_replaced(held)

    def released_by(self, ref: AttemptRef) -> None:
        """An attempt has ended: what it alone still used of replaced versions is freed."""
        with self._versions.lock:
            free, noted = self._versions.released_by(ref)
        for held in free:
            self._background.submit(partial(self._shelf.discard, held))
        if noted:
            self._background.submit(partial(self._seals.note_uses, noted))

    # what jobs change

    def get_or_create(
        self,
        name: str,
        build: Callable[[], Any],
        options: ObjectOptions,
        timeout: float,
        recipe: Recipe | None = None,
    ) -> Any:
        """The object; built by one caller for all. Raises TimeoutError, or what the build raised."""
        held = self._lookup.find_or_take_turn(name, timeout)
        if isinstance(held, Turn):
            held = self._builds.build({name: build}, {name: options}, {name: held}, recipe=recipe)[0]
        return self._shelf.hand_out(held)

    def update(
        self,
        name: str,
        build: Callable[[], Any],
        options: ObjectOptions,
        timeout: float,
        recipe: Recipe | None = None,
    ) -> Any:
        """Replace the object as one step. Raises TimeoutError while another update takes too long."""
        with self._versions.lock:
            turn = self._versions.turns.take(name, timeout)
        made = self._builds.build({name: build}, {name: options}, {name: turn}, recipe=recipe)
        return self._shelf.hand_out(made[0])

    def update_together(
        self,
        builds: Mapping[str, Callable[[], Any]],
        progress: Mapping[str, Progress],
        recipe: Recipe | None = None,
    ) -> None:
        """Replace several objects and save progress in one manifest; objects keep how they are cached."""
        taken: dict[str, Turn] = {}
        try:
            for name in sorted(builds):  # everybody takes turns in the same order: no two wait for each other
                with self._versions.lock:
                    taken[name] = self._versions.turns.take(name, TURN_LIMIT)
        except BaseException:
            for name in taken:
                self._versions.end_turn(name)
            self._builds.abandon([], progress)
            raise
        options = {name: self._builds.options_for_commit(name) for name in taken}
        self._builds.build({name: builds[name] for name in taken}, options, taken, progress, recipe)

    def remove(self, name: str, free: bool) -> None:
        """Forget a name; with `free`, free its cache once its last user is gone."""
        with self._versions.lock:
            if not self._versions.known(name):
                return
            turn = self._versions.turns.take(name, TURN_LIMIT)
        try:
            self._seals.seal_removal(name, turn, free)
        finally:
            self._versions.end_turn(name)

    # what is made again

    def is_sealed(self, name: str, limit: float) -> bool:
        """Whether there is no version of it that waits to be sealed; waits for that, at most `limit` seconds."""
        if self._waits_for_seal(name):
            self.flush(limit)
        return not self._waits_for_seal(name)

    def _waits_for_seal(self, name: str) -> bool:
        held = self.held(name)
        return bool(self._journal and held and held.options.kept and held.record is None)

    def refresh(self, name: str) -> Turn | None:
        """Begin to make an object anew by its recipe, or by reading its files again; None if there is none.

        The turn ends with it. Raises TimeoutError while others build it, RuntimeError where recipes cannot be run.
        """
        with self._versions.lock:
            record = self._versions.stored.get(name)
            if record is None:
                return None
            turn = self._versions.turns.take(name, 0.0)
            if self._waits_for_seal(
                name
            ):  # made since it was looked at: what is sealed is not what is to be made again
                self._versions.turns.end(name)
                raise TimeoutError(f"a newer version of named object {name!r} waits to be sealed")
        self._lookup.begin_rebuild(name, record, turn)
        return turn

    def put_back(self, record: NamedObject) -> None:
        """Make an older version of an object the current one, in memory and manifest. Raises ObjectDamaged."""
        with self._versions.lock:
            turn = self._versions.turns.take(record.name, TURN_LIMIT)
        try:
            held = self._held_from_sweeps(record)
            self._seals.seal({record.name: turn}, [held], {})
            self._let_go(record)  # its manifest keeps it; after a seal of unknown outcome it stays held
        finally:
            self._versions.end_turn(record.name)
        self._restoration.warm_later(held)

    def _held_from_sweeps(self, record: NamedObject) -> Held:
        if self._journal is not None:
            self._journal.hold(record.version)
        try:
            return self._shelf.restore(record)
        except BaseException:
            self._let_go(record)
            raise

    def _let_go(self, record: NamedObject) -> None:
        if self._journal is not None:
            self._journal.release(record.version)

    def rebuild(
        self, record: NamedObject, build: Callable[[], Any], options: ObjectOptions, recipe: Recipe
    ) -> None:
        """Make and publish what a recipe built, in the thread that has the turn. See `Builds.rebuild`."""
        self._builds.rebuild(record, build, options, recipe)

    def reread(self, record: NamedObject) -> None:
        """Read the files of a source again, as a new version, in the thread that has the turn."""
        self._builds.reread(record)

    def rebuild_ended(self, name: str, turn: Turn, error: Exception | None) -> None:
        """The thread that rebuilt gives the turn back, whatever came of it."""
        with self._versions.lock:
            turn.error = error
            self._versions.turns.end(name, turn)

    def await_turn(self, name: str, turn: Turn, limit: float) -> bool:
        """Whether a turn has ended within `limit` seconds."""
        turns, end = self._versions.turns, time.monotonic() + limit
        with self._versions.lock:
            try:
                while turns.of(name) is turn:
                    turns.wait(name, end)
            except TimeoutError:
                return False
            return True

    # what clients see

    def describe(self) -> list[dict[str, Any]]:
        """All objects, by name."""
        with self._versions.lock:
            return [self._shown(name) for name in self._versions.names()]

    def show(self, name: str) -> dict[str, Any] | None:
        """One object with all that is known of it, its schema included; None if there is none."""
        with self._versions.lock:
            held, record = self._versions.held(name), self._versions.stored.get(name)
            if held is None and record is None:
                return None
            schema = held.schema if held is not None else record.schema if record is not None else None
            return {**self._shown(name), "schema": shown_schema(schema)}

    def record(self, name: str) -> NamedObject | None:
        """The sealed version of a name."""
        with self._versions.lock:
            return self._versions.stored.get(name)

    def held(self, name: str) -> Held | None:
        """The version in memory."""
        with self._versions.lock:
            return self._versions.held(name)

    def damaged(self) -> dict[str, str]:
        """Objects whose data is proven to be damaged, and why."""
        with self._versions.lock:
            return self._versions.all_damage()

    def summary(self) -> dict[str, Any]:
        """The objects as a whole, as their context shows them; cheap."""
        lag, round_of_caches = self._seals.late.lag(), self._restoration.warming
        with self._versions.lock:
            return {
                "objects": self._versions.count(),
                "damaged": sorted(self._versions.all_damage()),
                "behind": {"objects": lag.objects, "seconds": round(lag.seconds, 3)},
                "warming": {"done": round_of_caches.done, "of": round_of_caches.of},
            }

    def lag(self) -> Lag:
        """How far the checkpoint is behind what readers see."""
        return self._seals.late.lag()

    def flush(self, limit: float) -> bool:
        """Wait until async objects are sealed, at most `limit` seconds; whether they are."""
        return self._seals.late.flush(limit)

    def _shown(self, name: str) -> dict[str, Any]:
        """Under the lock."""
        held, damage = self._versions.held(name), self._versions.damage(name)
        shown = shown_record(self._versions.stored[name]) if held is None else shown_held(held, time.time())
        if held is not None and (trouble := self._seals.late.trouble(held)):
            shown["trouble"] = trouble
        if damage is not None:
            shown |= {"state": "damaged", "damage": damage}
        return shown

    def _sweep(self) -> None:
        with self._versions.lock:
            in_use = self._versions.in_use()
        try:
            if self._journal:
                self._journal.sweep(in_use)
        except CheckpointError as error:
            log.warning("the sweep of old checkpoints was put off: %s", error)
