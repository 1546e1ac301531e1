"""The versions of a context's named objects: in memory and sealed, who has the turn to make the next, who uses which, and
which wait to be freed. Touches neither the store nor Spark.

Readers, builds and seals share it. What belongs together happens under one hold of `lock`, which the caller takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from checkpoint.manifest import Kind, NamedObject
from checkpoint.records import Records
from jobserver.driver.held import Held
from jobserver.driver.jobthreads import RunningAttempt, current
from jobserver.driver.turns import Turns
from jobserver.driver.warming import rank_of
from jobserver.model import AttemptRef


class Versions:
    """Everything is called under `lock`, but `end_turn`, which takes it, and one look at `held` or `stored`.

    `changed`: is told when a version or a turn changes. `stored`: the sealed version of each name. `prepared`: what a
    standby has restored ahead; used where the version is still the sealed one. `discard`: frees what a version that nobody
    uses has cached; returns at once.
    """

    def __init__(
        self, stored: Records, prepared: Mapping[str, Held], discard: Callable[[Held], object]
    ) -> None:
        self.lock = (
            threading.RLock()
        )  # entered itself: Condition's own steps are Python, where a kill may leave it held
        self.changed = threading.Condition(self.lock)
        self.turns = Turns(self.changed)
        self.stored = stored
        self._discard = discard
        self._held: dict[str, Held] = {
            name: held
            for name, held in prepared.items()
            if name in stored and stored[name].version == held.version
        }
        self._spellings: dict[str, list[str]] | None = None
        self._damaged: dict[str, str] = {}
        self._retired: list[Held] = []
        self._forgotten: list[Held] = []  # their cache stays, and their files as long as somebody uses them
        self._paths: dict[AttemptRef, set[str]] = {}

    # what there is

    def held(self, name: str) -> Held | None:
        """The version in memory."""
        return self._held.get(name)

    def known(self, name: str) -> bool:
        """Whether there is one, in memory or sealed."""
        return name in self._held or name in self.stored

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._held, *self.stored})

    def count(self) -> int:
        """How many names there are; cheap."""
        return len(self.stored) + sum(name not in self.stored for name in self._held)

    def frame_spelt(self, lower_name: str) -> str | None:
        """The first name of a DataFrame that is this in lower case; no record is read for others."""
        return next((name for name in self._spelt(lower_name) if self._is_frame(name)), None)

    def damage(self, name: str) -> str | None:
        """Why the sealed data of a name cannot be read, if that was found."""
        return self._damaged.get(name)

    def all_damage(self) -> dict[str, str]:
        """Names whose data is proven to be damaged, and why."""
        return dict(self._damaged)

    # what changes

    def use(self, held: Held, attempt: RunningAttempt | None) -> None:
        """Under the lock that also retires versions: what is handed out cannot be freed before it is known as used.

        An attempt that has left is nobody's user any more: none would say that it has ended.
        """
        held.uses, held.used_at = held.uses + 1, time.time()
        if attempt is not None and not attempt.left:
            held.users.add(attempt.ref)

    def bring_in(self, held: Held) -> None:
        """The sealed version is in memory from now on."""
        self._held[held.name] = held

    def damaged(self, name: str, text: str) -> bool:
        """The sealed data of a name cannot be read; whether that is news."""
        first, self._damaged[name] = name not in self._damaged, text
        return first

    def sound(self, name: str) -> None:
        """The sealed data of a name was read."""
        self._damaged.pop(name, None)

    def publish(self, made: Sequence[Held], user: RunningAttempt | None = None) -> None:
        """Readers see these versions from now on, `user` as the first; those before are freed once nobody uses them.

        All in one change of what is stored, as each copies it: 10,000 of them would hold the lock for a quarter of a minute.
        """
        records = [held.record for held in made if held.record is not None]
        unkept = [held.name for held in made if held.record is None and not held.options.kept]
        self.stored = self.stored.changed(records, unkept)
        self._spellings = None
        for held in made:
            if user is not None:
                self.use(held, user)
            old = self._held.pop(held.name, None)
            self._held[held.name] = held
            self._damaged.pop(held.name, None)
            if old is not None:
                self._retire(old)
        self.changed.notify_all()

    def keep(self, sealed: Sequence[tuple[Held, NamedObject]]) -> None:
        """Each of these records is the sealed version of its name from now on."""
        self.stored = self.stored.changed(record for _, record in sealed)
        for held, record in sealed:
            held.record = record

    def forget(self, name: str, free: bool) -> None:
        """There is no such object any more; with `free`, its cache goes once nobody uses it."""
        self._spellings = None
        self.stored = self.stored.changed((), [name])
        self._damaged.pop(name, None)
        held = self._held.pop(name, None)
        if held is not None and free:
            self._retire(held)
        elif held is not None and held.users:
            self._forgotten.append(held)

    # who uses what

    def hold(self, path: str, ref: AttemptRef) -> None:
        """The attempt reads what lies at a path of the context's folder."""
        attempt = current()
        if attempt is not None and attempt.left:
            return
        self._paths.setdefault(ref, set()).add(path)

    def released_by(self, ref: AttemptRef) -> tuple[list[Held], list[Held]]:
        """The attempt uses nothing any more: versions that can be freed now, and those whose use is to be noted."""
        self._paths.pop(ref, None)
        noted = []
        for held in self._held.values():
            if ref in held.users:
                held.users.discard(ref)
                if held.record is not None and rank_of(held.uses) > held.record.used:
                    noted.append(held)
        for held in (*self._retired, *self._forgotten):
            held.users.discard(ref)
        self._forgotten = [held for held in self._forgotten if held.users]
        free = [held for held in self._retired if not held.users]
        if free:
            self._retired = [held for held in self._retired if held.users]
        return free, noted

    def read_by_caller(self) -> frozenset[str]:
        """Versions whose files the calling job may read, in what it was handed until now."""
        attempt = current()
        handed = [held for held in self._in_memory() if attempt is not None and attempt.ref in held.users]
        return frozenset(version for held in handed for version in held.reads or (held.version,))

    def _in_memory(self) -> list[Held]:
        return [*self._held.values(), *self._retired, *self._forgotten]

    def in_use(self) -> set[str]:
        """Versions and paths that no sweep may remove, sealed or not."""
        in_use = {version for held in self._in_memory() for version in (held.version, *held.reads)}
        in_use.update(path for paths in self._paths.values() for path in paths)
        return in_use

    def end_turn(self, name: str) -> None:
        """The calling thread's; another's, such as that of a seal which goes on, is left alone."""
        with self.lock:
            self.turns.end(name)

    def _retire(self, old: Held) -> None:
        if old.users:
            self._retired.append(old)
        else:
            self._discard(old)

    def _spelt(self, lower_name: str) -> list[str]:
        """All names that are this in lower case, in order; no record is read for it."""
        if self._spellings is None:
            self._spellings = {}
            for name in sorted({*self._held, *self.stored}):
                self._spellings.setdefault(name.lower(), []).append(name)
        return self._spellings.get(lower_name, [])

    def _is_frame(self, name: str) -> bool:
        held = self._held.get(name)
        return (self.stored[name].kind if held is None else held.kind) == Kind.DATAFRAME
