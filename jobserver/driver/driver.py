"""The driver as one thing: its binding, its jobs, its named objects, and how each request changes them.

Called from the threads of connections and jobs. `commands` turns messages into these calls.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from checkpoint import binaries
from checkpoint.base import Base
from checkpoint.contents import Changes
from checkpoint.errors import CheckpointError, Missing, StoreUnavailable
from checkpoint.files import FileStore
from checkpoint.follow import follow, resume
from checkpoint.stores import UnknownStore, open_store
from checkpoint.watched import TroubleCount, WatchedFiles
from checkpoint.writer import CheckpointWriter
from jobserver.driver import binding
from jobserver.driver.attempts import Attempts
from jobserver.driver.binding import Binding, BindingRefused, ContextRef, Role
from jobserver.driver.config import DriverConfig
from jobserver.driver.data_files import DataFiles
from jobserver.driver.execution import Runner
from jobserver.driver.frames import Produced
from jobserver.driver.held import Held
from jobserver.driver.job_environment import JobNamedObjects, recipe_of, sealer
from jobserver.driver.job_log import JobLogs
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.journal import ContextFolder, Journal
from jobserver.driver.jvm_jobs import Jars
from jobserver.driver.keeper import Keeper
from jobserver.driver.killing import Killer
from jobserver.driver.kinds import JobKinds, RunnableJob, RunOrder, config_tree
from jobserver.driver.late_writes import AsyncLimits
from jobserver.driver.lifetime import Lifetime
from jobserver.driver.listener import Connection
from jobserver.driver.loading import JobLoader
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_orders import absent, carry_out
from jobserver.driver.origins import Recipe
from jobserver.driver.progress import JobProgress
from jobserver.driver.progress_board import ProgressBoard
from jobserver.driver.rebuilding import Rebuilds, SparkRebuilder
from jobserver.driver.rehearsal import Rehearsal
from jobserver.driver.result_store import keep_result
from jobserver.driver.session_pool import SessionPool
from jobserver.driver.sessions import JobSession, NamesInSql
from jobserver.driver.shelf import SparkShelf
from jobserver.driver.spark import Spark, SparkKills, ship, spark_ended, warm_up_parquet
from jobserver.driver.standby import Standby
from jobserver.driver.streaming import StreamingJobs, stop_queries
from jobserver.model import AttemptOutcome, AttemptRef, ObjectOrder
from jobserver.progress import progress_fields
from jobserver.protocol import Event, Message, Refused, outcome_message
from jobserver.stored_results import INLINE_LIMIT
from sparkjobserver.api import JobEnvironment

log = logging.getLogger(__name__)

PROGRESS_TOLD = 0.1
SEALERS = 8
"""Commits that may wait for one shared seal."""


class Driver:
    """Everything of one driver process but its sockets and its end."""

    def __init__(self, config: DriverConfig, spark: Spark, lifetime: Lifetime, pool_size: int = 4) -> None:
        self.config = config
        self.spark = spark
        self.lifetime = lifetime
        self.binding = Binding()
        self.attempts = Attempts()
        self.killer = Killer(SparkKills(spark), config.kill_grace)
        self.journal: Journal | None = None
        self.end: Callable[[str], None] = lambda reason: None
        self.hurry: Callable[[], None] = lambda: None
        self.yield_more: Callable[[], None] = lambda: None
        self.yield_less: Callable[[], None] = lambda: None
        self._changing = threading.RLock()
        self._owner: Connection | None = None
        self._log_store: FileStore | None = None
        self._sealers = Keeper("sealer", SEALERS)
        self._background = Keeper("background", 2)
        self.streaming = StreamingJobs(config.orphan_timeout)
        self._pool = SessionPool(spark, pool_size)
        self._names = NamesInSql()
        self._context_config: Any = config_tree({})
        self.store_trouble = TroubleCount()
        self._store: FileStore | None = None
        self._registry: Registry | None = None
        self._standby: Standby | None = None
        shared = config.archive_dir
        self.rehearsal = Rehearsal(spark, config.dir, shared / "rehearsal.lock" if shared else None)
        stored = self._stored_binary
        self._loader = JobLoader(config.dir / "bundles", lambda path: ship(spark, config.dir, path), stored)
        self.logs = JobLogs(self._log_files, config.job_log_limit)
        jars = Jars(spark, config.dir / "jars", self._view_names, lambda word: self._names.find(word), stored)
        self._kinds = JobKinds(self._loader, jars, config.result_limit)
        self.runner = Runner(self.attempts, self.killer, self, config.driver_id)

    # who commands

    def is_owner(self, connection: Connection) -> bool:
        """Whether the connection is the owner's."""
        return connection is self._owner

    @contextlib.contextmanager
    def commanded_by(self, connection: Connection) -> Iterator[bool]:
        """Whether the connection is the owner's; it stays so, or not, until the block ends: an adoption waits."""
        with self._changing:
            yield connection is self._owner

    @property
    def has_owner(self) -> bool:
        """Whether an owner is connected and was heard a moment ago."""
        owner = self._owner
        return owner is not None and owner.open and self.lifetime.owner_present(time.monotonic())

    @property
    def owner_lost(self) -> bool:
        """Whether it had an owner whose connection has ended; one that is only silent is not lost."""
        owner = self._owner
        return owner is not None and not owner.open

    def heard(self, connection: Connection) -> None:
        """A message came: it counts if it is the owner's, or anyone's before there is an owner."""
        if self.binding.role is not Role.ACTIVE or connection is self._owner:
            self.lifetime.heard(time.monotonic())

    def adopt(
        self,
        connection: Connection,
        epoch: int,
        token: str,
        nonce: str,
        last_nonce: str,
        reply: Callable[[], None],
    ) -> None:
        """Go on under the epoch of a new owner. `reply` is sent before any event. Raises BindingRefused."""
        with self._changing:
            new = binding.adopt(self.binding, epoch, token, nonce, last_nonce)
            if self.journal:
                self.journal.readopt(epoch, token)
            self.binding = new
            self._change_owner(connection, reply)
        log.info("adopted: epoch %d", epoch)

    def bind(self, context: ContextRef) -> None:
        """Become a hot standby: read the newest manifest and touch what a restore will need. Raises BindingRefused."""
        self.yield_less()
        with self._changing:
            self.binding = binding.bind(self.binding, context)
        files = self._files()
        if files is None:
            return
        folder = ContextFolder(files, context.id)
        shelf = self._shelf(folder)
        standby = Standby(
            lambda known: follow(files, context.id, known, self._secret), shelf, self._filled_late
        )
        try:
            warm_up_parquet(self.spark, self.config.dir)
        except Exception:
            # Spark's failures have no common class; the first restore only takes longer
            log.exception("reading Parquet could not be warmed up")
        standby.look()
        with self._changing:
            if self._standby is None and self.binding.role is Role.STANDBY:
                self._standby = standby
                standby.follow()

    def fill(self) -> None:
        """Cache what this hot standby has prepared, as an activation is near; returns when that is done, or ended by it."""
        if standby := self._standby:
            self.yield_more()  # the old driver, or others on this machine, answer somebody meanwhile
            try:
                standby.fill()
            finally:
                self.yield_less()

    def _filled_late(self, held: Held) -> None:
        with self._changing:  # the activation has ended by then
            registry = self._registry
        if registry is not None:
            registry.drop_if_replaced(held)

    def standby_progress(self) -> dict[str, Any] | None:
        """How far this hot standby has read, and whether it has rehearsed; None when it is none."""
        standby = self._standby
        if standby is None or self.binding.role is not Role.STANDBY:
            return None
        return {**standby.progress(), "rehearsed": self.rehearsal.done}

    def activate(
        self, connection: Connection, context: ContextRef, epoch: int, token: str, base: str | None,
        reply: Callable[[], None],
    ) -> None:  # fmt: skip
        """Become the driver of a context, with what the manifest `base` holds. Raises BindingRefused."""
        self.hurry()
        self.rehearsal.end()
        with self._changing:
            new = binding.activate(self.binding, context, epoch, token)
            journal = self._open_journal(context, epoch, token, base)
            shelf = self._shelf(journal.folder if journal else None)
            prepared = self._standby.end() if self._standby else None
            self._registry = Registry(
                shelf, journal, self._sealers, self._background, prepared,
                limits=AsyncLimits(self.config.async_interval, self.config.async_max_lag),
                rebuild=self._rebuilds(journal) if journal else None,
            )  # fmt: skip
            self._names.find = _frame_finder(self._registry)
            self._context_config = config_tree(dict(context.settings))
            self.journal, self.binding = journal, new
            self._change_owner(connection, reply)
        log.info("active for context %s with epoch %d from manifest %s", context.id, epoch, base)

    def _rebuilds(self, journal: Journal) -> Rebuilds:
        rebuilder = SparkRebuilder(self._loader, journal.folder.files, self, self.config.driver_id)
        return Rebuilds(rebuilder, JobNamedObjects)

    def _shelf(self, folder: ContextFolder | None) -> SparkShelf:
        return SparkShelf(self.spark, self._loader, folder, self._sealers)

    def _open_journal(self, context: ContextRef, epoch: int, token: str, base: str | None) -> Journal | None:
        files = self._files()
        if files is None or base is None:
            return None
        try:
            known = self._standby.known if self._standby else Base(None)
            loaded = resume(files, context.id, known, base, self._secret)
        except CheckpointError as error:
            raise BindingRefused(Refused.FAILED, f"manifest {base} cannot be loaded: {error}") from error
        writer = CheckpointWriter(files, context.id, epoch, token, loaded, self._secret)
        return Journal(files, context.id, writer, self._superseded, self._secret, self.config.proxy_user)

    def _files(self) -> FileStore | None:
        if not self.config.checkpoint_root:
            return None
        try:
            if self._store is None:
                files = open_store(self.config.checkpoint_root, self.config.cluster, self.config.hdfs)
                self._store = WatchedFiles(files, self.store_trouble)
            return self._store
        except (UnknownStore, CheckpointError) as error:
            raise BindingRefused(Refused.FAILED, f"the checkpoint store cannot be opened: {error}") from error

    def _stored_binary(self, digest: str) -> bytes:
        """Uploaded bytes from the checkpoint store. Raises CheckpointError."""
        files = self._files()
        if files is None:
            raise Missing("this driver was given no checkpoint store to read from")
        return binaries.read(files, digest)

    @property
    def _secret(self) -> bytes:
        return self.config.cluster_secret.encode()

    def _change_owner(self, connection: Connection, reply: Callable[[], None]) -> None:
        older, now = self._owner, time.monotonic()
        with (
            connection.lock
        ):  # an event of a job that ends right now comes after the reply, or is listed in it
            self._owner = connection
            self.lifetime.heard(now)
            reply()
        if older is not None and older is not connection:
            older.close()

    # what jobs need (execution.Workplace)

    def spark_ended(self) -> bool:
        """Whether Spark has ended under the running jobs; this driver then ends, too."""
        ended = spark_ended(self.spark)
        if ended:
            self.end("Spark has ended under the jobs")
        return ended

    def session(self, attempt: RunningAttempt) -> JobSession:
        """A session of its own for an attempt."""
        return JobSession(self.spark, attempt, self._pool, self._names)

    def context_config(self) -> Any:
        """The context's settings, as jobs see them."""
        return self._context_config

    def begun(self, attempt: RunningAttempt) -> None:
        """Its output and its progress have a place of their own."""
        attempt.log = self.logs.begin(attempt.ref)
        attempt.board = ProgressBoard(attempt.ref.attempt)

    def look(self, ref: AttemptRef) -> dict[str, Any] | None:
        """The progress of a running attempt; None when it does not run. Waits for the JVM."""
        attempt = self.runner.attempt(ref)
        return None if attempt is None else progress_fields(attempt.board.look(self.spark, attempt))

    def _log_files(self) -> FileStore | None:
        if self._log_store is None:
            try:
                self._log_store = self._files()
            except BindingRefused as error:
                raise StoreUnavailable(str(error)) from error
        return self._log_store

    def job(self, attempt: RunningAttempt, order: RunOrder) -> RunnableJob:
        """The job with a session of its own, which costs nothing until it is used. Raises LoadRefused."""

        def session(java_session: Any = None) -> JobSession:
            made = JobSession(self.spark, attempt, self._pool, self._names, java_session)
            attempt.session = made
            return made

        return self._kinds.job(order, session, lambda: self._environment(attempt, recipe_of(order)))

    def _view_names(self) -> dict[str, bool]:
        return self._registry.views() if self._registry else {}

    def _environment(self, attempt: RunningAttempt, recipe: Recipe | None) -> JobEnvironment:
        """What the job may know and share."""
        ref, registry = attempt.ref, self._registry
        assert registry is not None, "jobs run in an active driver only"
        progress = JobProgress(
            ref,
            self.journal,
            self._sealers,
            lambda fraction, message: self._progress(attempt, fraction, message),
            self._shelf(self.journal.folder if self.journal else None),
            lambda path: registry.hold(path, ref),
        )
        return JobEnvironment(
            ref.job_id,
            JobNamedObjects(registry, recipe),
            self._context_config,
            attempt=ref.attempt,
            epoch=self.binding.epoch,
            progress=progress,
            sealer=sealer(ref, progress, registry, recipe),
            data_files=self.data_file,
            streams=self.streaming.of(attempt, self.journal.folder if self.journal else None),
        )

    def keep_result(self, ref: AttemptRef, produced: Produced) -> str:
        """The result itself if it is small, else a reference to what is stored by then."""
        if isinstance(produced, str) and len(produced) <= INLINE_LIMIT and produced.isascii():
            return produced
        return keep_result(self._log_files(), ref, produced, self.config.result_limit)

    def data_file(self, name: str) -> str:
        """An uploaded data file as a local path."""
        return DataFiles(self._files, self.config.dir / "data").local(name)

    def accepted(self, ref: AttemptRef, *, awaited: bool) -> None:
        """Its code was loaded and `validate` passed."""
        event = {"t": "event", "e": Event.ACCEPTED, "job_id": ref.job_id, "attempt": ref.attempt}
        owner = self._owner
        if owner is not None:
            (owner.send if awaited else owner.send_soon)(event)

    def finished(self, outcome: AttemptOutcome) -> None:
        """It ended. The outcome waits in `attempts` until the owner acknowledges it."""
        owner = self._owner
        if owner is not None:
            owner.send_soon({"t": "event", "e": Event.FINISHED, **outcome_message(outcome)})
            owner.flush()

    def left(self, attempt: RunningAttempt) -> None:
        """Free what only this attempt used."""
        attempt.left = True
        if attempt.log is not None:  # a rebuild has no output of its own
            self.logs.end(attempt.log)
        if attempt.killing and attempt.session is not None and attempt.session.used:
            # one that keeps no state of ours is stopped, too: nobody is left who could
            attempt.leaving.append(partial(stop_queries, attempt, attempt.session))
        for free in attempt.leaving:
            self._background.submit(free)
        attempt.leaving.clear()
        if self._registry is not None:
            self._registry.released_by(attempt.ref)

    def acknowledged(self, ref: AttemptRef, *, ended: bool) -> None:
        """The outcome is committed: forget it, and what the job has saved, unless a later attempt of it goes on."""
        self.attempts.ack(ref)
        journal = self.journal
        if ended and journal is not None and journal.progress_of(ref.job_id) is not None:
            self._background.submit(lambda: journal.commit(Changes(forget=(ref.job_id,))))

    def objects(self) -> list[dict[str, Any]]:
        """The named objects, as the owner shows them."""
        return self._registry.describe() if self._registry else []

    def data(self) -> dict[str, Any] | None:
        """The named objects as a whole."""
        return self._registry.summary() if self._registry else None

    def object(self, order: ObjectOrder) -> dict[str, Any] | None:
        """Show or change one named object; None once it is destroyed. Raises ObjectOrderRefused."""
        if self._registry is None:
            raise absent(order.name)
        journal = self.journal
        return carry_out(self._registry, order, journal.older_versions if journal else lambda name: [])

    def flush(self, limit: float) -> bool:
        """Wait until async objects are sealed."""
        return self._registry.flush(limit) if self._registry else True

    def check_markers(self) -> str | None:
        """Look whether the epoch is superseded; the reason to end if another driver has taken over for good."""
        if self.journal is None:
            return None
        try:
            higher = self.journal.check()
            if higher is not None and self.streaming.any:
                # what a query writes passes no fence of ours
                return f"epoch {higher} has begun, and streaming jobs run here"
            replaced = self.journal.replaced_by()
        except CheckpointError as error:  # a store in trouble proves nothing
            log.warning("the markers cannot be read: %s", error)
            return None
        return None if replaced is None else f"another driver has sealed in epoch {replaced}"

    def _progress(self, attempt: RunningAttempt, fraction: float | None, message: str) -> None:
        """Kept for who asks; the owner is told of it at most every PROGRESS_TOLD seconds."""
        attempt.board.report(fraction, message)
        now, ref = time.monotonic(), attempt.ref
        if now - attempt.told_at >= PROGRESS_TOLD:
            attempt.told_at = now
            told = {"job_id": ref.job_id, "attempt": ref.attempt, "fraction": fraction, "message": message}
            self._tell({"e": Event.PROGRESS, **told})

    def _superseded(self, epoch: int) -> None:
        self._tell({"e": Event.SUPERSEDED, "epoch": epoch})

    def _tell(self, event: Message) -> None:
        owner = self._owner
        if owner is not None:
            owner.send({"t": "event", **event})


def _frame_finder(registry: Registry) -> Callable[[str], tuple[str, Any] | None]:
    def find(word: str) -> tuple[str, Any] | None:
        held = registry.find_frame(word)
        return None if held is None else (held.version, held.value)

    return find
