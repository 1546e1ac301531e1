"""The one writer of a context's checkpoint: group commit behind the fence, adoption, and the sweep.

A commit returns only when the manifest that holds it is sealed and the markers, read after that, allow to acknowledge
it. A commit that raised is in no later manifest of this writer (the next one is full and made of what was
acknowledged); only an epoch that begins before that next one is sealed may find it: its outcome is unknown, not failed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from checkpoint import layout, sweep
from checkpoint.base import Base, read_manifest
from checkpoint.contents import Changes, Contents, changed, delta_manifest, full_manifest
from checkpoint.epoch import begin_marker_only, list_manifests
from checkpoint.errors import (
    AlreadyExists,
    CheckpointError,
    Damaged,
    StaleAttempt,
    StoreUnavailable,
    Superseded,
)
from checkpoint.fence import Marker, foreign_epoch
from checkpoint.files import FileStore
from checkpoint.manifest import BaseRef, Manifest, NamedObject, digest_of, encode
from checkpoint.sealing import seal, standing

__all__ = ["Changes", "CheckpointWriter"]

FULL_EVERY = 16
"""Of so many manifests in a row at least one is full."""

_LOOK_AGAIN = 1.0
"""Seconds after which one who waits looks whether the thread that seals is still alive."""

_INTERRUPTED = "the seal was interrupted: its outcome is unknown"


@dataclass(slots=True, eq=False)
class _Waiting:
    """One caller of `commit`, until its outcome is known."""

    changes: Changes
    manifest: str | None = None
    error: CheckpointError | None = None

    @property
    def decided(self) -> bool:
        return self.manifest is not None or self.error is not None

    def outcome(self) -> str:
        if self.manifest is None:
            raise self.error or StoreUnavailable(_INTERRUPTED)
        return self.manifest


@dataclass(slots=True)
class _Issued:
    """Data paths and versions handed out and not committed yet, which no sweep may touch."""

    open: set[str] = field(default_factory=set)
    since_sweep: set[str] = field(default_factory=set)


class CheckpointWriter:
    """Commits changes of one context. Thread-safe; at most one per driver, and one driver per epoch."""

    def __init__(
        self,
        files: FileStore,
        context_id: str,
        epoch: int,
        token: str,
        base: Base,
        secret: bytes,
        full_every: int = FULL_EVERY,
    ) -> None:
        self._files = files
        self._context_id = context_id
        self._secret = secret
        self._full_every = full_every
        self._lock = (
            threading.RLock()
        )  # entered itself: the steps of Condition are Python, where a kill may leave it held
        self._changed = threading.Condition(self._lock)
        # guarded by _changed
        self._queue: list[_Waiting] = []
        self._sealer: threading.Thread | None = None
        self._mine = Marker(epoch, token)
        self._superseded: int | None = None
        self._contents: Contents = base.contents
        self._tail: BaseRef | None = base.ref
        self._unsure = False  # the last seal failed: it may lie there, or still arrive
        self._issued = _Issued()
        self._counter = 0
        # touched only by the thread that seals
        self._deltas = base.deltas
        self._begun = self._mine
        self._held = {epoch}
        self._seq = 1 if base.name == layout.manifest_name(epoch, 0) else 0
        self._doubt = self._seq == 0  # a base that is not our pin is not continued by a delta
        self._sweeping = threading.Lock()

    @property
    def epoch(self) -> int:
        """The epoch that the next manifest is sealed under."""
        with self._lock:
            return self._mine.epoch

    def objects(self) -> Mapping[str, NamedObject]:
        """The named objects as they were acknowledged last. The mapping never changes."""
        with self._lock:
            return self._contents.objects

    def contents(self) -> Contents:
        """Objects and progress as they were acknowledged last."""
        with self._lock:
            return self._contents

    def next_version(self) -> str:
        """A version that no object of this context ever had; its data is safe from the sweep until `release`."""
        with self._lock:
            self._counter += 1
            version = layout.version(self._mine.epoch, self._counter)
            self._keep(version)
            return version

    def hold(self, version: str) -> None:
        """Keep the data of an older version, which is to be committed again, from sweeps until `release`.

        Waits for a sweep that runs: what is there afterwards stays.
        """
        with self._sweeping, self._lock:
            self._issued.open.add(version)

    def next_progress_path(self, job_id: str, attempt: int) -> str:
        """A path for a big progress value that was never used; safe from the sweep until `release`."""
        with self._lock:
            self._counter += 1
            path = layout.progress_path(job_id, attempt, self._counter)
            self._keep(path)
            return path

    def release(self, issued: str) -> None:
        """Say that a version or progress path will not be committed; the next sweep removes what was written."""
        with self._lock:
            self._issued.open.discard(issued)

    def commit(self, changes: Changes) -> str:
        """Make the changes durable and answer the name of the manifest that holds them.

        Concurrent callers share one seal. Raises StaleAttempt (nothing was sealed for this caller), Superseded and
        StoreUnavailable (the outcome is unknown, see the head of this module).
        """
        waiting = _Waiting(changes)
        batch: list[_Waiting] = []
        try:
            with self._lock:
                self._queue.append(waiting)
                if self._wait_for_turn(waiting):
                    self._sealer = threading.current_thread()
                    batch, self._queue = self._queue, []
            self._seal(batch)
        finally:
            # also when a kill was raised in this thread: the others must not wait for ever
            if batch:
                self._end_turn(batch)
        return waiting.outcome()

    def _wait_for_turn(self, waiting: _Waiting) -> bool:
        """Whether the caller is to seal for all in the queue; False when somebody has decided for it."""
        while self._busy() and not waiting.decided:
            self._changed.wait(_LOOK_AGAIN)
        return not waiting.decided and any(one is waiting for one in self._queue)

    def _busy(self) -> bool:
        """Whether a living thread other than this one seals. One that was killed in its last steps does not count."""
        sealer = self._sealer
        return sealer is not None and sealer.is_alive() and sealer is not threading.current_thread()

    def _end_turn(self, batch: list[_Waiting]) -> None:
        with self._lock:
            self._sealer = None
            self._unsure = self._doubt
            for one in batch:
                if not one.decided:
                    one.error = StoreUnavailable(_INTERRUPTED)
            self._changed.notify_all()

    def readopt(self, epoch: int, token: str) -> None:
        """Go on under a higher epoch: its marker is made before the next seal. Raises Superseded if it is not higher."""
        with self._lock:
            if epoch <= self._mine.epoch:
                raise Superseded(self._mine.epoch)
            self._mine = Marker(epoch, token)
            self._superseded = None

    def check(self) -> None:
        """Read the markers as they are now. Raises Superseded when nothing more may be acknowledged.

        An epoch of ours whose marker is not made yet (adopted, nothing sealed since) is judged by the others' markers.
        """
        with self._lock:
            mine, begun = self._mine, self._begun
        higher = standing(self._files, self._context_id, begun)
        if higher is not None and (higher > mine.epoch or mine == begun):
            self._hold(higher, mine)
            raise Superseded(higher)

    def replaced_by(self) -> int | None:
        """The epoch in which another driver has sealed a manifest of this context: this one can never go on."""
        names = list_manifests(self._files, self._context_id)
        with self._lock:
            return foreign_epoch(names, self._held | {self._mine.epoch})

    def sweep(self, in_use: set[str]) -> tuple[str, ...]:
        """Remove what nothing needs any more and answer the removed paths; `in_use` holds versions or data paths.

        Removes nothing while the outcome of a seal is unknown, or before two full manifests were sealed. Raises
        Superseded.
        """
        with self._sweeping:
            with self._lock:
                if self._unsure or self._tail is None:
                    return ()
                self._issued.since_sweep.clear()
                plan = sweep.Plan(
                    self._context_id,
                    self._mine,
                    self._tail.name,
                    self._contents,
                    frozenset(in_use | self._issued.open),
                )
            self.check()
            return sweep.carry_out(self._files, plan, self._secret, self._is_fresh, self.check)

    def _is_fresh(self, issued: str) -> bool:
        with self._lock:
            return issued in self._issued.since_sweep

    def _keep(self, issued: str) -> None:
        self._issued.open.add(issued)
        self._issued.since_sweep.add(issued)

    def _seal(self, batch: list[_Waiting]) -> None:
        """Seal one manifest for all who wait, and tell each of them how it ended."""
        try:
            accepted, after = self._merge(batch)
            if accepted:
                sealed, full = self._seal_contents(after)
                self._deltas = 0 if full else self._deltas + 1
                self._acknowledge(accepted, after, sealed)
        except CheckpointError as error:
            for one in batch:
                if not one.decided:
                    one.error = error

    def _merge(self, batch: list[_Waiting]) -> tuple[list[_Waiting], Contents]:
        """The contents after all changes, in order of arrival; a stale attempt is refused alone."""
        after, accepted = self.contents(), []
        for one in batch:
            try:
                after = changed(after, one.changes)
                accepted.append(one)
            except StaleAttempt as stale:
                one.error = stale
        return accepted, after

    def _seal_contents(self, after: Contents) -> tuple[BaseRef, bool]:
        """Seal, pass the fence, and answer what was sealed and whether it is full. Until `_acknowledge`, it is in doubt."""
        mine = self._enter_epoch()
        manifest = self._next_manifest(mine, after)
        data = encode(manifest, self._secret)
        self._seq, self._doubt = manifest.seq + 1, True
        try:
            seal(self._files, layout.manifest_path(self._context_id, manifest.name), data)
        except AlreadyExists as error:
            raise self._why_taken(mine, manifest.name) from error
        self._pass_fence(mine)
        return BaseRef(manifest.name, digest_of(data)), manifest.full

    def _enter_epoch(self) -> Marker:
        """The marker to seal under, made first if we were adopted since the last seal."""
        with self._lock:
            mine, superseded = self._mine, self._superseded
        if superseded is not None:
            raise Superseded(superseded)
        if mine != self._begun:
            begin_marker_only(self._files, self._context_id, mine.epoch, mine.token)
            self._refuse_other_lineage(mine)
            self._held.add(mine.epoch)
            self._begun, self._seq, self._doubt = mine, 0, True  # an epoch begins with a full manifest
        return mine

    def _refuse_other_lineage(self, mine: Marker) -> None:
        """After our marker: an epoch between that pinned a base before it is seen here, and one after it sees us."""
        foreign = foreign_epoch(list_manifests(self._files, self._context_id), self._held)
        if foreign is not None:
            self._hold(foreign, mine)
            raise Superseded(foreign)

    def _next_manifest(self, mine: Marker, after: Contents) -> Manifest:
        if self._tail is None or self._doubt or self._deltas + 1 >= self._full_every:
            return full_manifest(self._context_id, mine.epoch, self._seq, self._tail, after)
        before = self.contents()
        return delta_manifest(self._context_id, mine.epoch, self._seq, self._tail, before, after)

    def _why_taken(self, mine: Marker, name: str) -> CheckpointError:
        """Why other bytes than ours have our name: a torn write of our own, or somebody who writes under our epoch."""
        try:
            read_manifest(self._files, self._context_id, name, self._secret)
        except Damaged as damage:
            return StoreUnavailable(f"a seal was torn: {damage}")
        self._hold(mine.epoch, mine)
        return Superseded(mine.epoch)

    def _pass_fence(self, mine: Marker) -> None:
        higher = standing(self._files, self._context_id, mine)
        if higher is not None:
            self._hold(higher, mine)
            raise Superseded(higher)

    def _hold(self, higher: int, mine: Marker) -> None:
        """Acknowledge nothing more, unless we were adopted meanwhile."""
        with self._lock:
            if self._mine == mine:
                self._superseded = higher

    def _acknowledge(self, accepted: list[_Waiting], after: Contents, sealed: BaseRef) -> None:
        with self._lock:
            self._contents, self._tail, self._doubt = after, sealed, False
            for one in accepted:
                one.manifest = sealed.name
                for item in one.changes.put:
                    self._issued.open.discard(item.version)
                for saved in one.changes.progress.values():
                    if saved.path is not None:
                        self._issued.open.discard(saved.path)
