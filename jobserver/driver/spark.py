"""The driver's Spark: its root session, the preparation of job threads, and what a kill does on its side.

Py4J looks up every part of a dotted Java name with a call of its own, so classes and their methods are looked up once and kept.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyspark
from py4j.protocol import Py4JError
from pyspark import SparkContext, SparkFiles
from pyspark.sql import SparkSession

import sparkjobserver
from jobserver.driver.added_files import AddedFiles
from jobserver.driver.config import DriverConfig
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.jvm import Jvm, JvmFailed
from jobserver.driver.waits import SlicedLock

MAJOR = int(pyspark.__version__.partition(".")[0])
CLASSIC = "org.apache.spark.sql.classic" if MAJOR >= 4 else "org.apache.spark.sql"
"""Where the classes of a session that is no Spark Connect client lie."""
ISOLATED = "spark.sql.artifact.isolation.enabled"
"""Set in a session of Spark 4 before its first query, it gives the session jars and files of its own, a class loader on each
executor, and with that its own copy of all code that Spark makes of queries, which is compiled anew. So it is for sessions
that a job makes in the JVM by itself, and for those of jars."""

_here = threading.local()
_shipping = SlicedLock()
_shipped: set[Path] = set()


@dataclass(frozen=True, slots=True)
class JavaClasses:
    """Java classes, their methods, and objects that are used for every job."""

    array_list: Any
    properties: Any
    thread: Any
    set_active_session: Any
    session_module: Any
    rows_of: Any
    system: Any
    scala_context: Any

    @classmethod
    def look_up(cls, context: Any) -> JavaClasses:
        """Find them all."""
        jvm = context._jvm
        return cls(
            array_list=jvm.java.util.ArrayList,
            properties=jvm.java.util.Properties,
            thread=jvm.java.lang.Thread,
            set_active_session=getattr(jvm, f"{CLASSIC}.SparkSession").setActiveSession,
            session_module=getattr(getattr(jvm, f"{CLASSIC}.SparkSession$"), "MODULE$"),
            rows_of=getattr(jvm, f"{CLASSIC}.Dataset").ofRows,
            system=jvm.java.lang.System,
            scala_context=context._jsc.sc(),
        )


@dataclass(frozen=True, slots=True)
class Spark:
    """The one Spark application of this process."""

    root: Any
    context: Any
    java: JavaClasses
    added: AddedFiles = field(default_factory=lambda: AddedFiles(SparkFiles.getRootDirectory))

    def new_session(self) -> Any:
        """A Java session of which all share Spark's state of artifacts, and with it compiled code (DECISIONS 180)."""
        session = self.root._jsparkSession.newSession()
        share_artifacts(session)
        return session

    @property
    def application_id(self) -> str:
        return str(self.context.applicationId)

    @property
    def ui_url(self) -> str | None:
        return self.context.uiWebUrl or None


def connect(jvm: Jvm, config: DriverConfig) -> Spark:
    """The session in a started JVM, with all settings that the JVM was given."""
    port, secret = jvm.gateway()
    os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"] = str(port), secret
    os.environ["PYSPARK_PIN_THREAD"] = "true"
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    root = SparkSession.builder.getOrCreate()
    share_artifacts(root._jsparkSession)
    return Spark(root, root.sparkContext, JavaClasses.look_up(root.sparkContext))


def share_artifacts(java_session: Any) -> None:
    """Before its first query. Sessions of Spark 3.5 share them in any case."""
    if MAJOR >= 4:
        java_session.conf().set(ISOLATED, "false")


def check_user(spark: Spark, wanted: str | None) -> None:
    """Whether Hadoop takes our threads for the proxy user's. Raises JvmFailed.

    SparkSubmit begins its work in his name, and Java hands that on to the threads that begin there; not every release does.
    """
    if wanted is None:
        return
    found = (
        spark.context._jvm.org.apache.hadoop.security.UserGroupInformation.getCurrentUser().getShortUserName()
    )
    if found != wanted:
        raise JvmFailed(
            f"Spark would work for {found} instead of {wanted}: this Java does not hand a proxy user on to other threads; use "
            f"Java 17 or 21"
        )


def warm_up_sql(spark: Spark) -> None:
    """One query: the first costs about a second."""
    spark.root.sql("select id % 3 as k, count(*) as n from range(100) group by 1 order by 1").collect()


def warm_up_python(spark: Spark) -> None:
    """One task in a Python worker: the first costs about a second, too."""
    spark.context.parallelize(range(2), 2).map(str).collect()


