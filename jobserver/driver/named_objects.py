"""The named objects of a context: who builds, who waits, what readers see, what is sealed. Knows nothing of Spark.

* A name is built by one caller at a time; others wait for it. Readers of an existing object never wait for its update.
* `sync`: readers see a version only after the manifest that holds it is sealed, and it is the written version they see.
* Sealing and publishing are one step in a thread that no kill reaches, so memory and manifest do not part.
* A replaced version stays until the last attempt that was handed it has ended.
* A restored object is only its record until it is first asked for.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from checkpoint.contents import Changes
from checkpoint.errors import CheckpointError
from checkpoint.manifest import NamedObject, Progress
from jobserver.driver.held import Held, Shelf, shown_held, shown_record
from jobserver.driver.jobthreads import current
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.object_options import ObjectOptions
from jobserver.model import AttemptRef
from sparkjobserver.api import ObjectDamaged

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.5
"""Seconds after which a waiting caller looks whether the builder's thread still lives."""
RESTORE_LIMIT = 60.0
"""Seconds that SQL waits while another job brings back a stored object that both mention."""
TURN_LIMIT = 60.0
"""Seconds to wait for others' builds where the caller names no limit."""
WARM_AFTER = 3.0
"""Seconds from the restore of an object to the filling of its cache; until then it is read from its files."""
RETRY_ASYNC = 2.0
"""Seconds between two tries to checkpoint an async object."""


