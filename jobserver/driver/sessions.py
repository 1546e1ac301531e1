"""A session for each job: its own temporary views and settings, shared cache, named objects visible in SQL.

A job that never touches Spark costs no call to the JVM: its session takes a prepared one from the pool, and prepares the
calling thread, when it is first used.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession

from jobserver.driver.added_files import AddedFiles, archive_name, file_name, paths_in
from jobserver.driver.jobthreads import RunningAttempt, current, entered, set_entered
from jobserver.driver.session_pool import PooledSession, SessionPool
from jobserver.driver.spark import Spark, prepare_thread

log = logging.getLogger(__name__)

_WORDS = re.compile(r"`([^`]+)`|(\w+)")
_OWN = frozenset({"_sc", "_jsc", "_jvm", "_jsparkSession", "_conf", "_catalog"}) | {
    name for name, value in vars(SparkSession).items() if isinstance(value, cached_property)
}
"""Attributes that a job's session does not take over from the root: `conf` and the like would be the root's. Spark 3.5 keeps
them in fields once they were asked for, Spark 4 in cached properties."""
_LEAVE_TRACES = (
    *(
        "addArtifact",
        "addArtifacts",
        "addTag",
        "dataSource",
        "profile",
        "readStream",
        "registerProgressHandler",
    ),
    *("removeProgressHandler", "streams"),
)
"""What a job may use of its session that leaves something in it which cannot be looked up afterwards."""
_KEEPING_WORDS = frozenset({"add", "jar", "jars", "file", "files", "archive", "archives"})
"""The same in SQL: ADD JAR and the like."""

_PLAN = "_jobserver_plan"
"""The attribute of a shared DataFrame that holds its plan."""

FindFrame = Callable[[str], tuple[str, DataFrame] | None]
"""From a name in lower case to the version and the shared DataFrame of a named object."""


class JobSession(SparkSession):  # type: ignore[misc]
    """What a job gets as `spark`. Its Java session and thread are prepared at first use, in each thread that uses it."""

    def __init__(
        self,
        spark: Spark,
        attempt: RunningAttempt,
        pool: SessionPool,
        names: NamesInSql,
        java_session: Any = None,
    ) -> None:
        self.__dict__.update({key: value for key, value in spark.root.__dict__.items() if key not in _OWN})
        self._spark = spark
        self._attempt = attempt
        self._pool = pool
        self._names = names
        self._java_session: Any = java_session
        self._pooled: PooledSession | None = None
        self._traced = False
        self._taking = threading.Lock()
        self._mirrored: dict[str, str] = {}

    @property
    def _jsparkSession(self) -> Any:
        self._enter()
        return self._java_session

    @property
    def _sc(self) -> Any:
        self._enter()
        return self._spark.context

    @property
    def _jsc(self) -> Any:
        self._enter()
        return self._spark.context._jsc

    @property
    def _jvm(self) -> Any:
        return self._spark.context._jvm

    @property
    def used(self) -> bool:
        """Whether the job has touched Spark."""
        return self._java_session is not None

    def _enter(self) -> None:
        """Prepare the calling thread, once per job; threads that are nobody's (Spark's callbacks) stay as they are."""
        if self._java_session is None:
            with self._taking:
                if self._java_session is None:
                    pooled = self._pool.take()
                    self._pooled, self._java_session = pooled, pooled.java
        if entered() is not self._attempt and current() is self._attempt:
            reusable = None if self._pooled is None else self._pooled.reusable
            prepare_thread(self._spark, self._attempt, threading.get_ident(), self._java_session, reusable)
            set_entered(self._attempt)

    def sql(self, sqlQuery: str, *args: Any, **kwargs: Any) -> DataFrame:
        """As SparkSession.sql; named objects that the text mentions are there under their bare names."""
        words = words_in(sqlQuery)
        self._mirror(words)
        self._traced = self._traced or not words.isdisjoint(_KEEPING_WORDS)
        added = {} if args or kwargs else paths_in(sqlQuery)  # with them the text does not say what is added
        return self._spark.added.adding(added, lambda: super(JobSession, self).sql(sqlQuery, *args, **kwargs))

    def table(self, tableName: str) -> DataFrame:
        """As SparkSession.table, named objects included."""
        self._mirror(words_in(tableName))
        return super().table(tableName)

    def stop(self) -> None:
        """Nothing: the application belongs to the context, not to one of its jobs."""
        log.warning("a job called stop() on its session: ignored, other jobs use the same Spark")

    def newSession(self) -> SparkSession:
        """Another session of the same job."""
        self._enter()
        return JobSession(self._spark, self._attempt, self._pool, self._names)

    def leave(self, *, again: bool) -> Callable[[], None]:
        """The job has ended. `again`: by itself, with no thread that could still use the session.

        Whatever keeps this object, in a module maybe, gets another session when it uses it once more. What is returned gives
        the Java session back to the pool, which then looks at it: to be called when nobody waits for the job any more.
        """
        pooled = self._pooled
        if pooled is None or not again or self._traced:
            return _nothing
        views, self._mirrored = self._mirrored, {}
        self._pooled, self._java_session, self._traced = None, None, True
        return lambda: self._pool.give_back(pooled, views)

    def adopt_frame(self, shared: DataFrame) -> DataFrame:
        """The same plan (and cache) as a DataFrame of this session."""
        return DataFrame(self._spark.java.rows_of(self._jsparkSession, plan_of(shared)), self)

    def _mirror(self, words: Iterable[str]) -> None:
        for word in words:
            found = self._names.find(word)
            if found is not None and self._mirrored.get(word) != found[0]:
                self.adopt_frame(found[1]).createOrReplaceTempView(f"`{word}`")
                self._mirrored[word] = found[0]


def plan_of(shared: DataFrame) -> Any:
    """What Spark made of a shared frame when it was made; asked for once, and kept with it."""
    known = vars(shared).get(_PLAN)
    if known is not None:
        return known
    plan, attempt = shared._jdf.queryExecution().analyzed(), current()
    # a killed thread may read the answer to its call before, which it did not take
    if attempt is None or not attempt.killing:
        vars(shared)[_PLAN] = plan
    return plan


def _nothing() -> None:
    pass


def _tracing(name: str) -> property:
    """The attribute of SparkSession, which is noted when it is used."""
    plain = getattr(SparkSession, name)

    def get(session: JobSession) -> Any:
        session._traced = True
        return plain.__get__(session, JobSession) if hasattr(plain, "__get__") else plain

    return property(get)


for _name in _LEAVE_TRACES:
    if hasattr(SparkSession, _name):  # older Sparks lack some
        setattr(JobSession, _name, _tracing(_name))


class NamesInSql:
    """Which words of an SQL text are named DataFrames. `find` is set once the driver has named objects."""

    def __init__(self) -> None:
        self.find: FindFrame = lambda _word: None


def words_in(sql: str) -> set[str]:
    """Everything in a text that could be a table's name, in lower case as Spark compares names."""
    return {(quoted or plain).lower() for quoted, plain in _WORDS.findall(sql)}


