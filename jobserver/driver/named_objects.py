"""The named objects of a context: who builds, who waits, what readers see, what is sealed. Knows nothing of Spark.

* A name is built by one caller at a time; others wait for it. Readers of an existing object never wait for its update.
* `sync`: readers see a version only after the manifest that holds it is sealed, and it is the written version they see.
* Sealing and publishing are one step in a thread that no kill reaches, so memory and manifest do not part.
* A replaced version stays until the last attempt that was handed it has ended.
* A restored object is only its record until it is first asked for; one with a recipe is then built again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from checkpoint.contents import Changes
from checkpoint.errors import CheckpointError
from checkpoint.manifest import Kind, NamedObject, Progress
from checkpoint.records import Records
from jobserver.driver import warming
from jobserver.driver.held import Held, Making, Shelf
from jobserver.driver.jobthreads import current
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.late_writes import AsyncLimits, Lag, LateWrites
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.origins import Recipe
from jobserver.driver.shown import shown_held, shown_record, shown_schema
from jobserver.driver.turns import Turn, Turns, shared_failure
from jobserver.driver.warming import Warming, rank_of, uses_of, warm_order
from jobserver.model import AttemptRef
from sparkjobserver.api import ObjectDamaged

log = logging.getLogger(__name__)

RESTORE_LIMIT = 60.0
"""Seconds that SQL waits while another job brings back a stored object that both mention."""
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
        self._sealers = sealers
        self._background = background
        self._rebuild = rebuild
        self._lock = (
            threading.RLock()
        )  # entered itself: Condition's own steps are Python, where a kill may leave it held
        self._changed = threading.Condition(self._lock)
        self._turns = Turns(self._changed)
        self._stored = Records.of(journal.objects()) if journal else Records()
        self._held: dict[str, Held] = {
            name: held
            for name, held in (prepared or {}).items()
            if name in self._stored and self._stored[name].version == held.version
        }
        self._spellings: dict[str, list[str]] | None = None
        self._damaged: dict[str, str] = {}
        self._retired: list[Held] = []
        self._paths: dict[AttemptRef, set[str]] = {}
        self._counter = 0
        self._late = LateWrites(
            limits or AsyncLimits(), self._write_late, journal.check_store if journal else _no_store
        )
        self._warming = Warming(partial(warm_order, self._stored), self._warm_stored)
        if self._stored:
            self._warming.begin_after(warming.WARM_AFTER)
        if journal:
            journal.sweep_due = lambda: (background.submit(self._sweep), None)[1]

    # reading

    def names(self) -> list[str]:
        """All names, sorted."""
        with self._lock:
            return sorted({*self._held, *self._stored})

    def views(self) -> dict[str, bool]:
        """All names, sorted, and whether each is had without running a recipe."""
        with self._lock:
            return {
                name: name in self._held or self._stored[name].strategy != "recipe"
                for name in sorted({*self._held, *self._stored})
            }

    def get(self, name: str, timeout: float) -> Any:
        """The object, or None. Waits while it is built for the first time. Raises TimeoutError, ObjectDamaged."""
        held = self._get_held(name, timeout)
        return None if held is None else self._shelf.hand_out(held)

    def find_frame(self, lower_name: str) -> Held | None:
        """The named DataFrame that SQL would mean by a name in lower case; never waits for a build."""
        with self._lock:
            name = next((name for name in self._spelt(lower_name) if self._is_frame(name)), None)
            if name is None:
                return None
            turn = self._turns.of(name)
        if turn is not None and turn.mine and not turn.updating:
            return None
        return self._get_held(name, RESTORE_LIMIT)

    def _spelt(self, lower_name: str) -> list[str]:
        """All names that are this in lower case, in order; no record is read for it."""
        if self._spellings is None:
            self._spellings = {}
            for name in sorted({*self._held, *self._stored}):
                self._spellings.setdefault(name.lower(), []).append(name)
        return self._spellings.get(lower_name, [])

    def _is_frame(self, name: str) -> bool:
        held = self._held.get(name)
        return (self._stored[name].kind if held is None else held.kind) == Kind.DATAFRAME

    # building

    def get_or_create(
        self,
        name: str,
        build: Callable[[], Any],
        options: ObjectOptions,
        timeout: float,
        recipe: Recipe | None = None,
    ) -> Any:
        """The object; built by one caller for all. Raises TimeoutError, or what the build raised."""
        held = self._take_turn_or_find(name, timeout)
        if isinstance(held, Turn):
            held = self._build({name: build}, {name: options}, {name: held}, recipe=recipe)[0]
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
        with self._lock:
            turn = self._turns.take(name, timeout)
        made = self._build({name: build}, {name: options}, {name: turn}, recipe=recipe)
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
                with self._lock:
                    taken[name] = self._turns.take(name, TURN_LIMIT)
        except BaseException:
            for name in taken:
                self._end_turn(name)
            raise
        options = {name: self._options_for_commit(name) for name in taken}
        self._build({name: builds[name] for name in taken}, options, taken, progress, recipe)

    def _options_for_commit(self, name: str) -> ObjectOptions:
        """What is sealed with progress must be written; how it is cached stays as it was."""
        held, record = self._held.get(name), self._stored.get(name)
        level = (
            held.options.storage_level if held else record.storage_level if record else ""
        ) or "MEMORY_AND_DISK"
        return ObjectOptions(level, level != "NONE", "sync", "materialize")

    def remove(self, name: str, free: bool) -> None:
        """Forget a name; with `free`, free its cache once its last user is gone."""
        with self._lock:
            if name not in self._held and name not in self._stored:
                return
            turn = self._turns.take(name, TURN_LIMIT)
        try:
            self._seal_under({name: turn}, lambda: self._seal_removal(name, free))
        finally:
            self._end_turn(name)

    def refresh(self, name: str) -> Turn | None:
        """Begin to make an object anew by its recipe, or by reading its files again; None if there is none.

        The turn ends with it. Raises TimeoutError while others build it, RuntimeError where recipes cannot be run.
        """
        with self._lock:
            record = self._stored.get(name)
            if record is None:
                return None
            turn = self._turns.take(name, 0.0)
        self._begin_rebuild(name, record, turn)
        return turn

    def put_back(self, record: NamedObject) -> None:
        """Make an older version of an object the current one, in memory and manifest. Raises ObjectDamaged."""
        with self._lock:
            turn = self._turns.take(record.name, TURN_LIMIT)
        try:
            held = self._shelf.restore(record)
            self._seal_under({record.name: turn}, lambda: self._seal([held], {}))
        finally:
            self._end_turn(record.name)
        self._warm_later(held)

    def hold(self, path: str, ref: AttemptRef) -> None:
        """No sweep removes what lies at a path of the context's folder while the attempt runs."""
        with self._lock:
            self._paths.setdefault(ref, set()).add(path)

    def released_by(self, ref: AttemptRef) -> None:
        """An attempt has ended: what it alone still used of replaced versions is freed."""
        with self._lock:
            self._paths.pop(ref, None)
            noted = []
            for held in self._held.values():
                if ref in held.users:
                    held.users.discard(ref)
                    if held.record is not None and rank_of(held.uses) > held.record.used:
                        noted.append(held)
            for held in self._retired:
                held.users.discard(ref)
            free = [held for held in self._retired if not held.users]
            if free:
                self._retired = [held for held in self._retired if held.users]
        for held in free:
            self._background.submit(partial(self._shelf.discard, held))
        for held in noted:
            self._background.submit(partial(self._note_use, held))

    def _note_use(self, held: Held) -> None:
        """Tell the manifest how much an object is used, unless somebody builds it right now: use goes on, and so do chances."""
        with self._lock:
            record = held.record
            if self._held.get(held.name) is not held or record is None or not self._turns.is_free(held.name):
                return
            self._turns.begin(held.name)
        try:
            noted = replace(record, used=rank_of(held.uses))
            if self._journal and noted != record:
                self._journal.commit(Changes(put=[noted]))
                with self._lock:
                    held.record = self._keep(noted)
        except CheckpointError as error:
            log.warning("the use of named object %r was not noted: %s", held.name, error)
        finally:
            self._end_turn(held.name)

    # what clients see

    def describe(self) -> list[dict[str, Any]]:
        """All objects, by name."""
        with self._lock:
            return [self._shown(name) for name in sorted({*self._held, *self._stored})]

    def show(self, name: str) -> dict[str, Any] | None:
        """One object with all that is known of it, its schema included; None if there is none."""
        with self._lock:
            held, record = self._held.get(name), self._stored.get(name)
            if held is None and record is None:
                return None
            schema = held.schema if held is not None else record.schema if record is not None else None
            return {**self._shown(name), "schema": shown_schema(schema)}

    def record(self, name: str) -> NamedObject | None:
        """The sealed version of a name."""
        with self._lock:
            return self._stored.get(name)

    def held(self, name: str) -> Held | None:
        """The version in memory."""
        with self._lock:
            return self._held.get(name)

    def damaged(self) -> dict[str, str]:
        """Objects whose data is proven to be damaged, and why."""
        with self._lock:
            return dict(self._damaged)

    def summary(self) -> dict[str, Any]:
        """The objects as a whole, as their context shows them; cheap."""
        lag = self._late.lag()
        with self._lock:
            return {
                "objects": len(self._stored) + sum(name not in self._stored for name in self._held),
                "damaged": sorted(self._damaged),
                "behind": {"objects": lag.objects, "seconds": round(lag.seconds, 3)},
                "warming": {"done": self._warming.done, "of": self._warming.of},
            }

    def lag(self) -> Lag:
        """How far the checkpoint is behind what readers see."""
        return self._late.lag()

    def _shown(self, name: str) -> dict[str, Any]:
        """Under the lock."""
        held = self._held.get(name)
        shown = shown_record(self._stored[name]) if held is None else shown_held(held, time.time())
        if held is not None and (trouble := self._late.trouble(held)):
            shown["trouble"] = trouble
        if name in self._damaged:
            shown |= {"state": "damaged", "damage": self._damaged[name]}
        return shown

    def flush(self, limit: float) -> bool:
        """Wait until async objects are sealed, at most `limit` seconds; whether they are."""
        return self._late.flush(limit)

    # turns

    def _take_turn_or_find(self, name: str, timeout: float) -> Held | Turn:
        """The object, or the turn of the caller, who has to build it."""
        end = time.monotonic() + timeout
        while True:
            held = self._get_held(name, max(end - time.monotonic(), 0))
            if held is not None:
                return held
            with self._lock:
                if name not in self._held and name not in self._stored and self._turns.is_free(name):
                    return self._turns.begin(name)

    def _end_turn(self, name: str) -> None:
        """The calling thread's; another's, such as that of a seal which goes on, is left alone."""
        with self._lock:
            self._turns.end(name)

    def _get_held(self, name: str, timeout: float) -> Held | None:
        """The version in memory, restored if need be; None if there is none and nobody builds one."""
        end = time.monotonic() + timeout
        waited_for: Turn | None = None
        while True:
            with self._lock:
                while True:
                    held = self._held.get(name)
                    if held is not None:
                        self._use(held)
                        return held
                    if waited_for is not None and waited_for.error is not None:
                        raise shared_failure(name, waited_for.error)
                    own = self._turns.of(name)
                    if own is not None and own.mine and own.updating:
                        break
                    if self._turns.is_free(name):
                        break
                    waited_for = self._turns.of(name)
                    self._turns.wait(name, end)
                record = self._stored.get(name)
                if record is None:
                    return None
                if own is not None and own.mine:
                    return self._older_for_update(name, record)
                turn = self._turns.begin(name)
            if record.strategy != "recipe":
                return self._restore(name, record)
            self._begin_rebuild(name, record, turn)
            waited_for = turn

    # bringing back

    def _older_for_update(self, name: str, record: NamedObject) -> Held:
        """What an update replaces, for its own build, which has the turn and keeps it."""
        if record.strategy == "recipe":
            raise RuntimeError(f"ask for {name!r} before its update: it must be built by its recipe first")
        try:
            held = self._shelf.restore(record)
        except ObjectDamaged as damage:
            self._report_damage(name, damage)
            raise
        with self._lock:
            self._use(held)
            self._held[name] = held
        return held

    def _restore(self, name: str, record: NamedObject, *, used: bool = True) -> Held:
        try:
            held = self._shelf.restore(record)
            held.uses = uses_of(record.used)
            with self._lock:
                if used:
                    self._use(held)
                self._held[name] = held
                self._damaged.pop(name, None)
            if used:
                self._warm_later(held)
            return held
        except ObjectDamaged as damage:
            self._report_damage(name, damage)
            raise
        finally:
            self._end_turn(name)

    def _report_damage(self, name: str, damage: ObjectDamaged) -> None:
        with self._lock:
            first, self._damaged[name] = name not in self._damaged, str(damage)
        if first:
            log.error("%s; no other object is touched by it", damage)

    def _begin_rebuild(self, name: str, record: NamedObject, turn: Turn) -> None:
        try:
            if self._rebuild is None:
                raise RuntimeError(f"named object {name!r} has a recipe, which cannot be run here")
            self._rebuild(self, name, record, turn)
        except BaseException:
            self._end_turn(name)
            raise

    def rebuild(
        self, record: NamedObject, build: Callable[[], Any], options: ObjectOptions, recipe: Recipe
    ) -> None:
        """Make and publish what a recipe built, in the thread that has the turn. Written data is sealed anew.

        An object that is only a recipe keeps its record: it can come back although the store is away.
        """
        options = replace(options, strategy=record.strategy, durability="sync")
        if record.strategy != "recipe":
            held = self._made(record.name, build, options, recipe, rebuilt=True)
            self._sealers.submit(lambda: self._seal([held], {})).result()
            return
        version = self._next_version()
        making = Making(record.name, build(), options, version, write=False, recipe=recipe, rebuilt=True)
        held = self._shelf.make(making)
        held.record = record
        self._sealers.submit(lambda: self._show_to_readers(held)).result()

    def reread(self, record: NamedObject) -> None:
        """Read the files of a source again, as a new version, in the thread that has the turn."""
        held = self._shelf.reread(record, self._next_version())
        self._sealers.submit(lambda: self._seal([held], {})).result()

    def _show_to_readers(self, held: Held) -> None:
        with self._lock:
            self._publish(held)

    def await_turn(self, name: str, turn: Turn, limit: float) -> bool:
        """Whether a turn has ended within `limit` seconds."""
        end = time.monotonic() + limit
        with self._lock:
            try:
                while self._turns.of(name) is turn:
                    self._turns.wait(name, end)
            except TimeoutError:
                return False
            return True

    def rebuild_ended(self, name: str, turn: Turn, error: Exception | None) -> None:
        """The thread that rebuilt gives the turn back, whatever came of it."""
        with self._lock:
            turn.error = error
            self._turns.end(name, turn)

    def _warm_later(self, held: Held) -> None:
        """Caches what was restored once the first answers are out; plain values and broadcasts have no cache."""
        if held.kind not in (Kind.DATAFRAME, Kind.RDD):
            return
        timer = threading.Timer(warming.WARM_AFTER, lambda: self._background.submit(lambda: self._warm(held)))
        timer.daemon = True
        timer.start()

    def _warm_stored(self, name: str) -> None:
        """Cache one of what was cached before this driver; a job that builds it now, or has it warmed, is not disturbed."""
        with self._lock:
            held, record = self._held.get(name), self._stored.get(name)
            if held is None:
                if record is None or record.strategy == "recipe" or not self._turns.is_free(name):
                    return
                self._turns.begin(name)
        if held is None and record is not None:
            try:
                held = self._restore(name, record, used=False)
            except ObjectDamaged:
                return  # reported where it was found
            except Exception:
                # Spark's failures have no common class; a job that asks for it will be told
                log.exception("named object %r could not be restored ahead of its use", name)
                return
        if held is not None:
            self._warm(held)

    def _warm(self, held: Held) -> None:
        with self._lock:
            if self._held.get(held.name) is not held or held.warm:
                return
            held.warm = True
        try:
            self._shelf.warm(held)
        except Exception:
            # Spark's failures have no common class; without its cache the object is read from its files
            log.exception("named object %r could not be cached", held.name)

    # the steps of a build

    def _build(
        self,
        builds: Mapping[str, Callable[[], Any]],
        options: Mapping[str, ObjectOptions],
        turns: Mapping[str, Turn],
        progress: Mapping[str, Progress] = {},
        recipe: Recipe | None = None,
    ) -> list[Held]:
        """Build, seal and publish under the turns that the caller has taken."""
        made: list[Held] = []
        try:
            for name, build in builds.items():
                made.append(self._made(name, build, options[name], recipe))
            self._seal_under(turns, lambda: self._seal(made, progress), lambda: self._abandon(made))
            return made
        except Exception as error:
            # whatever the job's build raised fails all who wait for it; after a kill the next one builds instead
            with self._lock:
                for turn in turns.values():
                    turn.error = error
            self._abandon(made)
            raise
        finally:
            for name in builds:
                self._end_turn(name)

    def _seal_under(
        self, turns: Mapping[str, Turn], seal: Callable[[], None], refused: Callable[[], None] = lambda: None
    ) -> None:
        """Run a seal in a keeper's thread and wait for it. Raises what it raises.

        The turns go over to it, and end with it: a kill of the caller ends neither, so nobody can seal a later version
        before it, which it would then bury. `refused`: is called when the caller was killed before the seal began.
        """
        self._sealers.submit(partial(self._sealed_under, turns, seal, refused)).result()

    def _sealed_under(
        self, turns: Mapping[str, Turn], seal: Callable[[], None], refused: Callable[[], None]
    ) -> None:
        with self._lock:
            mine = all(self._turns.of(name) is turn for name, turn in turns.items())
            for turn in turns.values() if mine else ():
                turn.thread = threading.current_thread()
        if not mine:
            refused()
            raise RuntimeError(f"the job was killed before {', '.join(turns)} could be sealed")
        try:
            seal()
        except Exception as error:
            for turn in turns.values():
                turn.error = error  # for those who wait, before the turn ends
            raise
        finally:
            for name in turns:
                self._end_turn(name)

    def _made(
        self,
        name: str,
        build: Callable[[], Any],
        options: ObjectOptions,
        recipe: Recipe | None,
        *,
        rebuilt: bool = False,
    ) -> Held:
        write = self._journal is not None and options.kept and options.durability == "sync"
        if options.kept and not write:
            self._late.admit()
        version = self._next_version()
        try:
            value = build()
            if value is None:
                raise ValueError(
                    f"the build of named object {name!r} returned None, which means that there is none"
                )
            held = self._shelf.make(Making(name, value, options, version, write, recipe, rebuilt))
            self._use(held)  # nobody else knows it yet
            return held
        except BaseException:
            if self._journal:
                self._journal.release(version)
            raise

    def _seal(self, made: list[Held], progress: Mapping[str, Progress]) -> None:
        """Runs in a keeper's thread: seal if there is something to seal, then let readers see it."""
        records = [held.record for held in made if held.record is not None]
        gone = [held.name for held in made if not held.options.kept and held.name in self._stored]
        if self._journal and (records or progress or gone):
            self._journal.commit(Changes(put=records, remove=gone, progress=progress))
        with self._lock:
            for held in made:
                self._publish(held)
        for held in made:
            if self._journal and held.record is None and held.options.kept:
                self._late.add(held)
            else:
                self._late.drop(held.name)

    def _publish(self, held: Held) -> None:
        """Under the lock."""
        old = self._held.pop(held.name, None)
        self._held[held.name] = held
        self._spellings = None
        self._damaged.pop(held.name, None)
        if held.record is not None:
            self._keep(held.record)
        elif not held.options.kept:
            self._stored = self._stored.changed((), [held.name])
        if old is not None:
            self._retire(old)
        self._changed.notify_all()

    def _keep(self, record: NamedObject) -> NamedObject:
        """Under the lock: it is the sealed version from now on."""
        self._stored = self._stored.changed([record])
        return record

    def _retire(self, old: Held) -> None:
        if old.users:
            self._retired.append(old)
        else:
            self._background.submit(lambda: self._shelf.discard(old))

    def _seal_removal(self, name: str, free: bool) -> None:
        if self._journal and name in self._stored:
            self._journal.commit(Changes(remove=[name]))
        with self._lock:
            self._spellings = None
            self._stored = self._stored.changed((), [name])
            self._damaged.pop(name, None)
            held = self._held.pop(name, None)
            if held is not None and free:
                self._retire(held)
        self._late.drop(name)

    def _abandon(self, made: Iterable[Held]) -> None:
        for held in made:
            if self._journal and self._held.get(held.name) is not held:
                self._background.submit(partial(self._shelf.discard, held))

    def _write_late(self, held: Held) -> bool:
        """Write and seal an async object, unless it was replaced. Until then the older version stays sealed."""
        assert self._journal is not None
        with self._lock:
            if self._held.get(held.name) is not held:
                return True
            if not self._turns.is_free(held.name):
                return False  # before anything is written, since a build that goes on may take long
        record = self._shelf.write(held)
        with self._lock:
            # no other version may be sealed between the look and the seal
            if not self._turns.is_free(held.name):
                return False
            self._turns.begin(held.name)
        try:
            if self._held.get(held.name) is not held:
                self._journal.release(held.version)
                return True
            self._journal.commit(Changes(put=[record]))
            with self._lock:
                held.record = self._keep(record)
        finally:
            self._end_turn(held.name)
        return True

    # small things

    def _use(self, held: Held) -> None:
        """Under the lock that also retires versions: what is handed out cannot be freed before it is known as used."""
        attempt = current()
        held.uses, held.used_at = held.uses + 1, time.time()
        if attempt is not None:
            held.users.add(attempt.ref)

    def _next_version(self) -> str:
        if self._journal:
            return self._journal.next_version()
        with self._lock:
            self._counter += 1
            return f"memory-{self._counter}"

    def _sweep(self) -> None:
        with self._lock:
            in_use = {held.version for held in (*self._held.values(), *self._retired)}
            in_use.update(path for paths in self._paths.values() for path in paths)
        try:
            if self._journal:
                self._journal.sweep(in_use)
        except CheckpointError as error:
            log.warning("the sweep of old checkpoints was put off: %s", error)


def _no_store() -> None:
    """Without a checkpoint there is none that could be in trouble."""
