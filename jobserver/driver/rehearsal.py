"""Queries that a waiting driver runs over rows of its own, so that its first answers find Spark's code compiled.

It is warmed up first: the first query, the first Python task and the first file cost seconds. Then it rehearses: a young JVM
plans and runs its first group-by three times slower than its tenth. A rehearsal takes one core at most, comes one at a time on
a machine, and yields to the driver's jobs. Both are seen by nobody, and end when the driver is activated.

Turns are a lock of a file, which dies with who has it. Who rehearses also touches that file before each query: a process that is
frozen shows no such sign, and is passed by after `SILENT`. Turns are a courtesy: where they fail, two rehearse at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from py4j.protocol import Py4JError
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from jobserver.driver.spark import (
    Spark,
    cancel_group,
    share_artifacts,
    warm_up_parquet,
    warm_up_python,
    warm_up_sql,
)

log = logging.getLogger(__name__)

ROUNDS = 10
"""How often each query is run; the next run would hardly be quicker."""
ROWS = 100_000
"""Rows of its own: enough for the loops of generated code to be compiled, about 2 MB."""
LOOK_AGAIN = 0.25
"""Seconds between two looks whether another driver's rehearsal is over."""
SILENT = 60.0
"""Seconds without a sign of whoever rehearses, after which the next begins beside it; a query takes a second, or a few."""
GROUP = "rehearsal"
"""Spark's name for the jobs of a rehearsal."""
_SCHEMA = "id long, name string, amount double"

Query = Callable[[DataFrame], Any]
Sign = Callable[[], None]
"""Shows others that a rehearsal goes on."""


class Rehearsal:
    """The one rehearsal of a driver. `folder`: where its rows are written; `lock`: a file that the machine's drivers share;
    `warmed`: called when it is warmed up.

    `clock`: seconds, by which the silence of others is measured.
    """

    def __init__(
        self, spark: Spark, folder: Path, lock: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.warmed: Callable[[], None] = lambda: None
        self._spark = spark
        self._folder = folder
        self._begun = False
        self._warm: Future[bool] = Future()
        self._path = (folder / "rehearsal.parquet").as_uri()
        self._lock = lock
        self._clock = clock
        self._ending = threading.Event()
        self.going_on = False
        """Whether it has begun and not ended."""
        self.done = False
        """Whether all of it was run."""

    def begin(self) -> threading.Thread:
        """Warm up and rehearse in a thread of its own; returns that at once."""
        self._begun = self.going_on = True
        thread = threading.Thread(target=self._run, name="rehearsal", daemon=True)
        thread.start()
        return thread

    def end(self) -> None:
        """Begin no further query and give up the one that runs, without waiting for either."""
        ended = self._ending.is_set()
        self._ending.set()
        if self.going_on and not ended:
            with contextlib.suppress(Py4JError):  # a JVM that has died is noticed elsewhere
                cancel_group(self._spark, GROUP)

    def wait_warm(self) -> bool:
        """Wait for the end of the warm-up: whether all of it was run; it is not in a driver that is not to wait.

        Raises what Spark raised.
        """
        return self._begun and self._warm.result()

    def _run(self) -> None:
        try:
            self._warm_up()
            with self._turn() as sign:
                self._rehearse(sign)
        except Exception as error:  # noqa: BLE001
            # Spark's failures have no common class; whatever it was, only the first answers take longer
            if not self._ending.is_set():
                log.warning("the rehearsal of queries was given up: %s", error)
        finally:
            self.going_on = False

    def _warm_up(self) -> None:
        steps = (warm_up_sql, warm_up_python, lambda spark: warm_up_parquet(spark, self._folder))
        try:
            # no thread is interrupted: what the JVM does for the first time and is stopped in, it may not be able to do again
            self._take_group(interrupt=False)
            for step in steps:
                if not self._ending.is_set():
                    step(self._spark)
            warm = not self._ending.is_set()
            if warm:
                self.warmed()  # first: whoever waits may bind it at once, and then it is no longer to yield
        except Exception as error:
            # Spark's failures have no common class; whoever waits for the warm-up judges them
            if not self._ending.is_set():
                self._warm.set_exception(error)
                raise
        self._warm.set_result(warm)

    def _take_group(self, *, interrupt: bool) -> None:
        """What this thread asks of Spark yields to jobs, and can be cancelled."""
        context = self._spark.java.scala_context
        context.setLocalProperty("spark.scheduler.pool", "background")
        context.setJobGroup(GROUP, "queries that make the first answers quick", interrupt)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Sign]:
        """Waits for other drivers' rehearsals, until the end at most, and while they show signs; yields what shows ours."""
        if self._lock is None:
            yield lambda: None
            return
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as file:
            try:
                self._wait_for_turn(file)
                yield lambda: os.utime(file.fileno())
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # of a copy in a forked child of a job, too

    def _wait_for_turn(self, file: IO[str]) -> None:
        seen, since = 0, self._clock()
        while not (self._ending.is_set() or _locked(file)):
            sign, now = os.fstat(file.fileno()).st_mtime_ns, self._clock()
            if sign != seen:
                seen, since = sign, now
            elif now - since > SILENT:
                log.warning(
                    "another driver's rehearsal shows no sign for %g s: this one begins beside it", SILENT
                )
                return
            self._ending.wait(LOOK_AGAIN)

    def _rehearse(self, sign: Sign) -> None:
        if self._ending.is_set():
            return
        sign()
        self._take_group(interrupt=True)
        session = self._spark.root.newSession()
        share_artifacts(session._jsparkSession)
        session.conf.set("spark.sql.shuffle.partitions", "1")
        name = f.concat(f.lit("r"), f.col("id") % 7).alias("name")
        made = session.range(0, ROWS, 1, 1).select("id", name, f.rand().alias("amount"))
        made.write.mode("overwrite").parquet(self._path)
        for _ in range(ROUNDS):
            if self._ending.is_set():
                return
            self._once(session.read.schema(_SCHEMA).parquet(self._path).persist(), sign)
        self.done = not self._ending.is_set()

    def _once(self, rows: DataFrame, sign: Sign) -> None:
        try:
            for query in queries():
                if not self._ending.is_set():
                    sign()
                    query(rows)
        finally:
            rows.unpersist(False)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def queries() -> Sequence[Query]:
    """One of each shape that analytics is made of, over rows of `id`, `name` and `amount`."""
    return (
        lambda rows: rows.groupBy("name").agg(f.count("*"), f.sum("amount"), f.avg("amount")).collect(),
        lambda rows: rows.where("id = 17").collect(),
        lambda rows: rows.where("amount > 0.5").orderBy(f.desc("amount")).limit(10).collect(),
        lambda rows: rows.join(rows.groupBy("name").agg(f.max("amount").alias("most")), "name").count(),
        lambda rows: rows.select(f.countDistinct("name")).collect(),
    )
