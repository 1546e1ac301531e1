"""Progress of a job: what it tells of itself, and what it saves for a later attempt.

A value is pickled with the names of the uploads that it needs; a DataFrame is written as files. Saves of an attempt that a
later one has replaced are refused by the checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cloudpickle

from checkpoint.contents import Changes
from checkpoint.errors import Corrupt, Missing
from checkpoint.manifest import INLINE_LIMIT, FileEntry
from checkpoint.manifest import Progress as SavedProgress
from checkpoint.sealing import persist
from jobserver.driver.jobthreads import current
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.model import AttemptRef
from sparkjobserver.api import ObjectDamaged, Progress

PICKLE = b"\x80"
"""How a plain pickle begins: what the first release saved, without the names of uploads."""


@dataclass(frozen=True, slots=True)
class SavedFrame:
    """A saved DataFrame: the files below its progress path, and its schema as Spark's JSON."""

    schema: str
    files: tuple[FileEntry, ...]


class Values(Protocol):
    """Values as bytes, DataFrames as files; the Spark side."""

    def pack(self, value: Any) -> bytes:
        """The payload of a value."""

    def unpack(self, payload: bytes) -> Any:
        """The value of a payload."""

    def is_frame(self, value: Any) -> bool:
        """Whether the value is a DataFrame."""

    def write_frame(self, frame: Any, path: str) -> SavedFrame:
        """Write a DataFrame durably below a path of the context's folder."""

    def read_frame(self, saved: SavedFrame, path: str) -> Any:
        """The DataFrame, for the calling job. Raises ObjectDamaged."""


class JobProgress(Progress):
    """See the base class. `in_use` is told which files the attempt may read, so that no sweep takes them away."""

    def __init__(
        self,
        ref: AttemptRef,
        journal: Journal | None,
        sealers: Keeper,
        tell: Callable[[float | None, str], None],
        values: Values,
        in_use: Callable[[str], None],
    ) -> None:
        self._ref = ref
        self._journal = journal
        self._sealers = sealers
        self._tell = tell
        self._values = values
        self._in_use = in_use

    def report(self, fraction: float | None, message: str = "") -> None:
        """See the base class."""
        known = None if fraction is None else min(max(float(fraction), 0.0), 1.0)
        self._tell(known, str(message))

    def save(self, value: Any) -> None:
        """See the base class."""
        self._commit(Changes(progress={self._ref.job_id: self.saved(value)}))

    def load(self, default: Any = None) -> Any:
        """See the base class. Records first that this attempt starts from it, so that older ones save no more.

        What an older one saves until then, it starts from.
        """
        journal, ref = self._needed_journal(), self._ref
        known = journal.progress_of(ref.job_id)
        if known.attempt < ref.attempt if known else ref.attempt > 1:
            self._commit(Changes(begun={ref.job_id: ref.attempt}))
            known = journal.progress_of(ref.job_id)
            if known is not None and known.path is not None:
                self._in_use(known.path)
        if known is None or (known.inline is None and known.path is None):
            return default
        return self._value(known)

    def _value(self, known: SavedProgress) -> Any:
        data = self._bytes(known)
        if data.startswith(PICKLE):
            return cloudpickle.loads(data)
        value = self._values.unpack(data)
        if isinstance(value, SavedFrame):
            self._in_use(known.path or "")
            return self._values.read_frame(value, known.path or "")
        return value

    def _bytes(self, known: SavedProgress) -> bytes:
        """The bytes, proven to be those that were sealed: inline by their manifest, a file by the digest there."""
        if known.inline is not None:
            return known.inline
        folder, damaged = (
            self._needed_journal().folder,
            f"the saved progress of job {self._ref.job_id} is damaged",
        )
        try:
            data = persist(lambda: folder.files.read(folder.path(known.path or "")))
        except (Missing, Corrupt) as error:
            raise ObjectDamaged(f"{damaged}: {error}") from error
        if _digest(data) != known.sha256:
            raise ObjectDamaged(f"{damaged}: its bytes have changed")
        return data

    def saved(self, value: Any) -> SavedProgress:
        """The value as a checkpoint keeps it; a DataFrame or a big value is written to files now."""
        if self._values.is_frame(value):
            return self._written(lambda path: self._saved_frame(value, path))
        data = self._values.pack(value)
        if len(data) > INLINE_LIMIT:
            return self._written(lambda path: self._saved_file(data, path))
        return SavedProgress(self._ref.attempt, inline=data, size=len(data), sha256=_digest(data))

    def _saved_frame(self, value: Any, path: str) -> SavedProgress:
        frame = self._values.write_frame(value, path)
        data = self._values.pack(frame)
        size = sum(entry.size for entry in frame.files)
        return SavedProgress(self._ref.attempt, data, path, size, _digest(data))

    def _saved_file(self, data: bytes, path: str) -> SavedProgress:
        folder = self._needed_journal().folder
        folder.files.write_new(folder.path(path), data)
        return SavedProgress(self._ref.attempt, path=path, size=len(data), sha256=_digest(data))

    def _written(self, write: Callable[[str], SavedProgress]) -> SavedProgress:
        """Written under a path of its own; when that fails, sweeps may remove what is there."""
        journal = self._needed_journal()
        path = journal.next_progress_path(self._ref.job_id, self._ref.attempt)
        try:
            return write(path)
        except BaseException:
            journal.release(path)
            raise

    def _commit(self, changes: Changes) -> None:
        journal, attempt = self._needed_journal(), current()

        def commit() -> None:
            try:
                if attempt is not None and attempt.killing:  # and it swallowed that
                    raise RuntimeError("the job was killed before its progress could be sealed")
                journal.commit(changes)
            except Exception:
                for saved in changes.progress.values():
                    if saved.path is not None:
                        journal.release(saved.path)
                raise

        self._sealers.submit(commit).result()

    def _needed_journal(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("progress cannot be saved: this context has no checkpoint")
        return self._journal


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
