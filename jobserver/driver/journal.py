"""The driver's side of the checkpoint: commits that hold while superseded, and the watch over markers."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from checkpoint import layout
from checkpoint.base import read_manifest
from checkpoint.contents import Changes
from checkpoint.epoch import list_manifests
from checkpoint.errors import CheckpointError, Damaged, Superseded, UnknownFormat
from checkpoint.files import FileStore
from checkpoint.manifest import NamedObject, Progress
from checkpoint.writer import CheckpointWriter

log = logging.getLogger(__name__)

PROBE = b"written to see whether the store takes data\n"
SWEEP_EVERY = 32
"""Commits between two sweeps."""


@dataclass(frozen=True, slots=True)
class ContextFolder:
    """Where the data of one context lies. `spark_user`: for whom Spark writes there, if not for this process's own user."""

    files: FileStore
    context_id: str
    spark_user: str | None = None
    _shared: set[str] = field(default_factory=set, compare=False, repr=False)

    def path(self, relative: str) -> str:
        """The store's path of something relative to the context's folder."""
        return layout.in_context(self.context_id, relative)

    def url(self, relative: str) -> str:
        """Where Spark reads something."""
        return self.files.url(self.path(relative))

    def url_to_write(self, relative: str) -> str:
        """Where Spark is about to write something: its user is let into the folder around it. Raises StoreUnavailable."""
        around = relative.rpartition("/")[0]
        if self.spark_user is not None and around not in self._shared:
            self.files.share(self.path(around), self.spark_user)
            if not layout.is_progress(relative):  # the folder of a job is removed when it is empty
                self._shared.add(around)
        return self.url(relative)

    def check(self) -> None:
        """Whether the store takes data: one that is full or takes no writes still lists. Raises CheckpointError."""
        path = self.path(f"probe/{uuid.uuid4().hex}")
        try:
            self.files.write_new(path, PROBE)
        finally:
            with contextlib.suppress(CheckpointError):  # what is left is a few bytes
                self.files.remove(path)


class Journal:
    """Commits for one context. A commit that meets a higher epoch waits, since an adoption may give the right back."""

    def __init__(
        self,
        files: FileStore,
        context_id: str,
        writer: CheckpointWriter,
        superseded: Callable[[int], None],
        secret: bytes = b"",
        spark_user: str | None = None,
    ) -> None:
        self.folder = ContextFolder(files, context_id, spark_user)
        self._secret = secret
        self._writer = writer
        self._superseded = superseded
        self._changed = threading.Condition()
        self._adoptions = 0
        self._commits = 0
        self.sweep_due: Callable[[], None] = lambda: None

    @property
    def epoch(self) -> int:
        return self._writer.epoch

    def next_version(self) -> str:
        """See CheckpointWriter."""
        return self._writer.next_version()

    def hold(self, version: str) -> None:
        """See CheckpointWriter."""
        self._writer.hold(version)

    def release(self, version: str) -> None:
        """See CheckpointWriter."""
        self._writer.release(version)

    def objects(self) -> Mapping[str, NamedObject]:
        """The named objects as acknowledged."""
        return self._writer.objects()

    def progress_of(self, job_id: str) -> Progress | None:
        """The acknowledged progress of a job."""
        return self._writer.contents().progress.get(job_id)

    def next_progress_path(self, job_id: str, attempt: int) -> str:
        """See CheckpointWriter."""
        return self._writer.next_progress_path(job_id, attempt)

    def commit(self, changes: Changes) -> str:
        """Seal the changes; answers the manifest. Holds while superseded. Raises StoreUnavailable, StaleAttempt."""
        while True:
            with self._changed:
                seen = self._adoptions
            try:
                sealed = self._writer.commit(changes)
            except Superseded as higher:
                self._hold(higher.epoch, seen)
            else:
                self._count()
                return sealed

    def check_store(self) -> None:
        """See ContextFolder.check."""
        self.folder.check()

    def older_versions(self, name: str) -> list[NamedObject]:
        """Versions of an object in manifests that are kept, newest first, without the acknowledged one.

        Raises StoreUnavailable; what of a manifest cannot be read any more is passed over.
        """
        now, found = self.objects().get(name), dict[str, NamedObject]()
        for manifest in list_manifests(self.folder.files, self.folder.context_id):
            with contextlib.suppress(Damaged, UnknownFormat):
                sealed = read_manifest(self.folder.files, self.folder.context_id, manifest, self._secret)
                if (record := sealed.manifest.objects.get(name)) is not None:
                    found[record.version] = record
        if now is not None:
            found.pop(now.version, None)
        return [found[version] for version in sorted(found, reverse=True)]

    def readopt(self, epoch: int, token: str) -> None:
        """Go on under a higher epoch; held commits are tried again. Raises Superseded."""
        self._writer.readopt(epoch, token)
        with self._changed:
            self._adoptions += 1
            self._changed.notify_all()

    def check(self) -> int | None:
        """Look at the markers; the epoch of a higher one, of which `superseded` is told. Raises StoreUnavailable."""
        try:
            self._writer.check()
        except Superseded as higher:
            self._superseded(higher.epoch)
            return higher.epoch
        return None

    def replaced_by(self) -> int | None:
        """The epoch in which another driver has sealed: this one can never go on."""
        return self._writer.replaced_by()

    def sweep(self, in_use: set[str]) -> None:
        """Remove what nothing needs. Raises CheckpointError."""
        removed = self._writer.sweep(in_use)
        if removed:
            log.info("swept %d paths of context %s", len(removed), self.folder.context_id)

    def _hold(self, epoch: int, seen: int) -> None:
        log.warning(
            "epoch %d has begun: holding what is not acknowledged until this driver is adopted or ends", epoch
        )
        self._superseded(epoch)
        with self._changed:
            while self._adoptions == seen:
                self._changed.wait()

    def _count(self) -> None:
        with self._changed:
            self._commits += 1
            due = self._commits % SWEEP_EVERY == 0
        if due:
            self.sweep_due()
