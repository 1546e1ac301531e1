"""Bringing sealed named objects back into memory: when they are first asked for, and their caches a little later.

A restored object is only its record until then. What is damaged is reported once, and touches no other object.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from checkpoint.manifest import Kind, NamedObject
from jobserver.driver import warming
from jobserver.driver.held import Held, Shelf
from jobserver.driver.jobthreads import current
from jobserver.driver.keeper import Keeper
from jobserver.driver.versions import Versions
from jobserver.driver.warming import Warming, uses_of, warm_order
from sparkjobserver.api import ObjectDamaged

log = logging.getLogger(__name__)


class Restoration:
    """Brings back what was sealed. `warming`: the round that caches again what was cached before this driver."""

    def __init__(self, versions: Versions, shelf: Shelf, background: Keeper) -> None:
        self._versions = versions
        self._shelf = shelf
        self._background = background
        self.warming = Warming(partial(warm_order, versions.stored), self._warm_stored)

    def restore(self, name: str, record: NamedObject, *, used: bool = True) -> Held:
        """The sealed version, in memory from now on; ends the turn that the caller has. Raises ObjectDamaged.

        `used`: a caller is handed it; else it is only brought back ahead of its use.
        """
        try:
            held = self._brought_in(name, record, used=used)
            if used:
                self.warm_later(held)
            return held
        finally:
            self._versions.end_turn(name)

    def older_for_update(self, name: str, record: NamedObject) -> Held:
        """What an update replaces, for its own build, which has the turn and keeps it. Raises ObjectDamaged."""
        if record.strategy == "recipe":
            raise RuntimeError(f"ask for {name!r} before its update: it must be built by its recipe first")
        return self._brought_in(name, record, used=True)

    def _brought_in(self, name: str, record: NamedObject, *, used: bool) -> Held:
        try:
            held = self._shelf.restore(record)
        except ObjectDamaged as damage:
            self._report_damage(name, damage)
            raise
        held.uses = uses_of(record.used)
        with self._versions.lock:
            if used:
                self._versions.use(held, current())
            self._versions.bring_in(held)
            self._versions.sound(name)
        return held

    def warm_later(self, held: Held) -> None:
        """Caches what was restored once the first answers are out; plain values and broadcasts have no cache."""
        if held.kind not in (Kind.DATAFRAME, Kind.RDD):
            return
        timer = threading.Timer(warming.WARM_AFTER, lambda: self._background.submit(lambda: self._warm(held)))
        timer.daemon = True
        timer.start()

    def _report_damage(self, name: str, damage: ObjectDamaged) -> None:
        with self._versions.lock:
            first = self._versions.damaged(name, str(damage))
        if first:
            log.error("%s; no other object is touched by it", damage)

    def _warm_stored(self, name: str) -> None:
        """Cache one of what was cached before this driver; a job that builds it now, or has it warmed, is not disturbed."""
        versions = self._versions
        with versions.lock:
            held, record = versions.held(name), versions.stored.get(name)
            if held is None:
                if record is None or record.strategy == "recipe" or not versions.turns.is_free(name):
                    return
                versions.turns.begin(name)
        if held is None and record is not None:
            try:
                held = self.restore(name, record, used=False)
            except ObjectDamaged:
                return  # reported where it was found
            except Exception:
                # Spark's failures have no common class; a job that asks for it will be told
                log.exception("named object %r could not be restored ahead of its use", name)
                return
        if held is not None:
            self._warm(held)

    def _warm(self, held: Held) -> None:
        with self._versions.lock:
            if self._versions.held(held.name) is not held or held.warm:
                return
            held.warm = True
        try:
            self._shelf.warm(held)
        except Exception:
            # Spark's failures have no common class; without its cache the object is read from its files
            log.exception("named object %r could not be cached", held.name)
        self.drop_if_replaced(held)

    def drop_if_replaced(self, held: Held) -> None:
        """Free the cache of what was replaced while it was cached: it may have been freed before there was anything to free."""
        with self._versions.lock:
            replaced = self._versions.held(held.name) is not held and not held.users
        if replaced:
            self._shelf.discard(held)