def warm_up_parquet(spark: Spark, folder: Path) -> None:
    """Read, cache and query one Parquet file as a restored DataFrame is: the first time costs over a second."""
    path = (folder / "warm-up.parquet").as_uri()
    spark.root.range(100).selectExpr("id", "id % 3 as k").write.mode("overwrite").parquet(path)
    frame = spark.root.read.schema("id long, k long").parquet(path).persist()
    try:
        frame.groupBy("k").count().collect()
    finally:
        frame.unpersist(True)


def ship(spark: Spark, folder: Path, bundle: Path) -> None:
    """Put a bundle on the executors' import path, and before the first one the API that its modules import."""
    with _shipping:
        api = folder / "sparkjobserver.zip"
        if api not in _shipped:  # a kill may have come in the middle of it
            with zipfile.ZipFile(api, "w") as archive:
                for module in Path(sparkjobserver.__file__).parent.glob("*.py"):
                    archive.write(module, f"sparkjobserver/{module.name}")
            spark.context.addPyFile(str(api))
            _shipped.add(api)
        spark.context.addPyFile(str(bundle))


def prepare_thread(
    spark: Spark, attempt: RunningAttempt, ident: int, java_session: Any, reusable: Any
) -> None:
    """Make the calling thread's JVM side the attempt's: nothing of an earlier job's properties is left.

    `reusable`: the JVM's PooledSession around `java_session`, which does that by one call; None if it has none.
    """
    java, description = spark.java, f"job {attempt.ref.job_id}"
    if ident not in attempt.jvm_threads:
        attempt.jvm_threads[ident] = _own_jvm_side(spark)
    if reusable is not None:
        reusable.enter(attempt.group, description, attempt.pool)
        return
    java.scala_context.setLocalProperties(java.properties())
    spark.context._jsc.setJobGroup(attempt.group, description, True)
    java.scala_context.setLocalProperty("spark.scheduler.pool", attempt.pool)
    java.set_active_session(java_session)


def _own_jvm_side(spark: Spark) -> tuple[Any, Any]:
    """`jvm_side` for a thread that makes calls, and serves none: it has one as long as its connection is open."""
    known: tuple[Any, Any] | None = getattr(_here, "jvm_side", None)
    connection = spark.context._gateway._gateway_client.get_thread_connection()
    if known is None or known[1] is not connection or connection is None or connection.socket is None:
        _here.jvm_side = known = jvm_side(spark)
    return known


def jvm_side(spark: Spark) -> tuple[Any, Any]:
    """The JVM's thread that works for the calling one, and the connection to it."""
    return spark.java.thread.currentThread(), spark.context._gateway._gateway_client.get_thread_connection()


class SparkKills:
    """The means of a kill that lie in the JVM. See `killing.SparkSide`."""

    def __init__(self, spark: Spark) -> None:
        self._spark = spark

    def cancel(self, attempt: RunningAttempt) -> bool:
        """Cancel all groups of the attempt, now and for what it still submits."""
        active = False
        for group in list(attempt.groups):
            with contextlib.suppress(Py4JError):
                cancel_group(self._spark, group)
                active = active or self._is_active(group)
        return active

    def interrupt(self, attempt: RunningAttempt) -> None:
        """Interrupt its JVM threads."""
        for java_thread, _ in list(attempt.jvm_threads.values()):
            if java_thread is not None:
                with contextlib.suppress(Py4JError):
                    java_thread.interrupt()

    def cut(self, attempt: RunningAttempt) -> None:
        """Shut down the sockets of its threads; Python's side of the call fails at once."""
        for _, connection in list(attempt.jvm_threads.values()):
            with contextlib.suppress(OSError, AttributeError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _is_active(self, group: str) -> bool:
        tracker = self._spark.context.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        return any(job is not None and job.status == "RUNNING" for job in jobs)


def cancel_group(spark: Spark, group: str) -> None:
    """End the jobs of a group, and those that it will still submit; of these, Spark 3 ends none. Raises Py4JError."""
    scala_context = spark.java.scala_context
    scala_context.cancelJobGroup(group)
    if MAJOR >= 4:
        scala_context.cancelJobGroupAndFutureJobs(group)


def spark_runs(spark: Spark) -> bool:
    """Ask the JVM whether Spark has not been stopped (by its cluster, or by a job past our patches).

    Blocks as long as the JVM is frozen. Raises Py4JError when it refuses.
    """
    return not spark.java.scala_context.isStopped()


def spark_ended(spark: Spark) -> bool:
    """Whether Spark was stopped, or its JVM takes no calls any more. Blocks as long as the JVM is frozen."""
    try:
        return not spark_runs(spark)
    except (Py4JError, OSError):
        return True


def shut_down(context: Any) -> None:
    """Stop the Spark application, so that the cluster frees its executors at once."""
    with contextlib.suppress(Py4JError, OSError):
        SparkContext.stop(context)