def job_session() -> JobSession | None:
    """The session of the job for which the calling thread works."""
    attempt = current()
    return None if attempt is None else attempt.session


def install_patches(spark: Spark) -> None:
    """In job threads, `getOrCreate` and the like answer the job's own session and cannot change or stop the root's."""
    _patch_builder(spark)
    _patch_active()
    _patch_context()
    _patch_adding(spark.added)


def _patch_builder(spark: Spark) -> None:
    plain = SparkSession.Builder.getOrCreate

    def get_or_create(builder: Any) -> Any:
        session = job_session()
        if session is None:
            return plain(builder)
        if builder._options:
            spark.java.session_module.applyModifiableSettings(session._jsparkSession, builder._options)
        return session

    SparkSession.Builder.getOrCreate = get_or_create
    if hasattr(SparkSession.Builder, "create"):
        plain_create = SparkSession.Builder.create

        def create(builder: Any) -> Any:
            session = job_session()
            return plain_create(builder) if session is None else session.newSession()

        SparkSession.Builder.create = create


def _patch_active() -> None:
    plain = SparkSession.getActiveSession.__func__

    def get_active_session(cls: Any) -> Any:
        return job_session() or plain(cls)

    SparkSession.getActiveSession = classmethod(get_active_session)


def _patch_context() -> None:
    plain_get = SparkContext.getOrCreate.__func__
    plain_stop, plain_group = SparkContext.stop, SparkContext.setJobGroup

    def get_or_create(cls: Any, conf: Any = None) -> Any:
        session = job_session()
        return plain_get(cls, conf) if session is None else session._sc

    def stop(context: Any) -> None:
        if current() is None:
            plain_stop(context)
        else:
            log.warning("a job called stop() on the SparkContext: ignored, other jobs use the same Spark")

    def set_job_group(context: Any, groupId: str, *args: Any, **kwargs: Any) -> None:
        attempt = current()
        if attempt is not None:  # a kill must find what the job now runs under another name
            attempt.groups.append(groupId)
        plain_group(context, groupId, *args, **kwargs)

    SparkContext.getOrCreate = classmethod(get_or_create)
    SparkContext.stop = stop
    SparkContext.setJobGroup = set_job_group


def _patch_adding(added: AddedFiles) -> None:
    plain_file, plain_archive = SparkContext.addFile, SparkContext.addArchive

    def add_file(context: Any, path: str, recursive: bool = False) -> None:
        added.adding({file_name(path): path}, lambda: plain_file(context, path, recursive))

    def add_archive(context: Any, path: str) -> None:
        added.adding({archive_name(path): path}, lambda: plain_archive(context, path))

    SparkContext.addFile, SparkContext.addArchive = add_file, add_archive