@dataclass(slots=True, eq=False)
class _Turn:
    """The right of one thread to make the next version of a name. `error`: why nothing came of it."""

    thread: threading.Thread
    error: Exception | None = None

    @property
    def mine(self) -> bool:
        return self.thread is threading.current_thread()


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
    ) -> None:
        self._shelf = shelf
        self._journal = journal
        self._sealers = sealers
        self._background = background
        self._changed = threading.Condition()
        self._stored: dict[str, NamedObject] = dict(journal.objects()) if journal else {}
        self._held: dict[str, Held] = {
            name: held
            for name, held in (prepared or {}).items()
            if name in self._stored and self._stored[name].version == held.version
        }
        self._turns: dict[str, _Turn] = {}
        self._damaged: dict[str, str] = {}
        self._retired: list[Held] = []
        self._unwritten = 0
        self._counter = 0
        for held in self._held.values():
            self._warm_later(held)
        if journal:
            journal.sweep_due = lambda: (background.submit(self._sweep), None)[1]

    # reading

    def names(self) -> list[str]:
        """All names, sorted."""
        with self._changed:
            return sorted({*self._held, *self._stored})

    def get(self, name: str, timeout: float) -> Any:
        """The object, or None. Waits while it is built for the first time. Raises TimeoutError, ObjectDamaged."""
        held = self._get_held(name, timeout)
        return None if held is None else self._hand_out(held)

    def find_frame(self, lower_name: str) -> Held | None:
        """The named DataFrame that SQL would mean by a name in lower case; never waits for a build."""
        with self._changed:
            if not self._held and not self._stored:
                return None
            known = {
                **{n: r.kind.value for n, r in self._stored.items()},
                **{n: h.kind for n, h in self._held.items()},
            }
        name = next((n for n, kind in known.items() if kind == "dataframe" and n.lower() == lower_name), None)
        if name is None:
            return None
        turn = self._turns.get(name)
        held = self._held.get(name) if turn and turn.mine else self._get_held(name, RESTORE_LIMIT)
        if held is not None:
            self._mark_used(held)
        return held

    # building

    def get_or_create(
        self, name: str, build: Callable[[], Any], options: ObjectOptions, timeout: float
    ) -> Any:
        """The object; built by one caller for all. Raises TimeoutError, or what the build raised."""
        held = self._take_turn_or_find(name, timeout)
        if held is None:
            held = self._build({name: build}, options)[0]
        return self._hand_out(held)

    def update(self, name: str, build: Callable[[], Any], options: ObjectOptions, timeout: float) -> Any:
        """Replace the object as one step. Raises TimeoutError while another update takes too long."""
        self._take_turn(name, timeout)
        return self._hand_out(self._build({name: build}, options)[0])

    def update_together(
        self, builds: Mapping[str, Callable[[], Any]], progress: Mapping[str, Progress]
    ) -> None:
        """Replace several objects and save progress in one manifest."""
        taken: list[str] = []
        try:
            for name in sorted(builds):  # everybody takes turns in the same order: no two wait for each other
                self._take_turn(name, TURN_LIMIT)
                taken.append(name)
        except BaseException:
            for name in taken:
                self._end_turn(name)
            raise
        self._build({name: builds[name] for name in taken}, ObjectOptions(), progress)

    def remove(self, name: str, free: bool) -> None:
        """Forget a name; with `free`, free its cache once its last user is gone."""
        with self._changed:
            if name not in self._held and name not in self._stored:
                return
        self._take_turn(name, TURN_LIMIT)
        try:
            self._sealers.submit(lambda: self._seal_removal(name, free)).result()
        finally:
            self._end_turn(name)

    def released_by(self, ref: AttemptRef) -> None:
        """An attempt has ended: what it alone still used of replaced versions is freed."""
        with self._changed:
            for held in self._held.values():
                held.users.discard(ref)
            for held in self._retired:
                held.users.discard(ref)
            free = [held for held in self._retired if not held.users]
            if free:
                self._retired = [held for held in self._retired if held.users]
        for held in free:
            self._background.submit(partial(self._shelf.discard, held))

    def describe(self) -> list[dict[str, Any]]:
        """What the owner shows of them."""
        with self._changed:
            shown = {name: shown_record(record) for name, record in self._stored.items()}
            shown.update({name: shown_held(held) for name, held in self._held.items()})
            for name, why in self._damaged.items():
                if name in shown:
                    shown[name] |= {"state": "damaged", "damage": why}
            return [shown[name] for name in sorted(shown)]

    def show(self, name: str) -> dict[str, Any] | None:
        """One object with all that is known of it, its schema included; None if there is none."""
        with self._changed:
            held, record = self._held.get(name), self._stored.get(name)
            why = self._damaged.get(name)
        if held is None and record is None:
            return None
        shown = shown_held(held) if held is not None else shown_record(record) if record else {}
        schema = record.schema if record is not None else None
        shown["schema"] = None if schema is None else json.loads(schema)["fields"]
        return shown if why is None else {**shown, "state": "damaged", "damage": why}

    def flush(self, limit: float) -> bool:
        """Wait until async objects are sealed, at most `limit` seconds; whether they are."""
        end = time.monotonic() + limit
        with self._changed:
            while self._unwritten and time.monotonic() < end:
                self._changed.wait(LOOK_AGAIN)
            return self._unwritten == 0

    # turns

    def _take_turn_or_find(self, name: str, timeout: float) -> Held | None:
        """The object; None when the caller has to build it, and has the turn."""
        end = time.monotonic() + timeout
        while True:
            held = self._get_held(name, max(end - time.monotonic(), 0))
            if held is not None:
                return held
            with self._changed:
                if name not in self._held and name not in self._stored and self._may_build(name):
                    self._turns[name] = _Turn(threading.current_thread())
                    return None

    def _take_turn(self, name: str, timeout: float) -> None:
        end = time.monotonic() + timeout
        with self._changed:
            while not self._may_build(name):
                self._wait(name, end)
            self._turns[name] = _Turn(threading.current_thread())

    def _end_turn(self, name: str) -> None:
        with self._changed:
            self._turns.pop(name, None)
            self._changed.notify_all()

    def _may_build(self, name: str) -> bool:
        """Whether nobody builds it. A builder whose thread was killed does not count."""
        turn = self._turns.get(name)
        if turn is not None and turn.mine:
            raise RuntimeError(f"the build of {name!r} asks for {name!r} itself")
        return turn is None or not turn.thread.is_alive()

    def _wait(self, name: str, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"named object {name!r} was not ready in time; its build goes on")
        self._changed.wait(min(left, LOOK_AGAIN))

    def _get_held(self, name: str, timeout: float) -> Held | None:
        """The version in memory, restored if need be; None if there is none and nobody builds one."""
        end = time.monotonic() + timeout
        waited_for: _Turn | None = None
        with self._changed:
            while True:
                held = self._held.get(name)
                if held is not None:
                    return held
                if waited_for is not None and waited_for.error is not None:
                    raise _shared_failure(name, waited_for.error)
                if self._may_build(name):
                    break
                waited_for = self._turns[name]
                self._wait(name, end)
            record = self._stored.get(name)
            if record is None:
                return None
            self._turns[name] = _Turn(threading.current_thread())
        return self._restore(name, record)

    # the steps of a build

    def _restore(self, name: str, record: NamedObject) -> Held:
        try:
            held = self._shelf.restore(record)
            with self._changed:
                self._held[name] = held
                self._damaged.pop(name, None)
            self._warm_later(held)
            return held
        except ObjectDamaged as damage:
            with self._changed:
                self._damaged[name] = str(damage)
            raise
        finally:
            self._end_turn(name)

    def _warm_later(self, held: Held) -> None:
        """Caches what was restored once the first answers are out."""
        timer = threading.Timer(WARM_AFTER, lambda: self._background.submit(lambda: self._warm(held)))
        timer.daemon = True
        timer.start()

    def _warm(self, held: Held) -> None:
        if self._held.get(held.name) is not held:
            return
        try:
            self._shelf.warm(held)
        except Exception:
            # Spark's failures have no common class; without its cache the object is read from its files
            log.exception("named object %r could not be cached", held.name)

    def _build(
        self,
        builds: Mapping[str, Callable[[], Any]],
        options: ObjectOptions,
        progress: Mapping[str, Progress] = {},
    ) -> list[Held]:
        """Build, seal and publish under the turns that the caller has taken."""
        made: list[Held] = []
        try:
            for name, build in builds.items():
                made.append(self._made(name, build, options))
            self._sealers.submit(lambda: self._seal(made, progress)).result()
            return made
        except Exception as error:
            # whatever the job's build raised fails all who wait for it; after a kill the next one builds instead
            with self._changed:
                for name in builds:
                    self._turns[name].error = error
            self._abandon(made)
            raise
        finally:
            for name in builds:
                self._end_turn(name)

    def _made(self, name: str, build: Callable[[], Any], options: ObjectOptions) -> Held:
        version = self._next_version()
        write = self._journal is not None and options.kept and options.durability == "sync"
        try:
            value = build()
            if value is None:
                raise ValueError(
                    f"the build of named object {name!r} returned None, which means that there is none"
                )
            return self._shelf.make(name, value, options, version, write)
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
        with self._changed:
            for held in made:
                self._publish(held)
        for held in made:
            if self._journal and held.record is None and held.options.kept:
                self._write_later(held)

    def _publish(self, held: Held) -> None:
        """Under the lock."""
        old = self._held.pop(held.name, None)
        self._held[held.name] = held
        self._damaged.pop(held.name, None)
        if held.record is not None:
            self._stored[held.name] = held.record
        elif not held.options.kept:
            self._stored.pop(held.name, None)
        if old is not None:
            self._retire(old)
        self._changed.notify_all()

    def _retire(self, old: Held) -> None:
        if old.users:
            self._retired.append(old)
        else:
            self._background.submit(lambda: self._shelf.discard(old))

    def _seal_removal(self, name: str, free: bool) -> None:
        if self._journal and name in self._stored:
            self._journal.commit(Changes(remove=[name]))
        with self._changed:
            self._stored.pop(name, None)
            self._damaged.pop(name, None)
            held = self._held.pop(name, None)
            if held is not None and free:
                self._retire(held)

    def _abandon(self, made: Iterable[Held]) -> None:
        for held in made:
            if self._journal and self._held.get(held.name) is not held:
                self._background.submit(partial(self._shelf.discard, held))

    # async objects

    def _write_later(self, held: Held) -> None:
        with self._changed:
            self._unwritten += 1
        self._background.submit(lambda: self._write(held))

    def _write(self, held: Held) -> None:
        """Runs in the background: write and seal an object, as long as it is not replaced. Until then the older
        version stays sealed."""
        try:
            while self._held.get(held.name) is held:
                try:
                    self._write_once(held)
                    return
                except (
                    CheckpointError
                ) as error:  # trouble of the store: the object stays readable, the lag shows
                    log.warning("named object %r is not checkpointed yet: %s", held.name, error)
                    time.sleep(RETRY_ASYNC)
        except Exception:
            # its own data cannot be written, for whatever reason: it stays in memory and shows as not checkpointed
            log.exception("named object %r cannot be checkpointed", held.name)
        finally:
            with self._changed:
                self._unwritten -= 1
                self._changed.notify_all()

    def _write_once(self, held: Held) -> None:
        assert self._journal is not None
        record = held.record or self._shelf.write(held)
        self._take_turn(
            held.name, float("inf")
        )  # no other version may be sealed between the look and the seal
        try:
            if self._held.get(held.name) is not held:
                self._journal.release(held.version)
                return
            self._journal.commit(Changes(put=[record]))
            with self._changed:
                held.record = self._stored[held.name] = record
        finally:
            self._end_turn(held.name)

    # small things

    def _hand_out(self, held: Held) -> Any:
        self._mark_used(held)
        return self._shelf.hand_out(held)

    def _mark_used(self, held: Held) -> None:
        attempt = current()
        if attempt is not None:
            with self._changed:
                held.users.add(attempt.ref)

    def _next_version(self) -> str:
        if self._journal:
            return self._journal.next_version()
        with self._changed:
            self._counter += 1
            return f"memory-{self._counter}"

    def _sweep(self) -> None:
        with self._changed:
            in_use = {held.version for held in (*self._held.values(), *self._retired)}
        try:
            if self._journal:
                self._journal.sweep(in_use)
        except CheckpointError as error:
            log.warning("the sweep of old checkpoints was put off: %s", error)


def _shared_failure(name: str, error: Exception) -> Exception:
    """What those get who waited for a failed build: each an exception of its own, since tracebacks are not shared."""
    failure = RuntimeError(f"the build of named object {name!r} failed: {error!r}")
    failure.__cause__ = error
    return failure
