"""A hot standby: follows the manifests of its context, read only, and prepares what an activation will need.

Data of a version never changes, so what was prepared under one manifest is good for any later one that names the same
version. Only a bounded number of objects is prepared; the others are restored on first use, like all of them would be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from checkpoint.base import Base
from checkpoint.errors import CheckpointError
from checkpoint.manifest import Kind, NamedObject
from jobserver.driver.held import Held, Shelf
from jobserver.driver.warming import warm_order
from sparkjobserver.api import ObjectDamaged

log = logging.getLogger(__name__)

FOLLOW_EVERY = 2.0
"""Seconds between two looks at the manifests."""
PREPARED = 64
"""Objects prepared at most, the newest versions first."""


class Standby:
    """`follow` gives the newest state from the one known before; `shelf` restores objects; `filled_late` is told of an object
    whose cache was full only after the end, when others have it."""

    def __init__(
        self, follow: Callable[[Base], Base], shelf: Shelf, filled_late: Callable[[Held], None]
    ) -> None:
        self._newest = follow
        self._shelf = shelf
        self._filled_late = filled_late
        self._ended = threading.Event()
        self._looking = threading.Lock()
        self._prepared: dict[str, Held] = {}
        self._read: set[str] = set()
        self._known = Base(None)
        self._wanted: dict[str, NamedObject] = {}
        self._newest_read: str | None = None
        self._looked_at: float | None = None

    def follow(self) -> None:
        """Go on following in a thread of its own, until `end`."""
        threading.Thread(target=self._follow, name="standby", daemon=True).start()

    def look(self) -> None:
        """Catch up with the newest manifest, as far as that is possible; what is not is logged."""
        with self._looking:
            try:
                base = self._newest(self._known)
            except CheckpointError as error:
                # being sealed or swept right now, or a store in trouble: look again later
                log.warning("the newest manifest cannot be followed: %s", error)
                return
            except Exception:
                # whatever it is, an activation does without what was not prepared
                log.exception("the newest manifest cannot be followed")
                return
            began = time.monotonic()
            if base is not self._known:
                self._known, self._wanted = base, wanted_of(base.objects)
            wanted = self._wanted
            for held in list(self._prepared.values()):
                if held.name not in wanted or held.version != wanted[held.name].version:
                    self._drop(held)
            for name, record in wanted.items():
                if self._ended.is_set():
                    return
                self._prepare(name, record)
            self._newest_read, self._looked_at = base.name, began

    def progress(self) -> dict[str, Any]:
        """The newest manifest whose objects are prepared, and the seconds since the look that found it."""
        looked = self._looked_at
        age = None if looked is None else round(time.monotonic() - looked, 3)
        return {"manifest": self._newest_read, "age": age}

    @property
    def known(self) -> Base:
        """The newest state that was read: an activation goes on from it."""
        return self._known

    def end(self) -> Mapping[str, Held]:
        """Stop following; what is prepared, by name."""
        self._ended.set()
        return dict(self._prepared)

    def fill(self) -> None:
        """Cache what is prepared and was cached before, most used first, until the end."""
        for name in warm_order(self._wanted):
            held = self._prepared.get(name)
            if self._ended.is_set():
                break
            if held is not None and not held.warm:
                self._fill(held)

    def _fill(self, held: Held) -> None:
        held.warm = True  # before it is: whoever has it after the end begins no second one
        try:
            self._shelf.warm(held)
        except Exception:
            # Spark's failures have no common class; without its cache the object is read from its files
            log.exception("named object %r could not be cached", held.name)
        if self._ended.is_set():
            self._filled_late(held)
        elif self._prepared.get(held.name) is not held:
            # replaced meanwhile, when there was nothing to free yet
            self._shelf.discard(held)

    def _drop(self, held: Held) -> None:
        """First its cache: who ends this meanwhile gets it, and frees it again. After the end it is no longer ours to free."""
        if held.warm and not self._ended.is_set():
            self._shelf.discard(held)
        self._prepared = {name: other for name, other in self._prepared.items() if other is not held}

    def _prepare(self, name: str, record: NamedObject) -> None:
        if name in self._prepared:
            return
        try:
            self._prepared[name] = held = self._shelf.restore(record)
            if name not in self._read:  # once: its later versions are read alike
                self._read.add(name)
                self._shelf.try_out(held)
        except (CheckpointError, ObjectDamaged) as error:  # told again to the job that asks for it
            log.warning("named object %r cannot be prepared: %s", name, error)
        except Exception:
            # Spark's failures have no common class
            log.exception("named object %r cannot be prepared", name)

    def _follow(self) -> None:
        while not self._ended.wait(FOLLOW_EVERY):
            self.look()


def wanted_of(objects: Mapping[str, NamedObject]) -> dict[str, NamedObject]:
    """The DataFrames worth preparing: values and recipes may need code that is loaded only when it is used, and sources are to be
    read as they are then."""
    frames = [
        record
        for record in objects.values()
        if record.kind is Kind.DATAFRAME and record.strategy not in ("recipe", "source")
    ]
    newest = sorted(frames, key=lambda record: record.version, reverse=True)[:PREPARED]
    return {record.name: record for record in newest}
